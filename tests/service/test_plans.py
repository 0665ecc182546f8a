"""Plans: what is registered, in which order it runs, how far it has come, and what a crash leaves."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.errors import InvalidArgument, KeyConflict, LimitReached, PlanNotFound, TaskNotFound
from mcp_tasks.models import Plan
from mcp_tasks.requests import PlanProgress, RunPlan
from mcp_tasks.service import View
from tests.service.agent import LONG_MS, Agent, open_agent
from tests.waiting import eventually


async def plan(agent: Agent, *commands: Any, wait_ms: int | None = LONG_MS, **options: Any) -> View:
    request = RunPlan(commands=commands, wait_ms=wait_ms, **options)
    return await agent.service.run_plan(agent.caller, request)


async def progress(agent: Agent, plan_id: str | None = None, wait_ms: int | None = None) -> View:
    return await agent.service.plan_progress(agent.caller, PlanProgress(plan_id=plan_id, wait_ms=wait_ms))


def states(view: View) -> list[str]:
    return [task["state"] for task in view["tasks"]]


async def test_a_sequence_runs_one_step_after_the_other(agent: Agent, tmp_path: Path) -> None:
    order = tmp_path / "order"
    steps = [f"sleep 0.0{5 - number}; echo {number} >> {order}" for number in range(5)]
    view = await plan(agent, *steps, name="five")
    assert (view["state"], view["total"], view["done"], view["name"]) == ("completed", 5, 5, "five")
    assert view["counts"] == {"completed": 5}
    assert order.read_text().split() == ["0", "1", "2", "3", "4"]
    assert [task.get("after", []) for task in view["tasks"]] == [
        [],
        *([task["task_id"]] for task in view["tasks"][:-1]),
    ]


async def test_steps_run_as_far_as_they_depend_on_each_other(agent: Agent, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    view = await plan(
        agent,
        {"name": "build", "command": f"until [ -e {gate} ]; do sleep 0.01; done; echo b >> {tmp_path}/order"},
        {"name": "test", "command": f"echo t >> {tmp_path}/order", "after": ["build"]},
        {"name": "lint", "command": f"touch {gate}; echo l >> {tmp_path}/order"},
        {"command": f"echo done >> {tmp_path}/order", "after": [2, "lint"]},
        order="parallel",
    )
    assert view["state"] == "completed"
    order = (tmp_path / "order").read_text().split()
    assert (order.index("b") < order.index("t"), order[-1]) == (True, "done")


async def test_a_failed_step_stops_what_waits_for_it(agent: Agent, tmp_path: Path) -> None:
    view = await plan(agent, "true", "exit 3", f"touch {tmp_path}/ran", f"touch {tmp_path}/ran")
    assert view["state"] == "failed"
    assert states(view) == ["completed", "failed", "failed", "failed"]
    told = await progress(agent, view["plan_id"])
    assert [one["outcome"] for one in told["failed"]] == ["exited", "dependency_failed", "dependency_failed"]
    assert told["failed"][0]["exit_code"] == 3
    assert view["tasks"][1]["task_id"] in told["next"]
    assert not (tmp_path / "ran").exists()


async def test_a_plan_that_continues_runs_every_step(agent: Agent, tmp_path: Path) -> None:
    view = await plan(agent, "exit 3", f"touch {tmp_path}/ran", on_failure="continue")
    assert (view["state"], states(view)) == ("failed", ["failed", "completed"])
    assert (tmp_path / "ran").exists()


async def test_a_plan_whose_step_was_cancelled_is_cancelled(agent: Agent) -> None:
    view = await plan(agent, "sleep 60", "true", wait_ms=0)
    await agent.cancel(view["tasks"][0]["task_id"])
    over = await progress(agent, view["plan_id"], LONG_MS)
    assert (over["state"], over["counts"]) == ("cancelled", {"cancelled": 1, "failed": 1})


async def test_a_step_is_retried_before_it_has_failed(agent: Agent, tmp_path: Path) -> None:
    flaky = f"echo x >> {tmp_path}/runs; [ $(wc -l < {tmp_path}/runs) = 2 ]"
    view = await plan(agent, {"command": flaky, "retries": 2}, f"cat {tmp_path}/runs")
    assert view["state"] == "completed"


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([{"name": "a", "command": "true"}, {"name": "a", "command": "true"}], r"commands\[2\] has the name"),
        ([{"command": "true", "after": ["nobody"]}], r"commands\[1\] waits for 'nobody'"),
        ([{"command": "true", "after": ["2"]}], r"commands\[1\] waits for '2'"),
        ([{"name": "a", "command": "true", "after": ["a"]}], "a → a"),
        (
            [
                {"name": "a", "command": "true", "after": ["c"]},
                {"name": "b", "command": "true", "after": ["a"]},
                {"name": "c", "command": "true", "after": ["b"]},
            ],
            "a → c → b → a",
        ),
        ([{"command": "true", "cwd": "/no/such/folder"}], r"commands\[1\]: cwd"),
        ([{"command": "true"}, {"command": ""}], r"commands\[2\]: command is empty"),
    ],
)
async def test_a_plan_that_makes_no_sense_is_refused_whole(
    agent: Agent, steps: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        await plan(agent, *steps)
    assert (await agent.list())["counts"] == {}


async def test_a_step_can_wait_for_a_task_that_was_there(agent: Agent) -> None:
    first = await agent.start("read _", interactive=True)
    view = await plan(agent, {"command": "true", "after": [first]}, wait_ms=0)
    assert view["state"] == "pending"
    await agent.send(first, enter=True, wait_ms=0)
    assert (await progress(agent, wait_ms=LONG_MS))["state"] == "completed"
    with pytest.raises(TaskNotFound):
        await plan(agent, {"command": "true", "after": ["0" * 36]})


async def test_the_same_key_is_the_same_plan(agent: Agent, tmp_path: Path) -> None:
    steps = [f"echo x >> {tmp_path}/runs", "true"]
    first = await plan(agent, *steps, key="k")
    again = await plan(agent, *steps, key="k", name="other words")
    assert (again["plan_id"], again["reused"]) == (first["plan_id"], True)
    assert "reused" not in first
    with pytest.raises(KeyConflict, match=first["plan_id"]):
        await plan(agent, "true", key="k")
    with pytest.raises(KeyConflict):
        await agent.run("true", key="k")
    assert (tmp_path / "runs").read_text() == "x\n"


async def test_a_plan_over_the_queue_limit_is_refused_whole(narrow: Agent) -> None:
    with pytest.raises(LimitReached, match="4 more"):
        await plan(narrow, "true", "true", "true", "true")
    assert (await narrow.list())["counts"] == {}
    assert (await plan(narrow, "true", "true", "true"))["state"] == "completed"


async def test_progress_names_what_runs_and_is_found_without_an_id(agent: Agent) -> None:
    with pytest.raises(PlanNotFound, match="no plan in this session"):
        await progress(agent)
    view = await plan(agent, {"name": "long", "command": "sleep 60"}, "true", wait_ms=0)
    await eventually(lambda: _runs(agent), "the first step runs")
    told = await progress(agent)
    assert told["plan_id"] == view["plan_id"]
    assert told["current"] == [{"task_id": view["tasks"][0]["task_id"], "label": "long", "state": "running"}]
    assert (told["state"], told["done"], told["total"]) == ("running", 0, 2)
    assert view["plan_id"] in told["next"]
    with pytest.raises(PlanNotFound):
        await progress(agent.of("elsewhere"), view["plan_id"])
    assert (await progress(agent.of("elsewhere", named=False), view["plan_id"]))["session"] == "default"
    await agent.cancel(view["tasks"][0]["task_id"])


async def test_a_plan_with_cleared_steps_is_over_and_no_success(agent: Agent) -> None:
    view = await plan(agent, "true", "true")
    await agent.clear(view["tasks"][0]["task_id"])
    told = await progress(agent)
    assert (told["state"], told["done"], told["counts"]) == ("cleared", 2, {"cleared": 1, "completed": 1})


async def test_fifty_steps_are_registered_fast(agent: Agent) -> None:
    began = time.monotonic()
    view = await plan(agent, *["true"] * 50, wait_ms=0)
    print(f"{time.monotonic() - began:.3f} s")  # noqa: T201 - a figure for who looks, no limit
    assert view["total"] == 50
    assert (await progress(agent, wait_ms=LONG_MS))["state"] == "completed"


async def test_a_plan_goes_on_when_no_server_lives(tmp_path: Path) -> None:
    steps = [f"echo {number} >> {tmp_path}/order" for number in range(4)]
    async with open_agent(tmp_path / "state") as agent:
        view = await plan(agent, *steps, wait_ms=0)

    async def over() -> bool:
        with suppress(FileNotFoundError):
            return len((tmp_path / "order").read_text().split()) == 4
        return False

    await eventually(over, "every step has run", 30)
    async with open_agent(tmp_path / "state") as agent:
        assert (await progress(agent, view["plan_id"], LONG_MS))["state"] == "completed"
    assert (tmp_path / "order").read_text().split() == ["0", "1", "2", "3"]


async def test_a_plan_that_was_never_registered_runs_nothing_and_frees_its_key(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = agent.service._desk.store

    class Killed(BaseException):
        pass

    def killed(_plan: Plan) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "create_plan", lambda _self, one: killed(one))
        patch.setattr(type(store), "delete", lambda _self, _key: 0)
        patch.setattr("mcp_tasks.parking.remove_empty", lambda _folder: None)
        patch.setattr(type(agent.service._desk.executor), "tidy", lambda _self, _folder: None)
        with pytest.raises(Killed):
            await plan(agent, f"echo x >> {tmp_path}/runs", "true", key="k")
    assert (await agent.list())["counts"] == {"pending": 2}
    left = (await agent.list())["tasks"][0]
    assert "plan" in left["queue"]["waiting_for"]
    view = await plan(agent, f"echo x >> {tmp_path}/runs", "true", key="k")
    assert view["state"] == "completed"
    assert (tmp_path / "runs").read_text() == "x\n"
    assert (await agent.list())["counts"] == {"completed": 2}


async def test_what_a_killed_server_left_of_a_plan_is_removed_in_the_end(agent: Agent) -> None:
    view = await plan(agent, {"command": "true", "delay_ms": 60_000}, wait_ms=0)
    store = agent.service._desk.store
    (stored,) = store.plans(agent.caller.session_key)
    store.delete_plan(stored.key)
    key = replace(next(iter(store.held())), task_id=view["tasks"][0]["task_id"])
    task = store.load(key)
    store.replace(replace(task, created_at=task.created_at - 61_000))
    async with open_agent(store.slots.parent) as other:

        async def gone() -> bool:
            return bool((await other.list())["counts"] == {})

        await eventually(gone, "the task is removed")


async def _runs(agent: Agent) -> bool:
    return "running" in (await agent.list())["counts"]
