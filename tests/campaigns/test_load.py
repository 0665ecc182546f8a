"""Many clients over HTTP: cut at random, idle, or reading nothing; and what the server is like afterwards."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import psutil
import pytest
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests.campaigns.cutting import cutting
from tests.campaigns.rig import Ledger, Work, short_or_full
from tests.http.server_process import TOKEN, HttpServer, answer, running_server
from tests.http.test_transports import called, opened_session
from tests.waiting import eventually

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1_800)]

CHANNELS = [("auto", "http"), ("legacy", "http"), ("legacy", "sse")]
CUT = (
    MCPError,
    httpx2.HTTPError,
    OSError,
    TimeoutError,
    anyio.ClosedResourceError,
    anyio.BrokenResourceError,
)
"""What a client sees of a connection that breaks."""

SERVED = ("--max-running", "64", "--requests-per-second", "0")
SETTLED_SECONDS = 10.0
STUCK_SECONDS = 20.0
MEGABYTE = 2**20


@dataclass(frozen=True)
class Held:
    """What a server holds."""

    descriptors: int
    threads: int
    memory: int

    @classmethod
    def by(cls, server: HttpServer) -> Held:
        process = psutil.Process(server.process.pid)
        return cls(process.num_fds(), process.num_threads(), process.memory_info().rss)

    def is_within(self, baseline: Held) -> bool:
        """Whether it is what it was, but for what an allocator and a pool of threads keep."""
        return (
            self.descriptors <= baseline.descriptors + 8
            and self.threads <= baseline.threads + 4
            and self.memory <= baseline.memory * 1.2 + 16 * MEGABYTE
        )


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


@asynccontextmanager
async def client_at(port: int, mode: str, transport: str) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    base = f"http://127.0.0.1:{port}"
    if transport == "sse":
        async with Client(sse_client(f"{base}/sse", headers=headers), mode=mode) as client:
            yield client
        return
    async with (
        httpx2.AsyncClient(headers=headers, timeout=STUCK_SECONDS) as http,
        Client(streamable_http_client(f"{base}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


async def done(port: int, work: Work, chance: random.Random) -> str:
    """Start a command and wait for its end, over as many connections as that takes; the id of its task."""
    while True:
        try:
            with anyio.fail_after(STUCK_SECONDS):
                async with client_at(port, *chance.choice(CHANNELS)) as client:
                    view = await answer(
                        client, "run_command", command=work.command, key=f"load-{work.number}", wait_ms=0
                    )
                    while view["state"] in {"pending", "running"}:
                        view = await answer(client, "poll_task", task_id=view["task_id"], wait_ms=2_000)
                    return str(view["task_id"])
        except Exception as error:
            if not all(isinstance(leaf, CUT) for leaf in leaves(error)):
                raise


async def load(
    port: int, ledger: Ledger, numbers: range, clients: int, chance: random.Random
) -> dict[int, str]:
    """Have many clients at once do the work of these numbers; the id of each task."""
    found: dict[int, str] = {}

    async def one(mine: range) -> None:
        for number in mine:
            found[number] = await done(port, ledger.work(number), chance)

    async with anyio.create_task_group() as group:
        for first in range(clients):
            group.start_soon(one, numbers[first::clients])
    return found


async def test_clients_that_are_cut_at_random_lose_no_result_and_leave_nothing(tmp_path: Path) -> None:
    clients, tasks = short_or_full((20, 60), (200, 1_000))
    chance = random.Random(4)
    ledger = Ledger(tmp_path / "ledger")
    with running_server(tmp_path / "state", *SERVED) as server:
        warm_up = range(tasks, tasks + clients)
        await load(server.port, ledger, warm_up, clients, chance)
        baseline = Held.by(server)
        async with cutting(server.port, chance, 0.3) as way:
            found = await load(way.port, ledger, range(tasks), clients, chance)
        assert way.cuts > tasks // 20

        async def settled() -> bool:
            return Held.by(server).is_within(baseline)

        try:
            await eventually(settled, "the server holds what it held before", SETTLED_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{baseline} became {Held.by(server)}") from error
        async with server.mcp() as client:
            for number, task_id in found.items():
                work = ledger.work(number)
                view = await answer(client, "get_result", task_id=task_id, limit=262_144)
                assert (view["exit_code"], view["stdout"]) == (work.exit_code, work.stdout)
                assert ledger.runs(number) == 1
        assert len(set(found.values())) == tasks
        assert "Traceback" not in server.log.read_text()


async def test_idle_and_busy_connections_together_take_flat_memory(tmp_path: Path) -> None:
    idle, busy, rounds = short_or_full((60, 12, 10), (500, 100, 30))
    with running_server(tmp_path / "state", *SERVED) as server:
        async with AsyncExitStack() as stack:
            for number in range(idle):
                http = await stack.enter_async_context(server.http(**await opened_session(server)))
                kind = "/mcp" if number % 2 else "/sse"
                await stack.enter_async_context(http.stream("GET", kind))
            clients = [
                await stack.enter_async_context(server.mcp(*CHANNELS[n % len(CHANNELS)])) for n in range(busy)
            ]
            task_id = (await answer(clients[0], "run_command", command="seq 5000"))["task_id"]

            async def work(client: Client) -> None:
                for _ in range(rounds):
                    view = await answer(client, "get_result", task_id=task_id, limit=65_536)
                    assert view["stdout"].endswith("5000\n")

            async def wave() -> Held:
                async with anyio.create_task_group() as group:
                    for client in clients:
                        group.start_soon(work, client)
                return Held.by(server)

            first = await wave()
            assert first.descriptors > idle + busy
            for _ in range(2):
                assert (await wave()).is_within(first)


async def test_clients_that_never_read_cost_little_and_are_cut_after_30_s(tmp_path: Path) -> None:
    count, requests = short_or_full((10, 40), (50, 40))
    with running_server(tmp_path / "state", *SERVED) as server:
        headers = await opened_session(server)
        async with server.mcp() as client:
            task_id = (await answer(client, "run_command", command="seq 100000", wait_ms=5_000))["task_id"]
            before, others = Held.by(server), connections_of(server)
            async with AsyncExitStack() as stack:
                for number in range(count):
                    raw = await stack.enter_async_context(
                        await anyio.connect_tcp("127.0.0.1", server.port, local_host="127.0.0.1")
                    )
                    for each in range(requests):
                        await raw.send(posted(headers, number * requests + each, task_id))

                async def all_in() -> bool:
                    return connections_of(server) >= others + count

                async def cut() -> bool:
                    assert Held.by(server).memory < before.memory + 256 * MEGABYTE
                    return connections_of(server) <= others

                await eventually(all_in, "all of them are let in", 20)
                began = anyio.current_time()

                await eventually(cut, "all of them are cut", 60)
                assert anyio.current_time() - began > 20
            assert (await answer(client, "get_result", task_id=task_id))["stdout"]


def connections_of(server: HttpServer) -> int:
    """How many connections the server has taken and not closed."""
    found = psutil.Process(server.process.pid).net_connections(kind="tcp")
    return sum(each.status != psutil.CONN_LISTEN for each in found)


def posted(headers: dict[str, str], number: int, task_id: str) -> bytes:
    """A request for a long answer, as bytes of HTTP/1.1."""
    body = httpx2.Request("POST", "http://here/", json=request_for(number, task_id)).content
    lines = [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Authorization: Bearer {TOKEN}", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    return ("POST /mcp HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode() + body


def request_for(number: int, task_id: str) -> dict[str, Any]:
    return called(number + 1, "get_result", task_id=task_id, limit=262_144, encoding="base64")
