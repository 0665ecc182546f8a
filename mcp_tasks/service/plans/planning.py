"""Plans: several commands registered at once, and how far they have come."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

from mcp_tasks.errors import InvalidArgument, PlanNotFound
from mcp_tasks.models import TASK_ID, Plan, PlanKey, SessionKey, as_task_id
from mcp_tasks.requests import PlanProgress, RunPlan
from mcp_tasks.service.desk import Caller, Desk, View
from mcp_tasks.service.plans.progress import PlanLooks
from mcp_tasks.service.plans.registering import Registering
from mcp_tasks.views import fitting

__all__ = ["Planning"]

_RUN_WAIT_MS = 1_000


class Planning:
    """run_plan and plan_progress."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._registering = Registering(desk)
        self._looks = PlanLooks(desk)

    async def run_plan(self, caller: Caller, request: RunPlan) -> View:
        """Register several commands at once, which run as their order or `after` says."""
        ids = [self._desk.clock.new_task_id() for _ in range(len(request.commands) + 1)]
        plan, reused = await self._desk.blocking(self._registering.register, caller, request, ids)
        if not reused:
            self._desk.keeping.queue_changed()
        wait_ms = _RUN_WAIT_MS if request.wait_ms is None else request.wait_ms
        look, clamped = await self._looks.until_over(caller, plan, wait_ms)
        view = await self._desk.blocking(self._looks.view, look)
        tasks = await self._desk.blocking(self._looks.tasks, look)
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
        look, clamped = await self._looks.until_over(caller, plan, request.wait_ms or 0)
        view = await self._desk.blocking(self._looks.view, look)
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
        plan_id = as_task_id(plan_id)
        if TASK_ID.fullmatch(plan_id):
            for session in self._sessions(caller):
                with suppress(PlanNotFound):
                    return self._desk.store.load_plan(PlanKey(session.owner, session.session, plan_id))
        raise PlanNotFound(plan_id)

    def _list(self, caller: Caller, limit: int) -> View:
        plans = islice(self._desk.store.plans(caller.session_key), limit)
        return {"plans": [self._looks.view(self._looks.look(plan)) for plan in plans]}
