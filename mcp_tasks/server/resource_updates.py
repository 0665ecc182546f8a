"""What a subscriber of resources hears of: the state of tasks, the growth of their output, their list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from typing import Final

import anyio

from mcp_tasks.errors import InvalidArgument, TaskNotFound
from mcp_tasks.output import Cursor
from mcp_tasks.requests import PollTask
from mcp_tasks.server.task_uris import TaskUri
from mcp_tasks.service import Caller, Service, View

__all__ = ["heard_of", "members_of", "tell_list_changes", "tell_updates"]

_MOST: Final = 1_000
"""Resources that one subscriber hears of."""

_FINAL: Final = frozenset({"completed", "failed", "cancelled", "lost"})
_Tell = Callable[[str], Awaitable[None]]
_Members = tuple[str | None, int]


async def heard_of(service: Service, caller: Caller, uris: Iterable[str]) -> dict[str, View]:
    """Those of `uris` that the caller can hear of, each with its task as it is now.

    What has changed since is told: look before a subscriber is answered, and nothing is lost in between.

    Raises:
        InvalidArgument: There are too many.
    """
    wanted = tuple(dict.fromkeys(uris))
    if len(wanted) > _MOST:
        raise InvalidArgument(
            f"{len(wanted)} resources are more than one subscription can have",
            f"at most {_MOST}: listen to the list of resources instead",
        )
    found = {}
    for uri in wanted:
        with suppress(InvalidArgument, TaskNotFound):
            request = PollTask(task_id=TaskUri.parse(uri).task_id, show="none")
            found[uri] = await service.poll_task(caller, request)
    return found


async def tell_updates(service: Service, caller: Caller, known: Mapping[str, View], tell: _Tell) -> None:
    """Tell of each change of resources, until their tasks are final.

    One that is final already is told of at once: it may have ended after the subscriber looked at it.
    `known` is what `heard_of` has found.

    Raises:
        TasksError: The caller may not see them, any more.
    """
    records: dict[str, list[str]] = {}
    async with anyio.create_task_group() as group:
        for uri, view in known.items():
            task = TaskUri.parse(uri)
            if task.stream is None:
                records.setdefault(task.task_id, []).append(uri)
            else:
                group.start_soon(_tell_growth, service, caller, uri, view, tell)
        if records:
            states = {task_id: known[uris[0]]["state"] for task_id, uris in records.items()}
            group.start_soon(_tell_states, service, caller, records, states, tell)


async def _tell_states(
    service: Service,
    caller: Caller,
    records: Mapping[str, list[str]],
    states: dict[str, str],
    tell: _Tell,
) -> None:
    """Tell of each state but those that are known; each is forgotten once it has been seen again."""
    async with aclosing(service.watch(caller, list(records))) as views:
        async for view in views:
            task_id, state = view["task_id"], view["state"]
            if states.pop(task_id, None) != state or state in _FINAL:
                for uri in records[task_id]:
                    await tell(uri)


async def _tell_growth(service: Service, caller: Caller, uri: str, view: View, tell: _Tell) -> None:
    """Tell that there is more output, and that it is complete."""
    task = TaskUri.parse(uri)
    is_out = task.stream == "stdout"
    known = Cursor.parse(view["next_cursor"]).run, view["stdout_bytes" if is_out else "stderr_bytes"]
    with suppress(TaskNotFound):  # it was cleared, and will not change any more
        async with aclosing(service.growth(caller, task.task_id)) as ends:
            async for end in ends:
                size = end.run, end.stdout if is_out else end.stderr
                if size > known:
                    known = size
                    await tell(uri)
        await tell(uri)


async def members_of(service: Service, caller: Caller) -> _Members:
    """What tells the present list of the caller's session from any later one. Raises TasksError."""
    async with aclosing(service.changes(caller)) as tallies:
        return (await anext(tallies)).members


async def tell_list_changes(
    service: Service, caller: Caller, known: _Members, tell: Callable[[], Awaitable[None]]
) -> None:
    """Tell each time that a task has come to the caller's session or has been cleared.

    `known` is what `members_of` has told.

    Raises:
        TasksError: The caller may not see them, any more.
    """
    async with aclosing(service.changes(caller)) as tallies:
        async for tally in tallies:
            if tally.members != known:
                known = tally.members
                await tell()
