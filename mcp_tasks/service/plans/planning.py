"""Plans: several commands registered at once, and how far they have come."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import anyio

from mcp_tasks.clock import rfc3339
from mcp_tasks.errors import InvalidArgument, KeyConflict, PlanNotFound, TaskNotFound, TasksError
from mcp_tasks.launches import launch_of, plan_fingerprint, same_plan, spec_of
from mcp_tasks.lifecycle import submitted
from mcp_tasks.models import (
    FINAL_STATES,
    TASK_ID,
    DependencyFailed,
    Finished,
    Plan,
    PlanKey,
    SessionKey,
    StateName,
    Task,
    TaskKey,
)
from mcp_tasks.ports import Launch
from mcp_tasks.redaction import redact_text
from mcp_tasks.requests import PlanProgress, RunPlan
from mcp_tasks.service.desk import Caller, Desk, View, clamp
from mcp_tasks.service.plans.steps import command_of, wanted
from mcp_tasks.service.tasks.starting import require_tasks
from mcp_tasks.views import clipped, fitting, outcome_fields
from mcp_tasks.waiting import Condition, Progress

__all__ = ["Planning"]

_RUN_WAIT_MS = 1_000
_SHOWN = 20
_LAST = 100
_COMMAND = 200
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class _Look:
    """How far a plan has come.

    Attributes:
        states: Of those tasks that were not cleared, by id.
        current: Those that run; where none does, the first that waits.
        failed: The first of those that did not complete.
        state: Of the plan as a whole.
    """

    plan: Plan
    states: dict[str, StateName]
    current: list[Task]
    failed: list[Task]
    state: str

    @property
    def is_over(self) -> bool:
        """Whether nothing of the plan is left to be done."""
        return all(state in FINAL_STATES for state in self.states.values())


class Planning:
    """run_plan and plan_progress."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def run_plan(self, caller: Caller, request: RunPlan) -> View:
        """Register several commands at once, which run as their order or `after` says."""
        ids = [self._desk.clock.new_task_id() for _ in range(len(request.commands) + 1)]
        plan, reused = await self._desk.blocking(self._register, caller, request, ids)
        if not reused:
            self._desk.keeping.queue_changed()
        wait_ms = _RUN_WAIT_MS if request.wait_ms is None else request.wait_ms
        look, clamped = await self._until_over(caller, plan, wait_ms)
        view = await self._desk.blocking(self._view, look)
        tasks = await self._desk.blocking(self._tasks, look)
        fit = fitting(tasks)
        for name in ("current", "failed"):
            view.pop(name, None)  # `tasks` tells of all
        return {
            **view,
            "tasks": tasks[:fit],
            **({"more": True} if fit < len(tasks) else {}),
            **({"reused": True} if reused else {}),
            **({"max_wait_ms": clamped} if clamped is not None else {}),
            "next": view.get("next", ""),
        }

    async def plan_progress(self, caller: Caller, request: PlanProgress) -> View:
        """Tell how far a plan has come, and wait a while for its end if asked to."""
        plan = await self._desk.blocking(self._find, caller, request.plan_id)
        look, clamped = await self._until_over(caller, plan, request.wait_ms or 0)
        view = await self._desk.blocking(self._view, look)
        return view if clamped is None else {**view, "max_wait_ms": clamped}

    async def list_plans(self, caller: Caller, limit: int = 100) -> View:
        """The plans of the caller's session, newest first, each with how far it has come."""
        return await self._desk.blocking(self._list, caller, limit)

    def resolve_prefix(self, caller: Caller, prefix: str) -> str:
        """The one plan whose id begins with `prefix`. Raises PlanNotFound, InvalidArgument. Blocking."""
        if TASK_ID.fullmatch(prefix):
            return prefix
        found = [
            plan.key.plan_id
            for session in self._sessions(caller)
            for plan in self._desk.store.plans(session)
            if prefix and plan.key.plan_id.startswith(prefix)
        ]
        if not found:
            raise PlanNotFound(prefix)
        if len(found) > 1:
            raise InvalidArgument(f"{prefix!r} fits {len(found)} plans", "give more characters of the id")
        return found[0]

    # -- registering -------------------------------------------------------------------------------

    def _register(self, caller: Caller, request: RunPlan, ids: Sequence[str]) -> tuple[Plan, bool]:
        plan_id, *task_ids = ids
        tasks = self._made(caller, request, plan_id, task_ids)
        now = self._desk.clock.now_ms()
        plan = Plan(
            PlanKey(caller.owner, caller.session, plan_id),
            now,
            tuple(task_ids),
            None if request.name is None else redact_text(request.name),
            request.on_failure,
        )
        session, _ = self._desk.workspaces.of(caller.session_key)
        registered = self._desk.admission.admit_plan(plan, tasks, lambda: self._holder(caller, request))
        if registered is plan:
            self._desk.records.begun(session, tasks[0][0], caller.by)
        return registered, registered is not plan

    def _made(
        self, caller: Caller, request: RunPlan, plan_id: str, task_ids: Sequence[str]
    ) -> list[tuple[Task, Launch]]:
        """Every task as it is registered. All is checked before the first is."""
        _, defaults = self._desk.workspaces.of(caller.session_key)
        made: list[tuple[Task, Launch]] = []
        now = self._desk.clock.now_ms()
        for number, (step, waits) in enumerate(zip(request.commands, wanted(request), strict=True)):
            require_tasks(self._desk, caller, waits.tasks)
            command = command_of(step)
            try:
                spec = spec_of(command, defaults)
            except TasksError as error:
                raise type(error)(f"commands[{number + 1}]: {error.message}", error.hint) from None
            spec = replace(
                spec,
                plan=plan_id,
                after=(*(task_ids[position] for position in waits.steps), *waits.tasks),
                after_failure=request.on_failure,
            )
            if number == 0 and request.key is not None:
                # The plan's key is that of its first task, so that no store needs to know of plans' keys.
                mark = plan_fingerprint(request, secrets.token_hex(8))
                spec = replace(spec, key=request.key, fingerprint=mark)
            task_id = task_ids[number]
            key = TaskKey(caller.owner, caller.session, task_id)
            task = submitted(key, spec, now, step.delay_ms)
            made.append((task, launch_of(command, spec, task_id, defaults)))
        return made

    def _holder(self, caller: Caller, request: RunPlan) -> Plan | None:
        """The plan that was already started with this key. The right to admit is held."""
        if request.key is None:
            return None
        held = self._desk.store.find_key(caller.session_key, request.key)
        if held is None:
            return None
        if held.spec.plan is not None:
            key = PlanKey(caller.owner, caller.session, held.spec.plan)
            try:
                plan = self._desk.store.load_plan(key)
            except PlanNotFound:
                if held.is_held:
                    # Whoever registered its tasks was killed before the plan counted.
                    self._desk.admission.forget_plan(caller.session_key, held.spec.plan)
                    return None
            else:
                if same_plan(held.spec, request):
                    return plan
        what = f"task {held.key.task_id}" if held.spec.plan is None else f"plan {held.spec.plan}"
        raise KeyConflict(
            f"key {request.key!r} belongs to {what}, started with other arguments",
            "use another key, or clear what has it",
        )

    # -- looking -----------------------------------------------------------------------------------

    def _sessions(self, caller: Caller) -> list[SessionKey]:
        if caller.named:
            return [caller.session_key]
        others = [session.key for session in self._desk.store.sessions(caller.owner)]
        return [caller.session_key, *(key for key in others if key != caller.session_key)]

    def _find(self, caller: Caller, plan_id: str | None) -> Plan:
        """A plan of the caller, by default the newest of his session. Raises PlanNotFound."""
        if plan_id is None:
            newest = next(iter(self._desk.store.plans(caller.session_key)), None)
            if newest is None:
                raise PlanNotFound(None)
            return newest
        plan_id = plan_id.strip().lower()
        if TASK_ID.fullmatch(plan_id):
            for session in self._sessions(caller):
                with suppress(PlanNotFound):
                    return self._desk.store.load_plan(PlanKey(session.owner, session.session, plan_id))
        raise PlanNotFound(plan_id)

    async def _until_over(self, caller: Caller, plan: Plan, wait_ms: int) -> tuple[_Look, int | None]:
        """Wait until all of a plan is over, at most for `wait_ms`; with the limit where that was too long."""
        allowed, clamped = clamp(caller, wait_ms)
        began = time.monotonic()
        while True:
            look = await self._desk.blocking(self._look, plan)
            waited_ms = int((time.monotonic() - began) * 1000)
            if look.is_over or waited_ms >= allowed:
                return look, clamped
            # All are to end, so it is enough to wait for one after the other.
            key = look.current[0].key if look.current else None
            if key is None:
                await anyio.sleep(_LOOK_S)  # it was cleared in this moment
                continue
            with suppress(TaskNotFound):
                await self._desk.waiting.until(
                    key, Condition(), allowed - waited_ms, _onward(caller.progress, waited_ms, allowed, look)
                )

    def _look(self, plan: Plan) -> _Look:
        key = plan.key
        states = dict(self._desk.store.states(key.session_key, plan.tasks))
        current: list[Task] = []
        for task_id in [one for one in plan.tasks if states.get(one) == "running"]:
            task = self._task(plan, task_id)
            if task is None:
                states.pop(task_id)
                continue
            # Its record may be behind what is true by a moment.
            states[task_id] = task.state_name
            if not task.is_final:
                current.append(task)
        if not current:
            pending = (one for one in plan.tasks if states.get(one) == "pending")
            current = [task for one in islice(pending, 1) if (task := self._task(plan, one)) is not None]
        failed: list[Task] = []
        for task_id in plan.tasks:
            if states.get(task_id) in ("failed", "lost", "cancelled") and len(failed) < _SHOWN:
                task = self._task(plan, task_id)
                failed += [] if task is None else [task]
        return _Look(plan, states, current, failed, _state(states, failed))

    def _task(self, plan: Plan, task_id: str) -> Task | None:
        try:
            return self._desk.reconciler.look(TaskKey(plan.key.owner, plan.key.session, task_id)).task
        except TaskNotFound:
            return None

    # -- telling -----------------------------------------------------------------------------------

    def _view(self, look: _Look) -> View:
        plan, states = look.plan, look.states
        counts: dict[str, int] = {}
        for task_id in plan.tasks:
            state = states.get(task_id, "cleared")
            counts[state] = counts.get(state, 0) + 1
        done = sum(count for state, count in counts.items() if state not in ("pending", "running"))
        view = {
            "plan_id": plan.key.plan_id,
            "name": plan.name,
            "session": plan.key.session,
            "state": look.state,
            "total": len(plan.tasks),
            "done": done,
            "counts": counts,
            "current": [
                {"task_id": task.key.task_id, "label": _label(task), "state": task.state_name}
                for task in look.current[:_SHOWN]
            ],
            "failed": [_failure(task) for task in look.failed],
            "created_at": rfc3339(plan.created_at),
            "elapsed_ms": self._elapsed(look),
            "next": _next(look),
        }
        return {name: value for name, value in view.items() if value not in (None, "", [])}

    def _elapsed(self, look: _Look) -> int:
        """Milliseconds since the plan was registered, or until its last step was over."""
        ended = self._desk.clock.now_ms()
        if look.is_over:
            # The last to end is among the last of the plan, but for very wide ones.
            last = [self._task(look.plan, task_id) for task_id in look.plan.tasks[-_LAST:]]
            ends = [task.state.ended_at for task in last if task and isinstance(task.state, Finished)]
            ended = max(ends, default=look.plan.created_at)
        return max(0, ended - look.plan.created_at)

    def _tasks(self, look: _Look) -> list[dict[str, Any]]:
        found = []
        for task_id in look.plan.tasks:
            task = self._task(look.plan, task_id)
            if task is None:
                continue
            view = {
                "task_id": task_id,
                "name": task.spec.label,
                "command": clipped(task.spec.command, _COMMAND),
                "state": task.state_name,
                "after": list(task.spec.after),
            }
            found.append({name: value for name, value in view.items() if value not in (None, [])})
        return found

    def _list(self, caller: Caller, limit: int) -> View:
        plans = islice(self._desk.store.plans(caller.session_key), limit)
        return {"plans": [self._view(self._look(plan)) for plan in plans]}


