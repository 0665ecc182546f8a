"""Waiting for several tasks in one call."""

from __future__ import annotations

import time
from contextlib import suppress

import anyio

from mcp_tasks.errors import TaskNotFound, TasksError
from mcp_tasks.models import TaskKey
from mcp_tasks.presenting import Show
from mcp_tasks.reconcile import Sight
from mcp_tasks.requests import WaitTasks
from mcp_tasks.service.desk import Caller, Desk, View, clamp
from mcp_tasks.views import fitting
from mcp_tasks.waiting import Condition, Progress

__all__ = ["Several"]

_SHORT_BYTES = 2_048
_ALL_BYTES = 32_768
_LEAST_BYTES = 80


class Several:
    """wait_tasks."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def wait_tasks(self, caller: Caller, request: WaitTasks) -> View:
        """Wait for the first, all, or the first failure of several tasks."""
        keys = await self._meant(caller, request)
        began = time.monotonic()
        wait_ms, clamped = clamp(caller, caller.max_wait_ms if request.wait_ms is None else request.wait_ms)
        done = await self._over(keys, request.mode, wait_ms, caller.progress)
        result = "deadline" if wait_ms else "none"
        if not keys:
            result = "none"
        elif _enough(request.mode, done, len(keys)):
            result = "exited"
        views = [self._short(done[key], len(done)) for key in keys if key in done]
        fit = fitting(views)
        answer: View = {
            "done": views[:fit],
            "open": [key.task_id for key in keys if key not in done],
            "wait_result": result,
            "waited_ms": int((time.monotonic() - began) * 1000),
        }
        if clamped is not None:
            answer["max_wait_ms"] = clamped
        if fit < len(views):
            answer |= {"more": True, "next": "ask again for those that are missing from done and open"}
        return answer

    async def _meant(self, caller: Caller, request: WaitTasks) -> list[TaskKey]:
        if request.task_ids is not None:
            return [self._desk.find(caller, task_id) for task_id in dict.fromkeys(request.task_ids)]
        labelled = await self._desk.blocking(lambda: list(self._desk.matching(caller, request.label, None)))
        return [sight.task.key for sight in labelled]

    async def _over(
        self, keys: list[TaskKey], mode: str, wait_ms: int, progress: Progress | None
    ) -> dict[TaskKey, Sight]:
        """Those that are over, once there are enough of them or the time is up.

        One that is cleared meanwhile leaves `keys`.
        """
        done: dict[TaskKey, Sight] = {}
        failures: list[TasksError] = []

        async def see(key: TaskKey, progress: Progress | None) -> None:
            try:
                sight, _ = await self._desk.waiting.until(key, Condition(), wait_ms, progress)
            except TaskNotFound:
                keys.remove(key)
                return
            except TasksError as error:
                failures.append(error)
                group.cancel_scope.cancel()
                return
            if sight.task.is_final:
                done[key] = sight
                if _enough(mode, done, len(keys)):
                    group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for index, key in enumerate(list(keys)):
                group.start_soon(see, key, progress if index == 0 else None)
        if failures:
            raise failures[0]
        # Those that ended in the same moment count too.
        for key in keys:
            with suppress(TaskNotFound):
                if key not in done and (sight := self._desk.reconciler.look(key)).task.is_final:
                    done[key] = sight
        return done

    def _short(self, sight: Sight, count: int) -> View:
        """A short view: of a failed task its last bytes, fewer where many have failed."""
        shown = min(_SHORT_BYTES, _ALL_BYTES // count)
        show: Show = "none" if sight.task.state_name == "completed" or shown < _LEAST_BYTES else "tail"
        excerpt = self._desk.presenter.excerpt(sight, show, None, shown, "strip")
        view = self._desk.presenter.view(sight, excerpt)
        view.pop("more", None)
        return view


def _enough(mode: str, done: dict[TaskKey, Sight], count: int) -> bool:
    if mode == "any":
        return bool(done)
    failed = any(sight.task.state_name != "completed" for sight in done.values())
    return len(done) == count or (mode == "first_failure" and failed)
