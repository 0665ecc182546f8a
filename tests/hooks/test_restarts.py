"""At least once, whoever is killed: servers, the steward, and both."""

from __future__ import annotations

import os
import random
import signal
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from tests.campaigns.rig import alive, end, server, short_or_full
from tests.hooks.receiver import Receiver
from tests.leaks import processes_of
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


def key_of(folder: Path) -> dict[str, str]:
    """So that servers and tests seal with the same key, wherever they are at home."""
    return {"MCP_TASKS_KEY_FILE": str(folder / "key")}


async def nobody_left(folder: Path) -> None:
    async def nobody() -> bool:
        return not processes_of(folder)

    await eventually(nobody, "the steward has left", 30)


async def all_told(agent: Agent) -> None:
    async def told() -> bool:
        return not agent.service._desk.hooks.waiting()

    await eventually(told, "everything has been told", 60)


async def test_when_no_server_lives_the_steward_tells_and_leaves(tmp_path: Path, receiver: Receiver) -> None:
    state = tmp_path / "state"
    async with server(state, env=key_of(tmp_path)) as connection:
        view = await connection.call(
            "run_command", command="sleep 1; exit 5", wait_ms=0, hooks=[{"webhook": receiver.url}]
        )
        await end(connection, "kill")
    [got] = await receiver.has()
    assert got.told["data"]["task_id"] == view["task_id"]
    assert got.told["data"]["exit_code"] == 5
    await nobody_left(tmp_path)
    assert len(receiver.got) == 1
    assert os.listdir(state / "hooks") == ["arming.lock"]


async def test_the_steward_signs_with_the_secret_of_the_server_that_armed_the_hook(
    tmp_path: Path, receiver: Receiver
) -> None:
    secret = {"MCP_TASKS_HOOK_SECRET": "a secret of that server"}
    async with server(tmp_path / "state", env=secret) as connection:
        await connection.call("run_command", command="sleep 1", wait_ms=0, hooks=[{"webhook": receiver.url}])
        await end(connection, "kill")
    [got] = await receiver.has()
    assert got.headers["webhook-signature"].startswith("v1,")
    await nobody_left(tmp_path)


async def test_what_was_not_told_when_all_were_killed_the_next_server_tells(
    tmp_path: Path, receiver: Receiver
) -> None:
    state = tmp_path / "state"
    receiver.held.clear()
    async with server(state, env=key_of(tmp_path)) as connection:
        view = await connection.call(
            "run_command", command="true", wait_ms=10_000, hooks=[{"webhook": receiver.url}]
        )
        [first] = await receiver.has()  # it is just being told
        for pid in alive(state, "mcp_tasks.steward"):
            os.kill(pid, signal.SIGKILL)
        await end(connection, "kill")
    receiver.held.set()
    async with open_agent(state, key_file=tmp_path / "key") as agent:
        _, again = await receiver.has(2)
        assert again.message_id == first.message_id
        assert again.body == first.body
        assert again.told["data"]["task_id"] == view["task_id"]
        await all_told(agent)
    await nobody_left(tmp_path)


async def test_of_several_servers_that_live_one_tells(tmp_path: Path, receiver: Receiver) -> None:
    async with open_agent(tmp_path / "state") as one, open_agent(tmp_path / "state") as other:
        hooks = [{"webhook": receiver.url}]
        ids = {await agent.start("sleep 0.3", hooks=hooks) for agent in (one, other, one, other)}
        await receiver.has(4)
        await all_told(one)
        assert sorted(got.told["data"]["task_id"] for got in receiver.got) == sorted(ids)
    await nobody_left(tmp_path)


async def test_a_hook_of_a_task_that_waits_is_told_after_its_turn(tmp_path: Path, receiver: Receiver) -> None:
    async with server(tmp_path / "state") as connection:
        first = await connection.call("run_command", command="sleep 1", wait_ms=0)
        await connection.call(
            "run_command",
            command="true",
            after=[first["task_id"]],
            wait_ms=0,
            hooks=[{"webhook": receiver.url}],
        )
        await end(connection, "kill")
    [got] = await receiver.has()
    assert got.told["data"]["state"] == "completed"
    await nobody_left(tmp_path)


async def test_what_a_process_saw_end_and_left_untold_the_steward_tells_soon(
    tmp_path: Path, receiver: Receiver
) -> None:
    state = tmp_path / "state"
    receiver.held.clear()
    async with open_agent(state, key_file=tmp_path / "key") as agent:
        await agent.run("sleep 2", hooks=[{"webhook": receiver.url}])
        await receiver.has()
    receiver.held.set()  # nobody has been told yet, and who was telling is gone, if it was not the steward

    async def told() -> bool:
        return not list((state / "hooks").glob("*.json"))

    await eventually(told, "the end has been told", 15)
    assert len({got.message_id for got in receiver.got}) == 1
    await nobody_left(tmp_path)


@pytest.mark.campaign
@pytest.mark.parametrize("store", ["json", "sqlite"])
async def test_every_end_is_told_at_least_once_whoever_is_killed_when(
    tmp_path: Path, receiver: Receiver, store: str
) -> None:
    state, chance = tmp_path / "state", random.Random(7)
    registered: list[str] = []
    for _ in range(short_or_full(4, 40)):
        with suppress(Exception):  # the server is killed in the middle of a call
            async with (
                server(state, "--store", store, env=key_of(tmp_path)) as connection,
                anyio.create_task_group() as group,
            ):

                async def kill(pid: int, after: float) -> None:
                    await anyio.sleep(after)  # sleep: the moment of the kill is what is tried
                    victims = [pid]
                    if chance.random() < 0.5:
                        victims += alive(state, "mcp_tasks.steward")
                    for victim in victims:
                        with suppress(ProcessLookupError):
                            os.kill(victim, signal.SIGKILL)

                group.start_soon(kill, connection.pid, chance.uniform(0.2, 1.5))
                while True:
                    view = await connection.call(
                        "run_command",
                        command=f"sleep {chance.uniform(0, 0.3):.2f}",
                        wait_ms=chance.choice([0, 100]),
                        hooks=[{"webhook": receiver.url}],
                    )
                    registered.append(view["task_id"])
    assert registered
    async with open_agent(state, store=store, key_file=tmp_path / "key") as agent:
        await all_told(agent)
    ids = defaultdict(set)
    for got in receiver.of("end"):
        ids[got.told["data"]["task_id"]].add(got.message_id)
    assert set(registered) - set(ids) == set()
    assert all(len(messages) == 1 for messages in ids.values())
    await nobody_left(tmp_path)
