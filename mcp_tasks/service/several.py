"""Waiting for several tasks in one call."""

from __future__ import annotations

import time

import anyio

from mcp_tasks.models import TaskKey
from mcp_tasks.presenting import Show
from mcp_tasks.reconcile import Sight
from mcp_tasks.requests import WaitTasks
from mcp_tasks.service.desk import Caller, Desk, View, clamp
from mcp_tasks.waiting import Condition, Progress

__all__ = ["Several"]

_SHORT_BYTES = 2_048


class Several:
    """wait_tasks."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def wait_tasks(self, caller: Caller, request: WaitTasks) -> View:
        """Wait for the first, all, or the first failure of several tasks."""
        if request.task_ids is not None:
            keys = [self._desk.find(caller, task_id) for task_id in dict.fromkeys(request.task_ids)]
        else:
            labelled = await self._desk.blocking(
                lambda: list(self._desk.matching(caller, request.label, None))
            )
            keys = [sight.task.key for sight in labelled]
        began = time.monotonic()
        wait_ms, clamped = clamp(caller, caller.max_wait_ms if request.wait_ms is None else request.wait_ms)
        done: dict[TaskKey, Sight] = {}

        def enough() -> bool:
            if request.mode == "any":
                return bool(done)
            failed = any(s.task.state_name != "completed" for s in done.values())
            return len(done) == len(keys) or (request.mode == "first_failure" and failed)

        async with anyio.create_task_group() as group:

            async def see(key: TaskKey, progress: Progress | None) -> None:
                sight, _ = await self._desk.waiting.until(key, Condition(), wait_ms, progress)
                if sight.task.is_final:
                    done[key] = sight
                    if enough():
                        group.cancel_scope.cancel()

            for index, key in enumerate(keys):
                group.start_soon(see, key, caller.progress if index == 0 else None)
        # Those that ended in the same moment count too.
        for key in keys:
            if key not in done and (sight := self._desk.reconciler.look(key)).task.is_final:
                done[key] = sight
        result = "exited" if enough() or not keys else "deadline" if wait_ms else "none"
        answer: View = {
            "done": [self._short(done[key]) for key in keys if key in done],
            "open": [key.task_id for key in keys if key not in done],
            "wait_result": result,
            "waited_ms": int((time.monotonic() - began) * 1000),
        }
        return answer | ({"max_wait_ms": clamped} if clamped is not None else {})

    def _short(self, sight: Sight) -> View:
        show: Show = "none" if sight.task.state_name == "completed" else "tail"
        excerpt = self._desk.presenter.excerpt(sight, show, None, _SHORT_BYTES, "strip")
        return self._desk.presenter.view(sight, excerpt)
