"""Several servers on one store: one limit, one run of each task, one view of all; and none at all."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from mcp_tasks.connection import Connection
from tests.campaigns.rig import alive, all_tasks, end, server, short_or_full
from tests.waiting import eventually

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1_800)]

_AT_ONCE = 8


def counted(folder: Path, number: int, pause: float = 0.02) -> str:
    """A command that notes that it ran, and how many of its kind ran at that moment."""
    return f"""
        exec 9>>{folder}/guard
        flock 9; echo x >> {folder}/now; wc -l < {folder}/now >> {folder}/seen; flock -u 9
        echo {number} >> {folder}/runs
        sleep {pause}
        flock 9; sed -i 1d {folder}/now; flock -u 9
        echo done {number}"""


@pytest.mark.parametrize("store", ["json", "sqlite"])
async def test_the_limit_holds_for_the_store_and_each_task_runs_exactly_once(
    tmp_path: Path, store: str
) -> None:
    servers, tasks = short_or_full((3, 120), (4, 2_000))
    work = tmp_path / "work"
    work.mkdir()
    limits = ("--max-running", "3", "--queue-limit", "10000", "--store", store)
    ids: dict[int, str] = {}
    todo = list(range(tasks))

    async def agent(mine: Connection, other: Connection, session: str) -> None:
        while todo:
            number = todo.pop()
            view = await mine.call(
                "run_command", command=counted(work, number), wait_ms=0, session=session, key=str(number)
            )
            ids[number] = view["task_id"]
            seen = await other.call("poll_task", task_id=view["task_id"], session=session)
            assert seen["state"] in ("pending", "running", "completed")

    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(server(tmp_path / "state", *limits)) for _ in range(servers)
        ]
        async with anyio.create_task_group() as group:
            for place, connection in enumerate(connections):
                for _ in range(_AT_ONCE):
                    group.start_soon(agent, connection, connections[place - 1], f"session{place}")
        assert len(ids) == tasks
        for number, task_id in ids.items():
            connection = connections[number % servers]
            view = {"state": "pending"}
            while view["state"] in ("pending", "running"):
                view = await connection.call("poll_task", task_id=task_id, wait_ms=20_000)
            assert (view["state"], view["stdout"]) == ("completed", f"done {number}\n")
    assert Counter((work / "runs").read_text().split()) == Counter(map(str, range(tasks)))
    assert max(map(int, (work / "seen").read_text().split())) <= 3


async def test_a_rare_session_does_not_wait_for_a_busy_one(tmp_path: Path) -> None:
    order = tmp_path / "order"
    limits = ("--max-running", "2")
    async with server(tmp_path / "state", *limits) as busy, server(tmp_path / "state", *limits) as rare:
        gate = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
        for number in range(42):
            command = gate if number < 2 else f"sleep 0.1; echo busy >> {order}"
            await busy.call("run_command", command=command, session="busy", wait_ms=0)
        command = f"echo rare >> {order}"
        task = await rare.call("run_command", command=command, session="rare", wait_ms=0)
        (tmp_path / "go").touch()
        view = await rare.call("poll_task", task_id=task["task_id"], wait_ms=20_000)
        assert view["state"] == "completed"
        assert "rare" in order.read_text().split()[:12]
        await busy.call("wait_tasks", task_ids=await _active(busy, "busy"), mode="all", session="busy")


async def _active(connection: Connection, session: str) -> list[str]:
    listed = await all_tasks(connection, state="active", session=session)
    return [task["task_id"] for task in listed] or [
        (await connection.call("list_tasks", session=session, limit=1))["tasks"][0]["task_id"]
    ]


async def test_what_a_dead_server_had_pending_is_started_by_a_living_one(tmp_path: Path) -> None:
    limits = ("--max-running", "1")
    async with server(tmp_path / "state", *limits) as heir:
        async with server(tmp_path / "state", *limits) as dying:
            for number in range(6):
                await dying.call(
                    "run_command", command=f"sleep 0.3; echo {number} >> {tmp_path}/runs", wait_ms=0
                )
            await end(dying, "kill")
        ids = await _active(heir, "default")
        answer = await heir.call("wait_tasks", task_ids=ids, mode="all", wait_ms=20_000)
        assert answer["open"] == []
    assert (tmp_path / "runs").read_text().split() == [str(number) for number in range(6)]


@pytest.mark.parametrize("how", short_or_full(["kill", "close"], ["kill", "group", "terminate", "close"]))
async def test_when_no_server_lives_the_steward_starts_what_is_pending_and_goes(
    tmp_path: Path, how: str
) -> None:
    count = short_or_full(8, 100)
    state = tmp_path / "state"
    async with server(state, "--max-running", "2") as one, server(state, "--max-running", "2") as other:
        for number in range(count):
            command = f"sleep 0.2; echo {number} >> {tmp_path}/runs"
            await (one, other)[number % 2].call("run_command", command=command, wait_ms=0)
        await end(one, how)
        await end(other, how)

    async def all_ran() -> bool:
        return "runs" in os.listdir(tmp_path) and len((tmp_path / "runs").read_text().split()) == count

    await eventually(all_ran, "every pending task has run", 60)

    async def nobody() -> bool:
        return not alive(tmp_path, "mcp_tasks")

    await eventually(nobody, "the steward and the supervisors are gone", 20)
    async with server(state) as connection:
        assert (await connection.call("list_tasks"))["counts"] == {"completed": count}
    assert Counter((tmp_path / "runs").read_text().split()) == Counter(map(str, range(count)))


async def test_a_server_that_is_killed_with_the_memory_store_leaves_no_process_and_no_file(
    tmp_path: Path,
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    around = {"MCP_TASKS_STORE": "memory", "MCP_TASKS_AUTO_SAVE": "off", "TMPDIR": str(temporary)}
    options = ("--store", "memory")
    async with server(tmp_path / "state", *options, env=around) as connection:
        command = "trap '' TERM; sh -c 'sleep 61' & setsid sleep 62 & echo up; sleep 63"
        view = await connection.call(
            "run_command", command=command, cwd=str(tmp_path), pattern="up", grace_ms=200
        )
        assert view["state"] == "running"
        await end(connection, "kill")

    async def nothing_runs() -> bool:
        return not alive(tmp_path, "sleep") and not alive(tmp_path, "mcp_tasks")

    await eventually(nothing_runs, "the command has ended with its server", 20)
    async with server(tmp_path / "state", *options, env=around) as connection:
        assert (await connection.call("list_tasks"))["tasks"] == []

        async def swept() -> bool:
            return len(os.listdir(temporary)) == 1

        await eventually(swept, "the folder of the killed server is gone")
    assert os.listdir(temporary) == []
