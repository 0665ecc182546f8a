"""What `doctor` looks at of a server elsewhere: can it be reached, does it let us in, is it like this one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mcp_tasks.cli.checkup import Finding
from mcp_tasks.cli.printing import note
from mcp_tasks.cli.versions import installed
from mcp_tasks.errors import PolicyDenied, SessionNotFound, TasksError

if TYPE_CHECKING:
    from mcp_tasks.settings import Settings

__all__ = ["examine_server"]

_CLOCKS_APART_S = 2.0


def examine_server(settings: Settings, address: str) -> list[Finding]:
    """Look at everything that a client needs of the server at an address."""
    import anyio

    from mcp_tasks.models import DEFAULT_SESSION
    from mcp_tasks.remote import open_remote, share_given
    from mcp_tasks.service import Caller

    share = share_given(settings.share, settings.token)
    caller = Caller(settings.owner, settings.session or DEFAULT_SESSION, named=False, share=share)

    async def asked() -> tuple[dict[str, Any], float, float]:
        async with open_remote(address, token=settings.token, tell=note) as service:
            await service.server_info(caller)  # so that the next is not about connecting
            before = time.time()
            info = await service.server_info(caller)
            return info, before, time.time()

    version = Finding("well", "version", f"{installed('mcp-tasks')} here")
    try:
        info, before, after = anyio.run(asked)
    except (PolicyDenied, SessionNotFound) as error:
        reached = Finding("well", "reach", f"{address} answers")
        return [version, reached, Finding("wrong", "token", error.message, error.hint)]
    except TasksError as error:
        return [version, Finding("wrong", "reach", error.message, error.hint)]
    reached = Finding("well", "reach", f"{address} answers in {(after - before) * 1000:.0f} ms")
    who = f"it knows you as {info['owner']}, with the role {info['role']}"
    if "share" in info:
        who = f"it lets you into session {info['session']} of {info['owner']}, with the role {info['role']}"
    return [reached, *_versions(info["version"]), Finding("well", "token", who), *_clock(info, before, after)]


def _versions(theirs: str) -> Iterator[Finding]:
    ours = installed("mcp-tasks")
    both = f"{ours} here, mcp-tasks {theirs} there"
    if ours in (f"mcp-tasks {theirs}", "mcp-tasks (not installed)"):
        yield Finding("well", "version", both)
    else:
        yield Finding("look", "version", both, "what only one of them knows does not work")


def _clock(info: dict[str, Any], before: float, after: float) -> Iterator[Finding]:
    """How far the server's clock is from ours, as far as the way there and back lets it be told."""
    apart = datetime.fromisoformat(info["now"]).timestamp() - (before + after) / 2
    if abs(apart) <= _CLOCKS_APART_S + (after - before) / 2:
        yield Finding("well", "clock", "the same time here and there")
    else:
        which = "ahead of" if apart > 0 else "behind"
        found = f"the server's clock is {abs(apart):.0f} s {which} this one"
        yield Finding("look", "clock", found, "moments that it tells are by its own clock")
