"""Starting commands: durable before the answer, once per key, in memory where it must be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from mcp_tasks.errors import KeyConflict, StoreBusy, StoreUnavailable, TaskNotFound, TasksError
from mcp_tasks.launches import Defaults, kept_key, launch_of, same_request, spec_of
from mcp_tasks.lifecycle import submitted
from mcp_tasks.models import TASK_ID, Hook, Pending, Spec, Task, TaskKey
from mcp_tasks.parking import CannotWait
from mcp_tasks.requests import ClearTask, RunCommand
from mcp_tasks.service.desk import Caller, Desk, View, waits_for_more
from mcp_tasks.service.tasks.ending import clear_finished
from mcp_tasks.service.tasks.hooking import sealed_hooks
from mcp_tasks.waiting import Condition

__all__ = ["Starting", "require_tasks"]

_RUN_WAIT_MS = 1_000

log = logging.getLogger(__name__)


class Starting:
    """run_command."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def run_command(self, caller: Caller, request: RunCommand) -> View:
        """Start a command as a durable task and answer with its view."""
        condition_of = self._desk.conditions(request)
        # Here and not in a thread: ids are made in the order in which the calls have come.
        task_id = self._desk.clock.new_task_id()
        task, reused = await self._desk.blocking(self._start, caller, request, task_id)
        if not reused:
            if isinstance(task.state, Pending):
                self._desk.keeping.queue_changed()
            else:
                self._desk.keeping.keep(task)
        try:
            return await self._seen(caller, request, task, condition_of(None), reused=reused)
        except TaskNotFound:
            if not reused:
                raise
            # What the key named was cleared in this moment, so the key is free.
            return await self.run_command(caller, request)
        except (TasksError, OSError) as error:
            # An error would say that the command did not run, and it does.
            log.warning("a task was started and cannot be looked at now: %s", error)
            why = error.message if isinstance(error, TasksError) else error.strerror or "unknown error"
            return self._desk.presenter.unseen(task, why, reused=reused)

    async def _seen(
        self, caller: Caller, request: RunCommand, task: Task, condition: Condition, *, reused: bool
    ) -> View:
        wait_ms = request.wait_ms
        if wait_ms == 0 and not (reused or request.clear_finished or isinstance(task.state, Pending)):
            # Whoever does not wait at all has seen nothing of it, and neither have we.
            return self._desk.presenter.unseen(task, max_wait_ms=caller.max_wait_ms)
        if wait_ms is None:
            wait_ms = caller.max_wait_ms if waits_for_more(request) else _RUN_WAIT_MS
        sight, wait = await self._desk.wait(caller, task.key, condition, wait_ms)
        show = request.show or "tail"
        excerpt = self._desk.presenter.excerpt(sight, show, None, request.max_bytes, request.ansi)
        view = self._desk.presenter.view(
            sight, excerpt, wait=wait, reused=reused, max_wait_ms=caller.max_wait_ms
        )
        if request.clear_finished and not reused:
            cleared = await self._desk.blocking(
                clear_finished, self._desk, caller, ClearTask(all_finished=True), task.key
            )
            if cleared["cleared"]:
                view["cleared"] = cleared["cleared"]
        return view

    def _start(self, caller: Caller, request: RunCommand, task_id: str) -> tuple[Task, bool]:
        session, defaults = self._desk.workspaces.of(caller.session_key)
        spec = spec_of(request, defaults)
        if (held := self._holder(caller, request)) is not None:
            return held, True
        require_tasks(self._desk, caller, spec.after)
        of_session = session.hooks if session is not None else ()
        hooks = (*of_session, *sealed_hooks(request.hooks, self._desk.sealer))
        task, reused = self._admit(caller, request, spec, task_id, defaults, hooks=hooks)
        if not reused:
            self._desk.records.begun(session, task, caller.by)
        return task, reused

    def _admit(
        self,
        caller: Caller,
        request: RunCommand,
        spec: Spec,
        task_id: str,
        defaults: Defaults,
        *,
        hooks: Sequence[Hook],
    ) -> tuple[Task, bool]:
        now = self._desk.clock.now_ms()
        task = submitted(TaskKey(caller.owner, caller.session, task_id), spec, now, request.delay_ms)
        launch = launch_of(request, spec, task_id, defaults)
        try:
            with self._desk.hooks.armed([task.key], hooks):
                return self._desk.admission.admit(task, launch), False
        except KeyConflict:
            # The same key was used by somebody else in this moment.
            held = self._holder(caller, request)
            if held is None:
                raise
            return held, True
        except (CannotWait, StoreBusy):
            # The store is well. Run elsewhere, the command might run twice: here too, once it is free.
            raise
        except StoreUnavailable as error:
            if task.is_held or task.spec.retries or hooks or not caller.stays:
                raise  # nothing in memory can be held, run again, be told of, or outlive who has started it
            # Nothing ran, and nothing durable can be promised. The command still runs, supervised, for
            # as long as this server lives, and every view of it says so.
            log.warning("a task is kept in memory only: %s", error)
            slots = self._desk.divert(task.key)
            return self._desk.admission.admit_now(task, replace(launch, lifeline=True), slots), False

    def _holder(self, caller: Caller, request: RunCommand) -> Task | None:
        """The task that was already started with this key and these arguments."""
        if (kept := kept_key(request)) is None:
            return None
        held = self._desk.store.find_key(caller.session_key, kept)
        if held is not None and not same_request(held.spec, request, self._desk.defaults):
            raise KeyConflict(
                f"key {kept!r} belongs to task {held.key.task_id}, started with other arguments",
                "use another key, or clear that task",
            )
        return held


def require_tasks(desk: Desk, caller: Caller, task_ids: Sequence[str]) -> None:
    """Check that these are tasks of the caller's session. Raises TaskNotFound for the first that is not."""
    if not task_ids:
        return
    named = [task_id for task_id in task_ids if TASK_ID.fullmatch(task_id)]
    states = desk.store.states(caller.session_key, named)
    for task_id in task_ids:
        if task_id not in states:
            raise TaskNotFound(task_id)
