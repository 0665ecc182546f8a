"""How long a client waits: start, poll, wake-up after exit, echo."""

from __future__ import annotations

import random
import subprocess
import time
from typing import Any

import anyio.lowlevel

from mcp_tasks.bench import floors
from mcp_tasks.bench.place import Place
from mcp_tasks.bench.samples import Limit, Measure, Samples, in_turns, milliseconds
from mcp_tasks.connection import Connection

__all__ = ["finished", "measure_echo", "measure_poll", "measure_start", "measure_wake_up", "start_of"]

FINAL_WAIT_MS = 20_000

_F = "F = T + spawn + record"
_T = "T, a trivial tool"


async def finished(server: Connection, task_id: str) -> dict[str, Any]:
    """The view of a task after its end. Raises RuntimeError where it has not completed."""
    view = await server.call("poll_task", task_id=task_id, wait_ms=FINAL_WAIT_MS)
    while view["state"] in {"pending", "running"}:
        view = await server.call("poll_task", task_id=task_id, wait_ms=FINAL_WAIT_MS)
    if view["state"] != "completed":
        raise RuntimeError(f"task {task_id} is {view['state']}: {view}")
    return view


async def measure_start(place: Place) -> list[Measure]:
    """See `start_of`."""
    async with place.server("start") as server, floors.trivial_server() as trivial:
        return [await start_of(place, server, trivial, "start", "start: answered and exec'd")]


async def start_of(place: Place, server: Connection, trivial: Connection, name: str, title: str) -> Measure:
    """From the call until it is answered and the command has been exec'd, whichever is later.

    The command tells the moment at which it runs; the time that it needs from its exec until then
    is measured beside it, on a bare spawn, and taken off.

    Args:
        place: Where.
        server: What is measured.
        trivial: The floor of a call, over the same transport.
        name: Of the measure.
        title: Of the measure.
    """
    argv = _clock()
    answered: list[float] = []
    ran: list[float] = []
    own: list[float] = []

    async def start() -> float:
        began = time.time_ns()
        answer = await server.call("run_command", command=argv, wait_ms=0)
        answered.append((time.time_ns() - began) / 1e6)
        view = await finished(server, answer["task_id"])
        ran.append((_moment(view["stdout"], began) - began) / 1e6)
        return answered[-1]

    async def own_start() -> float:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)  # noqa: ASYNC220 - as the floor does
        execd = time.time_ns()
        output, _ = process.communicate()
        own.append((_moment(output.decode(), execd) - execd) / 1e6)
        return own[-1]

    taken = await in_turns(
        place.count(200, 10),
        {
            "t": floors.trivial_call(trivial),
            "spawn": floors.spawn(place.folder),
            "record": floors.durable_record(place.folder),
            "start": start,
            "own": own_start,
        },
    )
    floor = Samples.sums(taken["t"], taken["spawn"], taken["record"])
    own_ms = taken["own"].median
    count = len(taken["start"].values)
    both = Samples(
        tuple(max(answer, run - own_ms) for answer, run in zip(answered[-count:], ran[-count:], strict=True))
    )
    note = f"answered after {taken['start'].median:.2f} ms"
    return Measure(name, title, "ms", both, floor, _F, Limit("ratio_at_most", 1.5), note)


def _clock() -> list[str]:
    """A command that prints the time in nanoseconds as its first act; `true` where there is none."""
    argv = ["date", "+%s%N"]
    printed = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    return argv if printed.isdigit() else ["true"]


def _moment(printed: str, otherwise: int) -> int:
    return int(printed) if printed.strip().isdigit() else otherwise


