"""Running tasks over the death of their server: one, many, and many more, and ends that nobody sees."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from tests.campaigns.rig import KILLS, all_tasks, end, server, short_or_full
from tests.waiting import eventually

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("how", "store"),
    [*((how, "json") for how in KILLS), *((how, "sqlite") for how in short_or_full(KILLS[:1], KILLS))],
)
@pytest.mark.parametrize("count", short_or_full([30], [1, 30, 300]))
async def test_what_runs_when_its_server_ends_is_found_with_every_byte(
    tmp_path: Path, how: str, store: str, count: int
) -> None:
    gate = tmp_path / "gate"
    command = (
        f"echo first $N; until [ -e {gate} ]; do sleep 0.3; done; echo ran >> {tmp_path}/runs; echo second $N"
    )
    state = tmp_path / "state"
    limit = ("--max-running", str(count), "--store", store)
    async with server(state, *limit) as connection:
        ids = [
            (await connection.call("run_command", command=command, env={"N": str(n)}, wait_ms=0))["task_id"]
            for n in range(count)
        ]
        await end(connection, how)
    async with server(state, *limit) as connection:
        assert {task["task_id"] for task in await all_tasks(connection, state="running")} == set(ids)
        gate.touch()
        left = set(ids)
        with anyio.fail_after(60):
            while left:
                answer = await connection.call("wait_tasks", task_ids=sorted(left), mode="all", wait_ms=5_000)
                left -= {view["task_id"] for view in answer["done"]}
        for number, task_id in enumerate(ids):
            view = await connection.call("get_result", task_id=task_id)
            assert (view["state"], view["stdout"]) == ("completed", f"first {number}\nsecond {number}\n")
    assert (tmp_path / "runs").read_text().split() == ["ran"] * count


async def test_ends_that_no_server_sees_are_all_told_afterwards(tmp_path: Path) -> None:
    count = short_or_full(20, 200)
    state = tmp_path / "state"
    async with server(state, "--max-running", str(count)) as connection:
        ids = [
            (
                await connection.call(
                    "run_command",
                    command=f"sleep 1.5; echo {n}; touch {tmp_path}/over{n}; exit {n % 5}",
                    wait_ms=0,
                )
            )["task_id"]
            for n in range(count)
        ]
        await end(connection, "kill")

    async def all_over() -> bool:
        return len([name for name in os.listdir(tmp_path) if name.startswith("over")]) == count

    await eventually(all_over, "every command is over", 60)
    async with server(state) as connection:
        for number, task_id in enumerate(ids):
            view = await connection.call("poll_task", task_id=task_id, wait_ms=5_000)
            assert (view["outcome"], view["exit_code"], view["stdout"]) == (
                "exited",
                number % 5,
                f"{number}\n",
            )
