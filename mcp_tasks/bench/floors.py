"""The floors: what the parts of a task cost where nothing is done with them."""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import mcp_types

from mcp_tasks.bench.samples import Sample, milliseconds
from mcp_tasks.connection import Connection, connect

__all__ = [
    "bare_wake_up",
    "durable_commit",
    "durable_record",
    "last_act",
    "new_folder",
    "ping",
    "since",
    "spawn",
    "trivial_call",
    "trivial_server",
]

TASK_ID = "0123456789abcdefghijklmnopqrstuvwxyz"
RECORD = b"x" * 1024

_LAST_ACT = (
    "import os, sys, time; time.sleep(0.15);"
    "fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o600);"
    "os.write(fd, str(time.monotonic_ns()).encode()); os._exit(0)"
)


@asynccontextmanager
async def trivial_server(mode: str = "auto") -> AsyncIterator[Connection]:
    """A server of the same SDK, over the same transport, whose tools do nothing."""
    # As a script, and without its folder on the path (-P): it knows nothing of this package.
    command = [sys.executable, "-P", str(Path(__file__).with_name("floor_server.py"))]
    async with connect(command, _path(), mode=mode) as server:
        yield server


def _path() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}


def trivial_call(server: Connection) -> Sample:
    """T: one call of a tool that does nothing, in ms."""
    return milliseconds(lambda: server.call("nothing", task_id=TASK_ID))


def ping(server: Connection) -> Sample:
    """The SDK's own ping, in ms. The 2026 revision of the protocol has none: `mode` must be legacy."""
    return milliseconds(
        lambda: server.client.session.send_request(mcp_types.PingRequest(), mcp_types.EmptyResult)
    )


def spawn(folder: Path, argv: tuple[str, ...] = ("true",)) -> Sample:
    """A bare spawn with the output to a file, in ms until the program has been exec'd."""
    output = folder / "spawned"

    async def sample() -> float:
        began = time.perf_counter_ns()
        with output.open("wb") as file:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file)  # noqa: ASYNC220 - the floor
        ended = time.perf_counter_ns()
        process.wait()
        return (ended - began) / 1e6

    return sample


def durable_record(folder: Path) -> Sample:
    """One record written as it has to be: write, fsync, rename, fsync of the folder; in ms."""
    temporary, record = folder / "record.tmp", folder / "record"

    async def sample() -> float:
        began = time.perf_counter_ns()
        fd = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.write(fd, RECORD)
        os.fsync(fd)
        os.close(fd)
        os.rename(temporary, record)
        fd = os.open(folder, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        return (time.perf_counter_ns() - began) / 1e6

    return sample


@contextmanager
def durable_commit(folder: Path, record: bytes = RECORD) -> Iterator[Sample]:
    """One row committed by a bare SQLite connection that is as durable: WAL, full sync; in ms."""
    with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as database:
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        database.execute("create table if not exists record (data blob)")

        async def sample() -> float:
            began = time.perf_counter_ns()
            database.execute("insert into record values (?)", (record,))
            return (time.perf_counter_ns() - began) / 1e6

        yield sample


def new_folder(parent: Path) -> Sample:
    """One more folder, in ms: a task has a folder of its own, so what this costs it costs each task."""
    parent.mkdir()
    names = itertools.count()

    async def sample() -> float:
        began = time.perf_counter_ns()
        (parent / str(next(names))).mkdir()
        return (time.perf_counter_ns() - began) / 1e6

    return sample


def last_act(stamp: Path) -> list[str]:
    """A command that takes 150 ms and whose last act is to write its monotonic clock to a file."""
    return [sys.executable, "-I", "-S", "-c", _LAST_ACT, str(stamp)]


def since(stamp: Path) -> float:
    """Milliseconds from the moment in such a file until now. Removes the file."""
    now = time.monotonic_ns()
    written = int(stamp.read_bytes())
    stamp.unlink()
    return (now - written) / 1e6


def bare_wake_up(folder: Path) -> Sample:
    """From a process's last act until its parent, waiting for nothing else, knows; in ms."""
    stamp = folder / "bare-stamp"

    async def sample() -> float:
        process = subprocess.Popen(last_act(stamp))  # noqa: ASYNC220 - the floor is a plain parent
        process.wait()
        return since(stamp)

    return sample
