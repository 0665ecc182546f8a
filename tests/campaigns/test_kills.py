"""Servers are killed at random moments while they start tasks; nothing acknowledged is lost or run twice."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import anyio
import pytest

from mcp_tasks.connection import Connection
from tests.campaigns.rig import GONE, KILLS, Ledger, check, end, server, short_or_full

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(3_600)]

_AT_ONCE = 8


class _Campaign:
    """Tasks that are started by key until each has been acknowledged."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.todo: list[int] = []
        self.acknowledged: dict[int, str] = {}
        self.seen = Counter[str]()

    async def work(self, connection: Connection, answered: anyio.Event) -> None:
        """Start one task after another until there are none, or the server is gone."""
        while self.todo:
            number = self.todo.pop(0)
            try:
                await self._start(connection, number)
            except GONE:
                return
            finally:
                if number not in self.acknowledged:
                    self.todo.append(number)
            answered.set()

    async def _start(self, connection: Connection, number: int) -> None:
        work = self.ledger.work(number)
        view = await connection.call("run_command", command=work.command, key=f"task {number}", wait_ms=0)
        self.seen["reused" if view.get("reused") else "new"] += 1
        if view["state"] == "lost":
            # Claimed by a server that was killed before it started anything, and never acknowledged.
            self.seen["lost, unacknowledged"] += 1
            assert self.ledger.runs(number) == 0
            await connection.call("clear_task", task_id=view["task_id"])
        else:
            self.acknowledged[number] = view["task_id"]


@pytest.mark.parametrize("store", ["json", "sqlite"])
async def test_kills_at_random_moments_lose_nothing_and_run_nothing_twice(tmp_path: Path, store: str) -> None:
    tasks, kills = short_or_full((60, 6), (1_000, 200))
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    chance = random.Random(seed)
    campaign = _Campaign(Ledger(tmp_path / "ledger"))
    state = tmp_path / "state"
    options = ("--max-running", "6", "--store", store)
    for life in range(kills):
        campaign.todo += range(life * tasks // kills, (life + 1) * tasks // kills)
        async with server(state, *options) as connection:
            answered = anyio.Event()
            async with anyio.create_task_group() as group:
                for _ in range(_AT_ONCE):
                    group.start_soon(campaign.work, connection, answered)
                await answered.wait()
                await anyio.sleep(chance.uniform(0, 0.03))  # sleep: the random moment of the kill
                await end(connection, KILLS[life % len(KILLS)])
                group.cancel_scope.cancel()
    while campaign.todo:
        async with server(state, *options) as connection:
            await campaign.work(connection, anyio.Event())
    assert len(campaign.acknowledged) == tasks
    async with server(state, *options) as connection:
        for number, task_id in campaign.acknowledged.items():
            await check(connection, campaign.ledger.work(number), task_id)
        listed = await connection.call("list_tasks", limit=1_000)
    runs = Counter(campaign.ledger.runs(number) for number in range(tasks))
    assert runs == {1: tasks}, (runs, campaign.seen)
    assert sum(listed["counts"].values()) == tasks
    assert "lost" not in listed["counts"]
    print(campaign.seen)  # noqa: T201 - as above
