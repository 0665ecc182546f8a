"""What a subscriber of resources hears of: the state of tasks, the growth of their output, their list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import aclosing, suppress
from typing import Final, Literal

import anyio

from mcp_tasks.errors import InvalidArgument, TaskNotFound
from mcp_tasks.output import Cursor
from mcp_tasks.requests import PollTask
from mcp_tasks.server.task_uris import TaskUri
from mcp_tasks.service import Caller, Service

__all__ = ["heard_of", "tell_list_changes", "tell_updates"]

_MOST: Final = 1_000
"""Resources that one subscriber hears of."""

_FINAL: Final = frozenset({"completed", "failed", "cancelled", "lost"})
_PAUSE_S: Final = 1.0
"""Output that grows all the time is told of so often."""


async def heard_of(service: Service, caller: Caller, uris: Iterable[str]) -> tuple[str, ...]:
    """Those of `uris` that the caller can hear of. Raises InvalidArgument for too many."""
    wanted = tuple(dict.fromkeys(uris))
    if len(wanted) > _MOST:
        raise InvalidArgument(
            f"{len(wanted)} resources are more than one subscription can have",
            f"at most {_MOST}: listen to the list of resources instead",
        )
    return tuple([uri for uri in wanted if await _exists(service, caller, uri)])


async def _exists(service: Service, caller: Caller, uri: str) -> bool:
    with suppress(InvalidArgument, TaskNotFound):
        await service.poll_task(caller, PollTask(task_id=TaskUri.parse(uri).task_id, show="none"))
        return True
    return False


async def tell_updates(
    service: Service, caller: Caller, uris: Collection[str], tell: Callable[[str], Awaitable[None]]
) -> None:
    """Tell of each change of these resources, until their tasks are final.

    One that is final already is told of at once: it may have ended after the subscriber looked at it.

    Raises:
        TasksError: The caller may not see them, any more.
    """
    records: dict[str, list[str]] = {}
    async with anyio.create_task_group() as group:
        for uri in uris:
            task = TaskUri.parse(uri)
            if task.stream is None:
                records.setdefault(task.task_id, []).append(uri)
            else:
                group.start_soon(_tell_growth, service, caller, uri, tell)
        if records:
            group.start_soon(_tell_states, service, caller, records, tell)


async def _tell_states(
    service: Service,
    caller: Caller,
    records: dict[str, list[str]],
    tell: Callable[[str], Awaitable[None]],
) -> None:
    seen: set[str] = set()
    async with aclosing(service.watch(caller, list(records))) as views:
        async for view in views:
            task_id = view["task_id"]
            if task_id in seen or view["state"] in _FINAL:
                for uri in records[task_id]:
                    await tell(uri)
            seen.add(task_id)


async def _tell_growth(
    service: Service, caller: Caller, uri: str, tell: Callable[[str], Awaitable[None]]
) -> None:
    """Tell that there is more output, and that it is complete."""
    task = TaskUri.parse(uri)
    cursor: str | None = None
    known = -1
    with suppress(TaskNotFound):  # it was cleared, and will not change any more
        while True:
            until: Literal["output"] | None = None if cursor is None else "output"
            request = PollTask(task_id=task.task_id, cursor=cursor, until=until, show="none")
            view = await service.poll_task(caller, request)
            size, is_final = view[f"{task.stream}_bytes"], view["state"] in _FINAL
            if is_final or -1 < known != size:
                await tell(uri)
            if is_final:
                return
            if known not in (-1, size):
                await anyio.sleep(_PAUSE_S)
            known = size
            run = Cursor.parse(view["next_cursor"]).run
            cursor = Cursor(run, view["stdout_bytes"], view["stderr_bytes"]).encode()


async def tell_list_changes(service: Service, caller: Caller, tell: Callable[[], Awaitable[None]]) -> None:
    """Tell each time that a task has come to the caller's session or has been cleared.

    Raises:
        TasksError: The caller may not see them, any more.
    """
    members = None
    async with aclosing(service.changes(caller)) as tallies:
        async for tally in tallies:
            if members not in (None, tally.members):
                await tell()
            members = tally.members