def _state(states: dict[str, StateName], failed: Sequence[Task]) -> str:
    found = set(states.values())
    if "running" in found or ("pending" in found and len(found) > 1):
        return "running"
    if "pending" in found:
        return "pending"
    if found <= {"completed"}:
        return "completed"
    # What did not run because something was cancelled is no failure of its own.
    causes = [task for task in failed if not _is_consequence(task)]
    if any(task.state_name != "cancelled" for task in causes) or "cancelled" not in found:
        return "failed"
    return "cancelled"


def _is_consequence(task: Task) -> bool:
    return isinstance(task.state, Finished) and isinstance(task.state.outcome, DependencyFailed)


def _failure(task: Task) -> dict[str, Any]:
    fields = outcome_fields(task.state) if isinstance(task.state, Finished) else {}
    told = {name: fields[name] for name in ("outcome", "exit_code", "signal") if fields.get(name) is not None}
    return {"task_id": task.key.task_id, "label": _label(task), **told}


def _label(task: Task) -> str:
    return task.spec.label or clipped(task.spec.command, _COMMAND)


def _next(look: _Look) -> str:
    if not look.is_over:
        return f'plan_progress(plan_id="{look.plan.key.plan_id}", wait_ms=25000)'
    causes = [task for task in look.failed if not _is_consequence(task)]
    return f'get_result(task_id="{causes[0].key.task_id}")' if causes else ""


def _onward(progress: Progress | None, waited_ms: int, allowed: int, look: _Look) -> Progress | None:
    """Tell of the whole wait what one part of it tells."""
    if progress is None:
        return None
    done = sum(state in FINAL_STATES for state in look.states.values())

    async def tell(ms: int, _allowed: int, _what: str) -> None:
        await progress(waited_ms + ms, allowed, f"{done} of {len(look.plan.tasks)} steps are over")

    return tell
