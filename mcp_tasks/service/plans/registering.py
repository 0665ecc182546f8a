"""Registering a plan: all of its tasks are checked and made before the first one counts."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from mcp_tasks.errors import KeyConflict, PlanNotFound, TasksError
from mcp_tasks.launches import kept_key, launch_of, plan_fingerprint, same_plan, spec_of
from mcp_tasks.lifecycle import submitted
from mcp_tasks.models import Plan, PlanKey, Task, TaskKey
from mcp_tasks.ports import Launch
from mcp_tasks.redaction import redact_text
from mcp_tasks.requests import RunPlan
from mcp_tasks.service.desk import Caller, Desk
from mcp_tasks.service.plans.steps import command_of, wanted
from mcp_tasks.service.tasks.starting import require_tasks

__all__ = ["Registering"]


class Registering:
    """Makes a plan of a request. Blocking."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def register(self, caller: Caller, request: RunPlan, ids: Sequence[str]) -> tuple[Plan, bool]:
        """Register a plan and its tasks, or find the one that has its key already.

        Args:
            caller: Whose session it is for.
            request: The plan.
            ids: Of the plan, then of each task.

        Returns:
            The plan, and whether it was there before.

        Raises:
            InvalidArgument: A step is wrong; names it.
            KeyConflict: The key is that of another plan or of a task.
            TasksError: As `Admission.admit_plan` does.
        """
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
        hooks = session.hooks if session is not None else ()
        keys = [task.key for task, _ in tasks]
        with self._desk.hooks.armed(keys, hooks):
            registered = self._desk.admission.admit_plan(plan, tasks, lambda: self._holder(caller, request))
            if registered is not plan:
                self._desk.hooks.disarm(keys)
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
                spec = replace(spec, key=kept_key(request), fingerprint=mark)
            task_id = task_ids[number]
            key = TaskKey(caller.owner, caller.session, task_id)
            task = submitted(key, spec, now, step.delay_ms)
            made.append((task, launch_of(command, spec, task_id, defaults)))
        return made

    def _holder(self, caller: Caller, request: RunPlan) -> Plan | None:
        """The plan that was already started with this key. The right to admit is held."""
        if (kept := kept_key(request)) is None:
            return None
        held = self._desk.store.find_key(caller.session_key, kept)
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
            f"key {kept!r} belongs to {what}, started with other arguments",
            "use another key, or clear what has it",
        )
