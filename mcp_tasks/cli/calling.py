"""From the arguments of a command to a call of the service, in this process, on the same store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import typer

from mcp_tasks.cli.options import Place
from mcp_tasks.cli.places import refuse_share

if TYPE_CHECKING:
    from mcp_tasks.service import Caller, Service
    from mcp_tasks.settings import Settings

__all__ = ["CHUNK_MS", "call", "settings_for", "text_of"]

T = TypeVar("T")

_INTERRUPTED = 130
"""128 and SIGINT, as shells have it."""

CHUNK_MS = 3_600_000
"""One wait of the service; what waits for longer waits again."""


def settings_for(place: Place) -> Settings:
    """The settings with what the command line says about directory, store and session."""
    from mcp_tasks.settings import Settings

    directory, store, session = place
    return Settings(dir=directory, store=store, session=session)


def text_of(data: bytes) -> str:
    """Input for a command, exactly as it was read. Raises InvalidArgument where it is not text."""
    from mcp_tasks.errors import InvalidArgument

    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(
            "the input is not UTF-8 text", "let the command read bytes from a file: run -- 'CMD < FILE'"
        ) from None


def call(
    place: Place,
    work: Callable[[Service, Caller], Awaitable[T]],
    *,
    starts: bool = False,
    whole: bool = False,
) -> T:
    """Do something with the service, and come back when it is done.

    Args:
        place: Where, as given on the command line.
        work: What to do.
        starts: Whether a command may be started, so that it is worth getting the launcher ready.
        whole: Whether it concerns more than one session, so that no share lets anybody.

    Raises:
        TasksError: As the service does.
        NotSupported: The store does not outlive a process, so no other process's tasks can be in it.
    """
    import anyio

    from mcp_tasks.errors import NotSupported

    settings = settings_for(place)
    if whole:
        refuse_share(settings)
    if settings.store == "memory":
        raise NotSupported(
            "the memory store lives in its server alone",
            "use json or sqlite, here and for the server",
        )

    async def in_service() -> T:
        from mcp_tasks.app import open_service
        from mcp_tasks.models import DEFAULT_SESSION
        from mcp_tasks.service import Caller

        caller = Caller(
            owner=settings.owner,
            session=settings.session or DEFAULT_SESSION,
            named=settings.session is not None,
            max_wait_ms=CHUNK_MS,
            share=settings.share.get_secret_value() if settings.share else None,
        )
        async with open_service(settings, warm=starts) as service:
            try:
                return await work(service, caller)
            except Exception as error:  # noqa: BLE001 - raised again, outside of what would wrap it in a group
                failure = error
        raise failure

    try:
        return anyio.run(in_service)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
