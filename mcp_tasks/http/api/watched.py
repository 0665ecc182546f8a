"""The tasks of a session, watched for one client: which there are, and what becomes of them."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from mcp_tasks.clock import rfc3339
from mcp_tasks.errors import InvalidArgument, TaskNotFound
from mcp_tasks.requests import ListTasks
from mcp_tasks.service import Caller, Service

__all__ = ["SessionWatch", "Tell"]

Tell = Callable[[str, Mapping[str, Any], str | None], Awaitable[None]]
"""Tells a client: name of the event, data, id."""

_PAGE: Final = 100
_LOOKED_AT: Final = 1_000
"""Newest tasks that are looked through for such as have ended while the client was away."""

_LATE_MS: Final = 5_000
"""A task is in the list at most so long after the moment of its creation."""

_MOMENT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z", re.ASCII)
_REMEMBERED: Final = 10_000
_FINAL: Final = frozenset({"completed", "failed", "cancelled", "lost"})


class SessionWatch:
    """What one client is told of one session.

    Args:
        service: Where the tasks are.
        caller: Whose client it is.
        since: Moment (RFC 3339, as the id of an event) from which on tasks that have ended are told too;
            None for those that end from now on.
    """

    def __init__(self, service: Service, caller: Caller, since: str | None) -> None:
        self._service = service
        self._caller = caller
        if since is not None and not _MOMENT.fullmatch(since):
            raise InvalidArgument(
                "Last-Event-ID is none of this stream", "give the id of the last event, or leave it out"
            )
        self._away = since is not None
        self._floor = since or _now()
        self._told: OrderedDict[str, None] = OrderedDict()

    async def tell(self, tell: Tell) -> None:
        """Tell of everything, until cancelled. Raises TasksError when the caller may see it no more."""
        session = (await self._service.admitted(self._caller)).session  # a share leads into its own
        async with (
            anyio.create_task_group() as group,
            aclosing(self._service.changes(self._caller)) as tallies,
        ):
            async for tally in tallies:
                moment = time.time_ns() // 1_000_000
                await self._look(group, tell)
                counts = {"session": session, "counts": dict(tally.counts)}
                await tell("tasks", counts, rfc3339(moment))
                self._floor, self._away = max(self._floor, rfc3339(moment - _LATE_MS)), False

    async def _look(self, group: TaskGroup, tell: Tell) -> None:
        """Find the tasks that have not been told of, and watch those that are not final."""
        first = not self._told
        found = {task["task_id"]: task async for task in self._newest()}
        if first:
            active = await self._service.list_tasks(self._caller, ListTasks(state="active", limit=_LOOKED_AT))
            found |= {task["task_id"]: task for task in active["tasks"]}
        for task_id, task in reversed(found.items()):  # about in the order in which they began
            if task_id in self._told:
                continue
            self._remember(task_id)
            if task["state"] in _FINAL:
                await tell("task", task, None)
            else:
                group.start_soon(self._watch, task_id, tell)

    async def _newest(self) -> AsyncIterator[Mapping[str, Any]]:
        """The newest tasks that are active, or have ended since the last look, newest first."""
        cursor: str | None = None
        for _ in range(_LOOKED_AT // _PAGE):
            page = await self._service.list_tasks(self._caller, ListTasks(limit=_PAGE, cursor=cursor))
            for task in page["tasks"]:
                # Moments are written alike, so that they compare as texts.
                if task["state"] not in _FINAL or task.get("ended_at", task["created_at"]) >= self._floor:
                    yield task
            cursor = page.get("next_cursor")
            # Who was away has to be told of older tasks, too, that have ended meanwhile.
            if cursor is None or (not self._away and page["tasks"][-1]["created_at"] < self._floor):
                return

    async def _watch(self, task_id: str, tell: Tell) -> None:
        with suppress(TaskNotFound):  # cleared since it was listed
            async with aclosing(self._service.watch(self._caller, [task_id])) as views:
                async for view in views:
                    await tell("task", view, None)

    def _remember(self, task_id: str) -> None:
        self._told[task_id] = None
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)


def _now() -> str:
    return rfc3339(time.time_ns() // 1_000_000)
