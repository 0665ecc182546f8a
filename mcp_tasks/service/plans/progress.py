"""How far a plan has come: looked at without reading what is over, waited for, told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import anyio

from mcp_tasks.clock import rfc3339
from mcp_tasks.errors import TaskNotFound
from mcp_tasks.models import FINAL_STATES, DependencyFailed, Finished, Plan, StateName, Task, TaskKey
from mcp_tasks.service.desk import Caller, Desk, View, clamp
from mcp_tasks.views import clipped, outcome_fields
from mcp_tasks.waiting import Condition, Progress

__all__ = ["Look", "PlanLooks"]

_SHOWN = 20
_LAST = 100
_COMMAND = 200
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Look:
    """How far a plan has come.

    Attributes:
        states: Of those tasks that were not cleared, by id.
        current: Those that run; where none does, the first that waits.
        failed: The first of those that did not complete.
        state: Of the plan as a whole; `cleared` where a step was cleared and all others completed.
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


class PlanLooks:
    """Looks at plans. All but `until_over` is blocking."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def until_over(self, caller: Caller, plan: Plan, wait_ms: int) -> tuple[Look, int | None]:
        """Wait until all of a plan is over, at most for `wait_ms`; with the limit where that was too long."""
        allowed, clamped = clamp(caller, wait_ms)
        began = time.monotonic()
        while True:
            look = await self._desk.blocking(self.look, plan)
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

    def look(self, plan: Plan) -> Look:
        """How far a plan has come now."""
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
        return Look(plan, states, current, failed, _state(states, failed, len(plan.tasks)))

    def _task(self, plan: Plan, task_id: str) -> Task | None:
        try:
            return self._desk.reconciler.look(TaskKey(plan.key.owner, plan.key.session, task_id)).task
        except TaskNotFound:
            return None

    def view(self, look: Look) -> View:
        """What is told of a plan; empty fields are left out."""
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

    def _elapsed(self, look: Look) -> int:
        """Milliseconds since the plan was registered, or until its last step was over."""
        ended = self._desk.clock.now_ms()
        if look.is_over:
            # The last to end is among the last of the plan, but for very wide ones.
            last = [self._task(look.plan, task_id) for task_id in look.plan.tasks[-_LAST:]]
            ends = [task.state.ended_at for task in last if task and isinstance(task.state, Finished)]
            ended = max(ends, default=look.plan.created_at)
        return max(0, ended - look.plan.created_at)

    def tasks(self, look: Look) -> list[dict[str, Any]]:
        """What is told of each task of a plan that was not cleared."""
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


def _state(states: dict[str, StateName], failed: Sequence[Task], total: int) -> str:
    found = set(states.values())
    if "running" in found or ("pending" in found and len(found) > 1):
        return "running"
    if "pending" in found:
        return "pending"
    if found <= {"completed"}:
        # Nobody knows any more how the others ended.
        return "completed" if len(states) == total else "cleared"
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


def _next(look: Look) -> str:
    if not look.is_over:
        return f'plan_progress(plan_id="{look.plan.key.plan_id}", wait_ms=25000)'
    causes = [task for task in look.failed if not _is_consequence(task)]
    return f'get_result(task_id="{causes[0].key.task_id}")' if causes else ""


def _onward(progress: Progress | None, waited_ms: int, allowed: int, look: Look) -> Progress | None:
    """Tell of the whole wait what one part of it tells."""
    if progress is None:
        return None
    done = sum(state in FINAL_STATES for state in look.states.values())

    async def tell(ms: int, _allowed: int, _what: str) -> None:
        await progress(waited_ms + ms, allowed, f"{done} of {len(look.plan.tasks)} steps are over")

    return tell
