"""A plan is killed at random moments, with its server or with everything: it goes on, and repeats nothing."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_tasks.connection import Connection
from tests.campaigns.rig import GONE, all_tasks, end, gone, server, short_or_full
from tests.leaks import processes_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(3_600)]

STEPS, KILLS = short_or_full((12, 5), (50, 20))
STORES = ("json", "sqlite")


def kill_everything(folder: Path) -> None:
    """End every process that has to do with a folder, as the end of the machine would: all at once."""
    stopped: set[int] = set()
    while found := set(processes_of(folder)) - stopped:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        stopped |= found
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(gone(pid) for pid in stopped), "everything is gone")


class Steps:
    """Commands that each note when they begin and when they are about to end."""

    def __init__(self, folder: Path, pause: float, **options: Any) -> None:
        folder.mkdir()
        self._folder = folder
        self.commands = [
            {
                "name": f"step {number}",
                "command": f"echo x >> {folder}/{number}; sleep {pause}; echo {number} >> {folder}/order",
                **options,
            }
            for number in range(STEPS)
        ]

    def runs(self, name: str) -> int:
        """How often a step has begun."""
        with suppress(FileNotFoundError):
            return len((self._folder / name.removeprefix("step ")).read_text().split())
        return 0

    def order(self) -> list[int]:
        """The steps that came to their end, in the order in which they did."""
        return [int(number) for number in (self._folder / "order").read_text().split()]


async def completed(connection: Connection) -> dict[str, int]:
    """The steps that are told to be completed, each with the number of the run that did it."""
    tasks = await all_tasks(connection, state="completed")
    return {task["label"]: task.get("run", 1) for task in tasks}


@pytest.mark.parametrize(
    ("killed", "retries", "on_failure", "store"),
    [
        pytest.param(killed, retries, on_failure, store, id=f"{what}, {store}")
        for what, killed, retries, on_failure, stores in (
            ("server", "server", 0, "stop", short_or_full(("json",), STORES)),
            ("everything", "everything", 0, "continue", short_or_full(("sqlite",), STORES)),
            ("everything, with retries", "everything", 50, "stop", short_or_full(("json",), STORES)),
        )
        for store in stores
    ],
)
async def test_a_plan_that_is_killed_goes_on_and_repeats_nothing(
    tmp_path: Path, killed: str, retries: int, on_failure: str, store: str
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    chance = random.Random(seed)
    steps = Steps(tmp_path / "steps", pause=short_or_full(0.3, 0.6), retries=retries)
    state = tmp_path / "state"
    options = ("--store", store, "--tools", "full", "--max-running", "3")
    request: dict[str, Any] = {
        "commands": steps.commands,
        "on_failure": on_failure,
        "key": "the plan",
        "wait_ms": 0,
    }
    told: dict[str, int] = {}
    ran: dict[str, int] = {}
    unfinished = 0
    for _ in range(KILLS):
        async with server(state, *options) as connection:
            before = await completed(connection)
            assert {name: steps.runs(name) for name in told} == ran
            assert told.items() <= before.items()
            told = before
            ran = {name: steps.runs(name) for name in told}
            async with anyio.create_task_group() as group:
                group.start_soon(ask, connection, request)
                await anyio.sleep(chance.uniform(0, 0.8))  # sleep: the random moment of the kill
                if killed == "server":
                    await end(connection, "kill")
                else:
                    await anyio.to_thread.run_sync(kill_everything, tmp_path)
                group.cancel_scope.cancel()
            unfinished += len(told) < STEPS
            assert {name: steps.runs(name) for name in told} == ran
    async with server(state, *options) as connection:
        view = await connection.call("run_plan", **request)
        while view["state"] in ("pending", "running"):
            view = await connection.call("plan_progress", plan_id=view["plan_id"], wait_ms=20_000)
        tasks = {task["label"]: task for task in await all_tasks(connection)}
        assert len(tasks) == view["total"] == STEPS, "the plan was registered once"
    assert unfinished >= KILLS // 2, "it was killed while there was something to do"
    assert told.items() <= {name: task.get("run", 1) for name, task in tasks.items()}.items()
    for name, task in tasks.items():
        assert steps.runs(name) <= task.get("run", 1), "no run was started twice"
        assert task["state"] == "completed" or not retries
    if killed == "server":
        assert view["state"] == "completed"
        assert steps.order() == list(range(STEPS))
    elif retries:
        assert view["state"] == "completed"
        assert sorted(set(steps.order())) == list(range(STEPS))
    else:
        assert {task["state"] for task in tasks.values()} <= {"completed", "lost"}
        assert view["counts"].get("lost", 0) <= KILLS
        assert steps.order() == sorted(set(steps.order()))


async def ask(connection: Connection, request: dict[str, Any]) -> None:
    """Ask for the plan, which is the same plan each time, whether or not the server lives to answer."""
    with suppress(*GONE):
        await connection.call("run_plan", **request)
