"""Many at once: memory per running task, and a restart in a store that is full."""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import psutil

from mcp_tasks.bench.place import Place
from mcp_tasks.bench.samples import Limit, Measure, Samples, in_turns
from mcp_tasks.connection import Connection

__all__ = ["NotMeasurable", "measure_restart", "measure_running_memory"]

AT_ONCE = 16


class NotMeasurable(Exception):
    """This platform does not tell what the measure needs."""


async def measure_running_memory(place: Place) -> list[Measure]:
    """What a running task costs beside its command: everything of ours, shared pages in proportion.

    The server, its launcher and all supervisors are counted with one task running and again with all.
    """
    if sys.platform != "linux":
        raise NotMeasurable("proportional memory (PSS) is told on Linux only")
    count = place.count(300, 20)
    # An argument that no other process has, to find the commands in the kernel's list.
    nap = ["sleep", f"600.{secrets.randbelow(10**9):09}"]

    async with place.server("running") as server:
        ids: list[str] = []
        try:
            ids.append(await _start(server, nap))
            before = _proportional(server.pid, nap)
            took = await _start_many(server, nap, ids, count)
            after = _proportional(server.pid, nap)
        finally:
            with anyio.CancelScope(shield=True):
                ended = await _end(server, ids)
    per_task = (sum(after.values()) - sum(before.values())) / (count - 1) / 1e6
    server_part = (after[server.pid] - before[server.pid]) / (count - 1) / 1e6
    title = f"memory (PSS) per running task, {count} running"
    note = f"of it in the server {server_part:.2f} MB; cancelled and cleared in {ended:.1f} s"
    return [
        Measure("running_memory", title, "MB", Samples((per_task,)), limit=Limit("at_most", 1.5), note=note),
        Measure("running_start", f"{count} tasks started, {AT_ONCE} calls at a time", "s", Samples((took,))),
    ]


async def _start(server: Connection, argv: list[str]) -> str:
    view = await server.call("run_command", command=argv, wait_ms=0)
    if view["state"] != "running":
        raise RuntimeError(f"{argv} is {view['state']}")
    return str(view["task_id"])


async def _start_many(server: Connection, argv: list[str], ids: list[str], count: int) -> float:
    places = anyio.CapacityLimiter(AT_ONCE)

    async def one() -> None:
        async with places:
            ids.append(await _start(server, argv))

    began = time.perf_counter()
    async with anyio.create_task_group() as starts:
        for _ in range(count - len(ids)):
            starts.start_soon(one)
    return time.perf_counter() - began


async def _end(server: Connection, ids: list[str]) -> float:
    began = time.perf_counter()
    await server.call("cancel_task", task_ids=ids, grace_ms=2_000)
    answer = await server.call("clear_task", all_finished=True)
    if set(answer["cleared"]) != set(ids):
        raise RuntimeError(f"of {len(ids)} cancelled tasks {len(answer['cleared'])} were cleared")
    return time.perf_counter() - began


def _proportional(server: int, argv: list[str]) -> dict[int, int]:
    """PSS in bytes of the server and of everything between it and the commands, by pid."""
    ours = {server}
    for process in psutil.process_iter(["cmdline"]):
        if process.info["cmdline"] == argv:
            supervisor = process.parent()
            launcher = supervisor.parent() if supervisor else None
            ours |= {p.pid for p in (supervisor, launcher) if p is not None and _is_ours(p)}
    return {pid: _pss(pid) for pid in ours}


def _is_ours(process: psutil.Process) -> bool:
    # An orphan's parent may be init, or whatever stands in for it.
    return process.pid not in {1, psutil.Process().pid} and process.exe() == _executable()


def _executable() -> str:
    return psutil.Process().exe()


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise NotMeasurable(f"the kernel tells no PSS of process {pid}")


async def measure_restart(place: Place) -> list[Measure]:
    """From the start of a server process until its first answer, in a full and in an empty store."""
    newest, older = await place.many()
    settled = 0

    async def started(name: str, tool: str, **arguments: Any) -> float:
        began = time.perf_counter_ns()
        async with place.server(name) as server:
            await server.call(tool, **arguments)
            return (time.perf_counter_ns() - began) / 1e6

    async def empty() -> float:
        nonlocal settled
        settled += 1
        return await started(f"empty-{settled}", "list_tasks")

    taken = await in_turns(
        place.count(7, 1),
        {
            "empty": empty,
            "many": lambda: started("many", "poll_task", task_id=newest),
            "list": lambda: started("many", "list_tasks"),
        },
    )
    title = f"restart with {len(older):,} finished tasks: first answer"
    floor = "an empty start"
    return [
        Measure(
            "restart",
            f"{title}, poll_task",
            "ms",
            taken["many"],
            taken["empty"],
            floor,
            Limit("ratio_at_most", 1.5),
        ),
        Measure("restart_list", f"{title}, list_tasks", "ms", taken["list"], taken["empty"], floor),
    ]
