"""What goes wrong while tasks wait, and must neither lose them nor keep others waiting."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.app import open_service
from mcp_tasks.errors import PlanNotFound, StoreUnavailable, TasksError
from mcp_tasks.models import PlanKey, SessionKey, TaskKey
from mcp_tasks.requests import PlanStep, RunPlan
from mcp_tasks.service.errands import Errand
from mcp_tasks.settings import Settings
from tests.leaks import processes_of
from tests.service.agent import LONG_MS, Agent, open_agent
from tests.waiting import eventually


async def test_a_plan_that_took_long_to_register_keeps_its_tasks(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = RunPlan(commands=(PlanStep(command="true", delay_ms=60_000),), wait_ms=0)
    view = await agent.service.run_plan(agent.caller, request)
    task_id = view["tasks"][0]["task_id"]
    store, admission = agent.service._desk.store, agent.service._desk.admission
    holding = admission._holding
    key = replace(store.held()[0], task_id=task_id)
    task = store.load(key)
    store.replace(replace(task, created_at=task.created_at - 61_000))
    looks = 0

    def registered_in_between(plan: PlanKey) -> Any:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise PlanNotFound(plan.plan_id)
        return load_plan(plan)

    load_plan = store.load_plan
    with monkeypatch.context() as patch:
        patch.setattr(store, "load_plan", registered_in_between)
        patch.setattr(holding, "_registered", set())
        patch.setattr(holding, "_known", {})
        admission.drain()
    assert looks == 2
    assert store.load(key).state_name == "pending"
    await agent.cancel(task_id)


async def test_many_held_tasks_are_looked_at_together(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await agent.start("true", delay_ms=60_000)
    ids = [await agent.start("true", after=(first,)) for _ in range(5)]
    store = agent.service._desk.store
    asked: list[SessionKey] = []
    states = store.states

    def counted(session: SessionKey, task_ids: Sequence[str]) -> Any:
        asked.append(session)
        return states(session, task_ids)

    with monkeypatch.context() as patch:
        patch.setattr(store, "states", counted)
        found = agent.service._desk.admission._holding.look()
    assert len(found.held) == 6
    assert asked == [agent.caller.session_key]
    await agent.cancel(task_ids=(first, *ids))


async def test_a_task_whose_run_somebody_else_holds_stands_in_nobodys_way(tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state", max_running=2) as agent:
        blockers = [await agent.start("sleep 60") for _ in range(2)]
        stuck, free = await agent.start("true"), await agent.start("echo ran")
        folder = next((tmp_path / "state").rglob(f"{stuck}.1"))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            await agent.cancel(blockers[0])
            assert (await agent.ended(free))["stdout"] == "ran\n"
            assert (await agent.poll(stuck))["state"] == "pending"
        finally:
            os.close(lock)
        assert (await agent.ended(stuck))["state"] == "completed"
        await agent.cancel(blockers[1])


async def test_who_waits_for_a_task_that_is_refused_is_told_at_once(tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state", max_running=1) as agent:
        blocker = await agent.start("sleep 60")
        broken = await agent.start("true")
        waiting = await agent.start("true", after=(broken,))
        (next((tmp_path / "state").rglob(f"{broken}.1")) / "launch").unlink()
        await agent.cancel(blocker)
        assert (await agent.ended(broken))["outcome"] == "spawn_failed"
        view = await agent.poll(waiting, wait_ms=2_000)
        assert view["outcome"] == "dependency_failed"


async def test_the_steward_leaves_at_once_when_a_server_has_started_what_it_stood_in_for(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    async with open_agent(state) as agent:
        await eventually(lambda: _first(agent), "the launcher is there")
        before = set(processes_of(state))
        task_id = await agent.start("true", delay_ms=2_500)

        async def has_come() -> bool:
            return bool(set(processes_of(state)) - before)

        await eventually(has_come, "the steward is there")
        assert (await agent.ended(task_id))["state"] == "completed"

        async def has_left() -> bool:
            return not set(processes_of(state)) - before

        await eventually(has_left, "the steward has left", 3)


async def _first(agent: Agent) -> bool:
    return bool((await agent.run("true"))["state"] == "completed")


@pytest.mark.parametrize("is_steward", [False, True], ids=["server", "steward"])
async def test_the_cleanup_is_done_by_servers_and_by_no_steward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_steward: bool
) -> None:
    done: list[str] = []

    async def note(errands: Sequence[Errand]) -> None:
        done.extend(errand.__name__ for errand in errands)

    monkeypatch.setattr("mcp_tasks.app.run_errands", note)
    async with open_service(Settings(dir=tmp_path / "state"), is_steward=is_steward):

        async def has_begun() -> bool:
            return bool(done)

        await eventually(has_begun, "the errands are given out")
    assert ("run_when_due" in done) is not is_steward


async def test_a_task_that_cannot_be_seen_while_others_are_waited_for_is_one_plain_error(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await agent.start("sleep 60"), await agent.start("sleep 60")
    reconciler = agent.service._desk.reconciler
    look = type(reconciler).look

    def unseen(self: Any, key: TaskKey) -> Any:
        if key.task_id == second:
            raise StoreUnavailable("it cannot be read")
        return look(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(type(reconciler), "look", unseen)
        with pytest.raises(TasksError, match="cannot be read"):
            await agent.wait(first, second, mode="all", wait_ms=LONG_MS)
    await agent.cancel(task_ids=(first, second))


async def test_where_many_wait_for_pending_tasks_each_looks_less_often(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await agent.start("true", delay_ms=60_000)
    waiting, reconciler = agent.service._desk.waiting, agent.service._desk.reconciler
    look = type(reconciler).look
    looks = 0

    def counted(self: Any, key: TaskKey) -> Any:
        nonlocal looks
        looks += 1
        return look(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(type(reconciler), "look", counted)
        await agent.poll(task_id, wait_ms=300)
        alone, looks = looks, 0
        patch.setattr(waiting, "_looking", 1_000)
        await agent.poll(task_id, wait_ms=300)
    assert looks < 5 < alone
    await agent.cancel(task_id)


async def test_what_is_left_of_a_plan_is_removed_with_the_task_that_has_its_key_last(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = tuple(PlanStep(command="true", delay_ms=60_000) for _ in range(3))
    view = await agent.service.run_plan(agent.caller, RunPlan(commands=steps, key="k", wait_ms=0))
    ids = [task["task_id"] for task in view["tasks"]]
    admission = agent.service._desk.admission
    gone: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(admission._parking, "forget", lambda key: gone.append(key.task_id))
        admission.forget_plan(agent.caller.session_key, view["plan_id"])
    assert gone == ids[::-1]
    await agent.cancel(task_ids=tuple(ids))
