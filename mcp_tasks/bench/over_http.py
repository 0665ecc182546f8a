"""The same over HTTP: how long a client waits, and how much longer when two hundred others are there."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_tasks.bench import floors
from mcp_tasks.bench.latency import finished, start_of
from mcp_tasks.bench.place import MAX_RUNNING, Place
from mcp_tasks.bench.samples import Limit, Measure, Samples, in_turns, milliseconds
from mcp_tasks.connection import Connection, serve_command, surroundings

__all__ = ["measure_http"]

_TOKEN: Final = secrets.token_urlsafe(32)
_START_S: Final = 30.0
_END_S: Final = 10.0
_LINE: Final = "listening on "


async def measure_http(place: Place) -> list[Measure]:
    """Start and poll over HTTP, with F and T over HTTP, and a poll beside a load of clients."""
    async with _ours(place) as (server, url), _trivial(place) as trivial:
        task_id = (await server.call("run_command", command="echo finished"))["task_id"]
        await finished(server, task_id)
        start = await start_of(place, server, trivial, "http_start", "HTTP: start, answered and exec'd")
        taken = await in_turns(
            place.count(300, 10),
            {
                "t": floors.trivial_call(trivial),
                "poll": milliseconds(lambda: server.call("poll_task", task_id=task_id)),
            },
        )
        idle = await _slowest(place, server, task_id)
        clients = place.count(200, 5)
        with _load(place, url, clients):
            loaded = await _slowest(place, server, task_id)
    return [
        Measure("http_trivial", "HTTP: T, a trivial tool, same SDK", "ms", taken["t"]),
        start,
        Measure(
            "http_poll",
            "HTTP: poll, 1 finished task",
            "ms",
            taken["poll"],
            taken["t"],
            "T over HTTP",
            Limit("ratio_at_most", 1.3),
        ),
        Measure(
            "http_load",
            f"HTTP: p99 of a poll beside {clients} busy clients",
            "ms",
            loaded,
            idle,
            "p99 of a poll alone",
            note="they start commands, poll and leave in the middle of a call, on the same cores",
        ),
    ]


async def _slowest(place: Place, server: Connection, task_id: str) -> Samples:
    """The slowest of each hundred polls in a row, in ms."""
    sample = milliseconds(lambda: server.call("poll_task", task_id=task_id))
    blocks = range(place.count(10, 2))
    return Samples(tuple([max([await sample() for _ in range(place.count(100, 5))]) for _ in blocks]))


@asynccontextmanager
async def _ours(place: Place) -> AsyncIterator[tuple[Connection, str]]:
    command = serve_command(place.folder / "http", "--max-running", str(MAX_RUNNING))
    command[command.index("stdio")] = "http"
    options = ["--port", "0", "--requests-per-second", "0"]
    async with _listening(place, "http", [*command, *options]) as (connection, url):
        yield connection, url


@asynccontextmanager
async def _trivial(place: Place) -> AsyncIterator[Connection]:
    command = [sys.executable, "-P", str(Path(__file__).with_name("floor_server.py")), "http"]
    async with _listening(place, "trivial", command) as (connection, _):
        yield connection


@asynccontextmanager
async def _listening(
    place: Place, name: str, command: Sequence[str]
) -> AsyncIterator[tuple[Connection, str]]:
    """A server that says where it listens, a client of it, and where that is."""
    log = place.folder / f"{name}.log"
    with _process(command, place, log) as process:
        url = await anyio.to_thread.run_sync(_announced, log, process)
        headers = {"Authorization": f"Bearer {_TOKEN}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            yield Connection(client, process.pid), url


@contextmanager
def _load(place: Place, url: str, clients: int) -> Iterator[None]:
    """Clients in a process of their own that are at it for as long as the block lasts."""
    command = [sys.executable, "-m", "mcp_tasks.bench.http_clients", url, str(clients)]
    log = place.folder / "clients.log"
    with _process(command, place, log) as process:
        _announced(log, process)
        yield


@contextmanager
def _process(command: Sequence[str], place: Place, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MCP_TASKS_")}
    environment = {**inherited, **surroundings(place.settings), "MCP_TASKS_TOKEN": _TOKEN}
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _announced(log: Path, process: subprocess.Popen[bytes]) -> str:
    """What a process says after `listening on`. Raises RuntimeError where it has ended or says nothing."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines(keepends=True):
            if line.startswith(_LINE) and line.endswith("\n"):
                return line.removeprefix(_LINE).strip()
        time.sleep(0.01)
    raise RuntimeError(f"{process.args!r} does not say where it listens: {log.read_text()[-500:]}")
