"""Ending tasks with everything they started, and removing those that are over."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable

import anyio

from mcp_tasks.errors import StoreUnavailable, TaskNotFinished, TaskNotFound, TasksError
from mcp_tasks.models import Pending, Task, TaskKey
from mcp_tasks.reconcile import Sight
from mcp_tasks.requests import CancelTask, ClearTask
from mcp_tasks.service.desk import Caller, Desk, View, signal_number
from mcp_tasks.views import fitting
from mcp_tasks.waiting import Condition

__all__ = ["Ending", "clear_finished"]

log = logging.getLogger(__name__)

_GRACE_MS = 5_000
_SHOWN_BYTES = 2_048
_ALL_BYTES = 16_384
_LOOK_S = 0.01
_LEAVING_S = 1.0
_RETRY_LOOK_MS = 200


class Ending:
    """cancel_task and clear_task."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def cancel_task(self, caller: Caller, request: CancelTask) -> View:
        """End one task or several with all their processes; answer when it is over."""
        if request.task_id is not None:
            return await self._cancel(caller, self._desk.find(caller, request.task_id), request, _SHOWN_BYTES)
        keys = [self._desk.find(caller, task_id) for task_id in dict.fromkeys(request.task_ids or ())]
        answers: dict[TaskKey, View] = {}
        shown = min(_SHOWN_BYTES, _ALL_BYTES // max(1, len(keys)))

        async def cancel_one(key: TaskKey) -> None:
            try:
                answers[key] = await self._cancel(caller, key, request, shown)
            except TasksError as error:
                # One that cannot be ended says so itself; the others are ended all the same.
                failure = {"code": error.code, "message": error.message, "hint": error.hint}
                answers[key] = {"task_id": key.task_id, "session": key.session, "error": failure}

        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(cancel_one, key)
        views = [answers[key] for key in keys]
        fit = fitting(views)
        answer: View = {"tasks": views[:fit]}
        if fit < len(views):
            answer |= {
                "more": True,
                "next": "poll_task tells of the others, which have been asked to end too",
            }
        return answer

    async def _cancel(self, caller: Caller, key: TaskKey, request: CancelTask, shown: int) -> View:
        sight = await self._end(caller, key, request.grace_ms, request.signal)
        warnings: tuple[str, ...] = ()
        if not sight.task.is_final:
            alive = await self._desk.blocking(self._desk.executor.background, self._desk.folder(sight.task))
            warnings = (f"it has not ended yet; still alive: {', '.join(alive) or 'its supervisor'}",)
        excerpt = self._desk.presenter.excerpt(sight, "tail", None, shown, "strip")
        return self._desk.presenter.view(sight, excerpt, warnings=warnings)

    async def _end(self, caller: Caller, key: TaskKey, grace_ms: int, signal: str) -> Sight:
        """Ask for the end of a task and of what it left behind, and wait for it as long as allowed."""
        deadline = time.monotonic() + caller.max_wait_ms / 1000
        asked_run = 0
        while True:
            sight = await self._desk.blocking(self._desk.reconciler.look, key)
            task = sight.task
            if isinstance(task.state, Pending):
                await self._desk.blocking(self._desk.admission.withdraw, task, "cancelled before it started")
                self._desk.keeping.queue_changed()
                continue
            folder = self._desk.folder(task)
            if task.is_final and not self._desk.executor.lingers(folder):
                if task.state_name == "lost":
                    await self._desk.blocking(self._desk.executor.end_survivors, folder)
                return sight
            if asked_run < task.run and self._desk.executor.cancel(folder, grace_ms, signal_number(signal)):
                # A run that is just being started has no control pipe yet: ask again until it has one.
                asked_run = task.run
            left_ms = int((deadline - time.monotonic()) * 1000)
            if left_ms <= 0:
                return sight
            if asked_run == task.run and not task.is_final:
                if task.run <= task.spec.retries:
                    # The run may have failed before it was asked, and another have begun.
                    left_ms = min(left_ms, _RETRY_LOOK_MS)
                await self._desk.waiting.until(key, Condition(), left_ms, caller.progress)
            else:
                await anyio.sleep(_LOOK_S)

    async def clear_task(self, caller: Caller, request: ClearTask) -> View:
        """Remove finished tasks for good."""
        if request.task_id is None:
            return await self._desk.blocking(clear_finished, self._desk, caller, request)
        key = self._desk.find(caller, request.task_id)
        if request.cancel:
            sight = await self._end(caller, key, _GRACE_MS, "SIGTERM")
            if not sight.task.is_final:
                raise TaskNotFinished(f"task {request.task_id} has not ended yet", "try again in a while")
        return await self._desk.blocking(self._clear_one, key)

    def _clear_one(self, key: TaskKey) -> View:
        sight = self._desk.reconciler.look(key)
        task = sight.task
        hint = "cancel_task or cancel: true ends it first"
        if not task.is_final:
            raise TaskNotFinished(f"task {key.task_id} is {task.state_name}", hint)
        if key.task_id in self._desk.admission.awaited_in(key.session_key):
            raise TaskNotFinished(
                f"another task still waits to see how task {key.task_id} has ended",
                "clear it when that one has started, or cancel that one first",
            )
        if _has_left_something(self._desk, task, self._desk.executor.survived):
            raise TaskNotFinished(f"task {key.task_id} has processes running in the background", hint)
        _write_end(self._desk, sight)
        return {"cleared": [key.task_id], "freed_bytes": self._desk.store.delete(key)}


def _write_end(desk: Desk, sight: Sight) -> None:
    """Have the end of a task in the journal, and kept for its hooks, before its record is gone. Blocking.

    Raises TaskNotFound where somebody else has cleared it meanwhile.
    """
    task = sight.task
    if sight.seen is not None:  # the record does not say so yet
        try:
            task = desk.reconciler.settle(task.key)
        except StoreUnavailable as error:
            # The disk is full, perhaps, and it is cleared for that very reason.
            log.warning("task %s is cleared before its end was written down: %s", task.key.task_id, error)
    desk.hooks.ended(task)  # who wrote it down may have been killed since


def _has_left_something(desk: Desk, task: Task, survived: Callable[[], frozenset[str]]) -> bool:
    """Whether anything of a finished task still runs. Blocking.

    A supervisor takes a moment to leave after the end is told, and that alone is nothing. `survived` is
    asked only where a supervisor was lost, because it takes long.
    """
    if task.state_name == "lost" and task.key.task_id in survived():
        return True
    folder = desk.folder(task)
    deadline = time.monotonic() + _LEAVING_S
    while desk.executor.lingers(folder):
        if desk.executor.background(folder) or time.monotonic() >= deadline:
            return True
        time.sleep(_LOOK_S / 2)
    return False


def clear_finished(desk: Desk, caller: Caller, request: ClearTask, but: TaskKey | None = None) -> View:
    """Remove the finished tasks that a request means, except `but`. Blocking.

    A task that left processes running in the background stays: nothing that runs is cleared unasked. So
    does one whose end another task still waits to see.
    """
    days = request.older_than_days
    oldest = None if days is None else desk.clock.now_ms() - days * 86_400_000
    cleared, kept, freed = [], 0, 0
    awaited = desk.admission.awaited_in(caller.session_key)
    survived = functools.cache(desk.executor.survived)  # one look for all of them
    for sight in desk.matching(caller, request.label, request.cwd):
        task = sight.task
        if task.key == but or not task.is_final or (oldest is not None and task.history[-1].at > oldest):
            continue
        if task.key.task_id in awaited:
            continue
        if _has_left_something(desk, task, survived):
            kept += 1
            continue
        try:
            _write_end(desk, sight)
            freed += desk.store.delete(task.key)
        except TaskNotFound:
            continue
        cleared.append(task.key.task_id)
    answer: View = {"cleared": cleared, "freed_bytes": freed}
    if kept:
        answer["warning"] = f"{kept} finished with processes still running in the background: not cleared"
    return answer
