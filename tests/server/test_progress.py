"""A client that asked for it hears of its call all the time, whatever that waits for."""

from __future__ import annotations

import itertools
import time

import anyio
import pytest
from mcp import Client

from mcp_tasks.server import progress
from mcp_tasks.server.callers import Identity
from mcp_tasks.server.mcp_server import build_server
from mcp_tasks.server.progress import ProgressReports
from tests.server.fakes import FakeService, FakeSettings

pytestmark = pytest.mark.anyio

Heard = list[tuple[float, float | None, str | None]]


class _Listener:
    """Hears reports; `enough` is set with the third."""

    def __init__(self) -> None:
        self.heard: Heard = []
        self.enough = anyio.Event()

    async def hear(self, progress: float, total: float | None, message: str | None) -> None:
        self.heard.append((progress, total, message))
        if len(self.heard) >= 3:
            self.enough.set()


async def test_a_call_that_tells_nothing_of_itself_is_reported_all_the_same() -> None:
    listener = _Listener()
    reports = ProgressReports(listener.hear)
    with anyio.fail_after(10):
        async with reports.kept_up(0.01):
            await listener.enough.wait()
    values = [value for value, _, _ in listener.heard]
    assert all(earlier < later for earlier, later in itertools.pairwise(values))
    assert all(of == value for value, of, _ in listener.heard)


async def test_waits_that_begin_anew_do_not_lower_the_report() -> None:
    listener = _Listener()
    reports = ProgressReports(listener.hear)
    await reports(4_000, 20_000, "running, waiting")
    await reports(1_000, 20_000, "pending, waiting")
    assert listener.heard == [(4_000, 20_000, "running, waiting")]
    with anyio.fail_after(10):
        async with reports.kept_up(0.01):
            await listener.enough.wait()
    assert listener.heard[1][0] > 4_000
    assert listener.heard[1][1:] == (20_000, "pending, waiting")


async def test_reports_of_a_wait_put_off_the_next() -> None:
    listener = _Listener()
    reports = ProgressReports(listener.hear)
    began = time.monotonic()
    with anyio.fail_after(10):
        async with reports.kept_up(30):
            for value in range(3):
                await reports(value, 100, "running, waiting")
    assert listener.heard == [(value, 100, "running, waiting") for value in range(3)]
    assert time.monotonic() - began < 10


async def test_a_call_over_the_protocol_is_reported_until_it_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "_LONGEST_S", 0.01)
    service, listener = FakeService(waits=True), _Listener()
    server = build_server(service.as_service(), FakeSettings(), lambda _: Identity("me"))
    with anyio.fail_after(10):
        async with Client(server, mode="legacy") as client, anyio.create_task_group() as group:

            async def answer() -> None:
                await listener.enough.wait()
                service.release.set()

            group.start_soon(answer)
            result = await client.call_tool(
                "wait_tasks", {"task_ids": ["x"]}, progress_callback=listener.hear
            )
    assert not result.is_error
