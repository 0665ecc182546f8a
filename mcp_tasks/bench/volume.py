"""Large output: how fast it is kept, what it costs the server, how fast a client reads it."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil

from mcp_tasks.bench import floors
from mcp_tasks.bench.latency import FINAL_WAIT_MS, finished
from mcp_tasks.bench.place import Place
from mcp_tasks.bench.samples import Limit, Measure, Samples, in_turns
from mcp_tasks.connection import Connection

__all__ = ["measure_paging", "measure_throughput"]

_RANDOM = (
    "import random, sys; sys.stdout.buffer.write(random.Random(int(sys.argv[1])).randbytes(int(sys.argv[2])))"
)
_SEED = 11
_PAGE_BYTES = 262_144


async def measure_throughput(place: Place) -> list[Measure]:
    """A command's output through a task, beside the same command with its output to a file.

    The time of the task ends with the answer that says `completed`, which is given when output and
    exit record are on disk; `cmd > file` is not asked to be on disk, `cmd > file; fsync` is.
    """
    size = place.count(1_000_000_000, 20_000_000)
    command = f"head -c {size} /dev/zero"
    output = place.folder / "output"
    growth: list[float] = []

    async def to_file(*, durable: bool) -> float:
        began = time.perf_counter()
        subprocess.run(f"{command} > {output}", shell=True, check=True)  # noqa: ASYNC221 - the floor
        if durable:
            _fsync(output)
        passed = time.perf_counter() - began
        output.unlink()
        return size / passed / 1e6

    async with place.server("throughput") as server:

        async def through_a_task() -> float:
            before = _resident(server.pid)
            began = time.perf_counter()
            view = await server.call("run_command", command=command, wait_ms=FINAL_WAIT_MS, show="none")
            if view["state"] == "running":
                view = await finished(server, view["task_id"])
            passed = time.perf_counter() - began
            if view["state"] != "completed" or view["stdout_bytes"] != size:
                raise RuntimeError(f"{command}: {view}")
            await server.call("get_result", task_id=view["task_id"])
            growth.append((_peak(server.pid) - before) / 1e6)
            await server.call("clear_task", task_id=view["task_id"])
            return size / passed / 1e6

        await _warm(server)
        taken = await in_turns(
            place.count(5, 1),
            {
                "file": lambda: to_file(durable=False),
                "durable": lambda: to_file(durable=True),
                "task": through_a_task,
            },
        )
    what = f"{size / 1e9:g} GB of output"
    return [
        Measure(
            "throughput",
            f"throughput, {what}",
            "MB/s",
            taken["task"],
            taken["file"],
            "cmd > file",
            Limit("ratio_at_least", 0.8),
            f"cmd > file; fsync: {taken['durable'].median:,.0f} MB/s",
        ),
        Measure(
            "server_memory",
            f"server's peak memory grown after {what}",
            "MB",
            # The first task tells the most: the peak never comes down again.
            Samples((max(growth),)),
            limit=Limit("at_most", 16.0),
        ),
    ]


async def _warm(server: Connection) -> None:
    """Have everything loaded that the first task needs, so that only the output is counted."""
    view = await server.call("run_command", command="echo warm", wait_ms=FINAL_WAIT_MS)
    await server.call("get_result", task_id=view["task_id"])
    await server.call("clear_task", task_id=view["task_id"])


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def _resident(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def _peak(pid: int) -> int:
    """The most memory that a process ever had resident, in bytes; what it has now where none is told."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return _resident(pid)


async def measure_paging(place: Place) -> list[Measure]:
    """Read 50 MB through get_result in base64, page by page in turns with pages of the trivial server."""
    size = place.count(50_000_000, 2_000_000)
    argv = [sys.executable, "-I", "-S", "-c", _RANDOM, str(_SEED), str(size)]
    whole = hashlib.sha256(random.Random(_SEED).randbytes(size)).digest()  # noqa: S311 - made to be repeated
    received = hashlib.sha256()
    ours: list[float] = []
    bare: list[float] = []

    async with place.server("paging") as server, floors.trivial_server() as trivial:
        view = await server.call("run_command", command=argv, wait_ms=FINAL_WAIT_MS, show="none")
        view = await finished(server, view["task_id"])
        if view["stdout_bytes"] != size:
            raise RuntimeError(f"{size} bytes were written, and {view['stdout_bytes']} kept")
        page = {"task_id": view["task_id"], "stream": "stdout", "limit": _PAGE_BYTES, "encoding": "base64"}
        for offset in range(0, size, _PAGE_BYTES):
            began = time.perf_counter()
            answer = await server.call("get_result", **page, offset=offset)
            data = base64.b64decode(answer["stdout"])
            ours.append(time.perf_counter() - began)
            received.update(data)
            began = time.perf_counter()
            answer = await trivial.call("page_of_base64", limit=len(data))
            base64.b64decode(answer["stdout"])
            bare.append(time.perf_counter() - began)
    if received.digest() != whole:
        raise RuntimeError("the pages are not the bytes that the command wrote")
    return [
        Measure(
            "paging",
            f"get_result, {size / 1e6:g} MB in base64 pages, bytes compared",
            "s",
            Samples((sum(ours),)),
            Samples((sum(bare),)),
            "the same pages from a trivial tool",
            Limit("at_most", 1.2),
        )
    ]
