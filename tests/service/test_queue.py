"""Who runs and who waits: limits, order, fairness, and what is said meanwhile."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from mcp_tasks.errors import LimitReached
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually


async def test_a_pending_task_says_where_it_stands(narrow: Agent) -> None:
    blocker = await narrow.start("sleep 60")
    first = await narrow.run("true", wait_ms=0)
    second = await narrow.run("true", wait_ms=0)
    assert first["state"] == "pending"
    assert (first["queue"]["position"], second["queue"]["position"]) == (1, 2)
    assert first["queue"]["waiting_for"]
    assert "idle_ms" not in first
    listed = (await narrow.list(state="pending"))["tasks"]
    assert [task["queue"]["position"] for task in listed] == [2, 1]
    await narrow.cancel(first["task_id"])
    assert (await narrow.poll(second["task_id"]))["queue"]["position"] == 1
    await narrow.cancel(blocker)
    assert (await narrow.ended(second["task_id"]))["state"] == "completed"


async def test_first_come_first_served(narrow: Agent, tmp_path: Path) -> None:
    ids = [await narrow.start(f"sleep 0.05; echo {n} >> {tmp_path}/order") for n in range(4)]
    await narrow.wait(*ids, mode="all")
    assert (tmp_path / "order").read_text().split() == ["0", "1", "2", "3"]


async def test_sessions_take_turns(tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state", max_running=1) as agent:
        order = tmp_path / "order"
        blocker = await agent.of("busy").start("sleep 60")
        ids = [await agent.of("busy").start(f"echo busy >> {order}") for _ in range(5)]
        ids += [await agent.of("rare").start(f"echo rare >> {order}")]
        # While the busy session's tasks wait, its running one counts against it.
        async with open_agent(tmp_path / "state", max_running=2):
            await agent.wait(*ids, mode="all", wait_ms=20_000)
        await agent.cancel(blocker)
        assert order.read_text().split()[0] == "rare"


async def test_no_more_than_the_limit_run_at_once(tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state", max_running=3) as agent:
        counter, gate = tmp_path / "counter", tmp_path / "gate"
        counter.write_text("")
        script = f"""
            exec 9>>{tmp_path}/guard
            flock 9; echo x >> {counter}; wc -l < {counter} >> {tmp_path}/seen; flock -u 9
            until [ -e {gate} ]; do sleep 0.01; done
            flock 9; sed -i 1d {counter}; flock -u 9"""
        ids = [await agent.start(script) for _ in range(15)]

        async def as_many_as_may() -> bool:
            return len(counter.read_text().split()) >= 3

        await eventually(as_many_as_may, "three run")
        assert (await agent.list())["counts"] == {"running": 3, "pending": 12}
        gate.touch()
        answer = await agent.wait(*ids, mode="all", wait_ms=25_000)
        assert answer["open"] == []
        assert {view["state"] for view in answer["done"]} == {"completed"}
        seen = [int(line) for line in (tmp_path / "seen").read_text().split()]
        assert len(seen) == 15
        assert max(seen) == 3


async def test_a_full_queue_refuses_and_the_refused_never_runs(narrow: Agent, tmp_path: Path) -> None:
    ids = [await narrow.start("sleep 60")] + [await narrow.start("true") for _ in range(3)]
    with pytest.raises(LimitReached, match="pending"):
        await narrow.run(f"touch {tmp_path}/ran", key="refused")
    assert (await narrow.list())["counts"] == {"running": 1, "pending": 3}
    await narrow.cancel(ids[0])
    await narrow.wait(*ids, mode="all")
    assert not (tmp_path / "ran").exists()
    assert "reused" not in await narrow.run(f"touch {tmp_path}/ran", key="refused")


async def test_the_queue_limit_is_exact_when_many_come_at_once(tmp_path: Path) -> None:
    async with (
        open_agent(tmp_path / "state", max_running=1, queue_limit=5) as one,
        open_agent(tmp_path / "state", max_running=1, queue_limit=5) as other,
    ):
        blocker = await one.start("sleep 60")
        refused: list[str] = []

        async def start(agent: Agent) -> None:
            try:
                await agent.start("true")
            except LimitReached as error:
                refused.append(error.message)

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(start, one)
                group.start_soon(start, other)
        assert len(refused) == 15
        await one.cancel(blocker)
        await other.wait(*[task["task_id"] for task in (await other.list())["tasks"]], mode="all")


async def test_a_pending_task_keeps_its_input_and_environment_until_it_runs(narrow: Agent) -> None:
    blocker = await narrow.start("sleep 60")
    waiting = await narrow.start("cat; echo $WORD", stdin="kept ", env={"WORD": "too"}, cwd="/")
    await narrow.cancel(blocker)
    assert (await narrow.ended(waiting))["stdout"] == "kept too\n"


async def test_what_one_server_leaves_pending_another_starts(tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state", max_running=1) as first:
        blocker = await first.start("sleep 0.3")
        waiting = await first.start("echo taken over")
    async with open_agent(tmp_path / "state", max_running=1) as second:
        assert (await second.ended(waiting))["stdout"] == "taken over\n"
        assert (await second.poll(blocker))["state"] == "completed"