async def measure_poll(place: Place) -> list[Measure]:
    """A poll of a finished task, in a store with one task and in a store with many."""
    few_id, _ = await place.few()
    many_id, old_ids = await place.many()
    chosen = random.Random(5)  # noqa: S311 - which task is polled is no secret

    async with (
        place.server("few") as few,
        place.server("many") as many,
        floors.trivial_server() as trivial,
        floors.trivial_server("legacy") as legacy,
    ):
        taken = await in_turns(
            place.count(300, 10),
            {
                "t": floors.trivial_call(trivial),
                "ping": floors.ping(legacy),
                "one": milliseconds(lambda: few.call("poll_task", task_id=few_id)),
                "many": milliseconds(lambda: many.call("poll_task", task_id=many_id)),
                "old": milliseconds(lambda: many.call("poll_task", task_id=chosen.choice(old_ids))),
            },
        )
        # By itself: a long call would disturb the short ones that are sampled in turns with it.
        listed = await in_turns(
            place.count(20, 3),
            {
                "t": floors.trivial_call(trivial),
                "list": milliseconds(lambda: many.call("list_tasks")),
            },
        )
    total = f"{len(old_ids):,}"
    return [
        Measure(
            "trivial",
            "T: a trivial tool, same SDK and transport",
            "ms",
            taken["t"],
            taken["ping"],
            "SDK ping",
        ),
        Measure(
            "poll", "poll, 1 finished task", "ms", taken["one"], taken["t"], _T, Limit("ratio_at_most", 1.3)
        ),
        Measure(
            "poll_many",
            f"poll, {total} finished tasks",
            "ms",
            taken["many"],
            taken["one"],
            "poll with 1",
            Limit("ratio_at_most", 1.1),
            f"{taken['many'].median / taken['t'].median:.2f} x T",
        ),
        Measure("poll_old", f"poll, any of {total}", "ms", taken["old"], taken["t"], _T),
        Measure("list_many", f"list_tasks, newest 20 of {total}", "ms", listed["list"], listed["t"], _T),
    ]


async def measure_wake_up(place: Place) -> list[Measure]:
    """From the last act of a command until the poll_task that waits for its end has been answered."""
    stamp = place.folder / "stamp"

    async with place.server("wake") as server:

        async def wake_up() -> float:
            answer = await server.call("run_command", command=floors.last_act(stamp), wait_ms=0)
            view = await server.call("poll_task", task_id=answer["task_id"], wait_ms=FINAL_WAIT_MS)
            passed = floors.since(stamp)
            if view["state"] != "completed":
                raise RuntimeError(f"the wait ended while the task is {view['state']}")
            return passed

        taken = await in_turns(
            place.count(30, 3), {"bare": floors.bare_wake_up(place.folder), "wake": wake_up}
        )
    return [
        Measure(
            "wake_up",
            "wake-up: last act of the command to answer",
            "ms",
            taken["wake"],
            taken["bare"],
            "a parent's bare wait()",
            Limit("at_most", 6.0),
        )
    ]


async def measure_echo(place: Place) -> list[Measure]:
    """From `run_command 'echo hi'` until its output and its exit code are in hand."""
    async with place.server("echo") as server, floors.trivial_server() as trivial:

        async def echo() -> float:
            began = time.perf_counter_ns()
            view = await server.call("run_command", command="echo hi", wait_ms=FINAL_WAIT_MS)
            passed = (time.perf_counter_ns() - began) / 1e6
            if view["state"] != "completed" or view["stdout"] != "hi\n":
                raise RuntimeError(f"`echo hi` answered {view}")
            await anyio.lowlevel.checkpoint()
            return passed

        taken = await in_turns(
            place.count(150, 10),
            {
                "t": floors.trivial_call(trivial),
                "spawn": floors.spawn(place.folder),
                "record": floors.durable_record(place.folder),
                "folder": floors.new_folder(place.folder / "folders"),
                "echo": echo,
            },
        )
    floor = Samples.sums(taken["t"], taken["spawn"], taken["record"])
    return [
        Measure("spawn", "a bare spawn of `true`", "ms", taken["spawn"]),
        Measure("record", "a durable record", "ms", taken["record"]),
        Measure(
            "folder",
            "a new folder, not synced",
            "ms",
            taken["folder"],
            note="above 0.1 ms the file system is still busy with files that were deleted; measure later",
        ),
        Measure("echo", "echo end to end", "ms", taken["echo"], floor, _F, Limit("ratio_at_most", 2.5)),
    ]
