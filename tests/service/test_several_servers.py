"""Several servers on one store, and a server after another."""

from __future__ import annotations

from pathlib import Path

import anyio

from tests.service.agent import LONG_MS, Agent, open_agent


async def test_each_server_sees_at_once_what_another_started(tmp_path: Path) -> None:
    async with open_agent(tmp_path) as one, open_agent(tmp_path) as other:
        task_id = await one.start("echo shared; sleep 0.2")
        assert (await other.list())["tasks"][0]["task_id"] == task_id
        view = await other.poll(task_id, wait_ms=LONG_MS)
        assert (view["state"], view["stdout"]) == ("completed", "shared\n")
        assert (await one.poll(task_id))["state"] == "completed"


async def test_the_other_server_can_cancel_and_clear(tmp_path: Path) -> None:
    async with open_agent(tmp_path) as one, open_agent(tmp_path) as other:
        task_id = await one.start("sleep 60")
        assert (await other.cancel(task_id))["state"] == "cancelled"
        assert (await one.clear(task_id))["cleared"] == [task_id]
        assert (await other.list())["tasks"] == []


async def test_one_key_is_one_task_however_many_servers_are_asked_at_once(tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state") as one, open_agent(tmp_path / "state") as other:
        ids: list[str] = []

        async def start(agent: Agent, key: str) -> None:
            ids.append((await agent.run(f"echo {key} >> {tmp_path}/runs", key=key))["task_id"])

        async with anyio.create_task_group() as group:
            for number in range(8):
                for agent in (one, other, one, other):
                    group.start_soon(start, agent, f"key{number}")
        assert len(set(ids)) == 8
        assert sorted((tmp_path / "runs").read_text().split()) == [f"key{number}" for number in range(8)]


async def test_a_task_outlives_its_server_and_ends_while_none_runs(tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state") as agent:
        task_id = await agent.start(f"echo before; sleep 0.3; echo after; touch {tmp_path}/over")
    with anyio.fail_after(10):
        while not (tmp_path / "over").exists():  # noqa: ASYNC110 - the command knows nothing of events
            await anyio.sleep(0.02)  # sleep: between two looks at a file, bounded above
    async with open_agent(tmp_path / "state") as agent:
        view = await agent.poll(task_id, wait_ms=LONG_MS)
        assert (view["state"], view["stdout"]) == ("completed", "before\nafter\n")
        assert view["elapsed_ms"] >= 300
