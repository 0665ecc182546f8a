"""The main job on real input, told as it happens: a long command outlives a time-out and a `kill -9`.

Everything is done as any MCP client does it, over stdio. What the server says is compared with what can
be known without it: the output with the bytes that the command must print, the work with the files that it
leaves on disk, the processes with the kernel's list of them.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import psutil
from mcp.shared.exceptions import MCPError
from rich.console import Console
from rich.text import Text

from mcp_tasks.connection import CallTimedOut, Connection, ToolRefused, connect, serve_command, surroundings
from mcp_tasks.demo.work import Work, WorkNotPossible, plan_work, processes_naming

__all__ = ["demo"]

PATIENCE_SECONDS = 1.5
ALL_IN_ALL_SECONDS = 170.0
PAGE_BYTES = 262_144
SERVER_LOG = "server.log"


class DemoFailed(Exception):
    """Something that the demonstration is there to show did not happen."""


def demo(directory: Path | None = None) -> int:
    """Run the demonstration and tell it on stdout.

    Args:
        directory: An existing folder to work in; the system's temporary folder by default. What the
            demonstration makes there is removed at the end.

    Returns:
        0 when everything happened that should, 1 otherwise (the step that failed is named on stdout).
    """
    place = tempfile.mkdtemp(prefix="mcp-tasks-demo-", dir=directory)
    return anyio.run(_demo, Path(os.path.realpath(place)))


async def _demo(place: Path) -> int:
    teller = Teller()
    try:
        with anyio.fail_after(ALL_IN_ALL_SECONDS):
            await _tell(teller, place)
    except (DemoFailed, WorkNotPossible, ToolRefused, CallTimedOut, MCPError, TimeoutError, OSError) as error:
        teller.failure(str(error) or type(error).__name__, _last_lines(place / SERVER_LOG))
        return 1
    finally:
        _end_processes(place)
        shutil.rmtree(place, ignore_errors=True)
    teller.say("Everything that was to be shown has happened; nothing is left behind.", "bold green")
    return 0


class Teller:
    """Says what happens, each line with the seconds since the start."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()
        self._step = "preparing"

    def step(self, name: str) -> None:
        """Begin the next step."""
        self._step = name
        self._console.print()
        self.say(name, "bold")

    def say(self, text: str, style: str = "") -> None:
        """Say one line."""
        seconds = time.monotonic() - self._began
        self._console.print(Text.assemble((f"{seconds:5.1f} s  ", "dim"), (text, style)))

    def failure(self, reason: str, log: list[str]) -> None:
        """Name the step that went wrong, say why, and what the server logged last."""
        self.say(f"FAILED at the step: {self._step}", "bold red")
        self.say(reason, "red")
        for line in log:
            self.say(f"    server: {line}")


async def _tell(teller: Teller, place: Path) -> None:
    teller.step("1. A real MCP client starts a long command")
    work = plan_work(place)
    teller.say(
        f"The work: compile {work.modules:,} modules of Python's standard library, "
        f"{_times(work.passes)}, into a temporary folder."
    )
    async with _server(place) as server:
        teller.say(
            f"The server is process {server.pid}; MCP revision {server.client.protocol_version}, stdio."
        )
        answer = await server.call(
            "run_command",
            command=work.script,
            env={"PYTHONUTF8": "1"},
            wait_ms=0,
            label="demo",
            session="demo",
        )
        task: dict[str, Any] = {"task_id": str(answer["task_id"]), "session": "demo"}
        _check(answer["state"] == "running", f"the task is {answer['state']}, not running")
        teller.say(f"run_command answered at once: task {task['task_id']}, running.")
        await _time_out(teller, server, task)
        command = await _kill(teller, server, work)

    teller.step("4. While no server lives, the command works on")
    await _works_alone(teller, work, command)

    async with _server(place) as server:
        teller.step("5. A new server on the same state directory")
        teller.say(f"The server is process {server.pid} now. It is asked for the task of the dead one.")
        await _poll_to_the_end(teller, server, task)
        await _show_result(teller, server, task, work)
        await _clear(teller, server, task, place)
    await _until(lambda: not processes_naming(place), 10.0, "a process was left behind")


@asynccontextmanager
async def _server(place: Path) -> AsyncIterator[Connection]:
    command = serve_command(place / "state")
    # A file of its own, not this process's stderr: whoever started the demo may have closed that.
    with (place / SERVER_LOG).open("a") as log:
        async with connect(command, surroundings(place / "settings"), errors=log) as server:
            yield server


async def _time_out(teller: Teller, server: Connection, task: dict[str, Any]) -> None:
    teller.step("2. A call of the client times out")
    teller.say(f"poll_task is to wait 20 s for the end; this client gives up after {PATIENCE_SECONDS} s.")
    try:
        early = await server.call("poll_task", PATIENCE_SECONDS, **task, wait_ms=20_000)
    except CallTimedOut as error:
        teller.say(f"As it should: {error}.")
    else:
        raise DemoFailed(f"the call did not time out, it answered that the task is {early['state']}")
    view = await server.call("poll_task", 10.0, **task, show="none")
    _check(view["state"] == "running", f"after the time-out the task is {view['state']}, not running")
    teller.say(f"The task does not mind: still running, {view['stdout_bytes']:,} bytes of output so far.")


async def _kill(teller: Teller, server: Connection, work: Work) -> list[psutil.Process]:
    teller.step("3. The server is killed with kill -9")
    command = work.processes()
    _check(bool(command), "no process of the command is to be found")
    os.kill(server.pid, signal.SIGKILL)
    await _until(lambda: not _alive(server.pid), 10.0, "the server did not die of SIGKILL")
    teller.say(f"Process {server.pid} is dead.")
    survivors = [process for process in command if process.is_running()]
    _check(bool(survivors), "the command died with the server")
    teller.say(f"Of the command, these live: {_described(survivors)}.")
    return survivors


async def _works_alone(teller: Teller, work: Work, command: list[psutil.Process]) -> None:
    before = work.files_written()
    more = max(1, work.modules // 20)
    await _until(lambda: work.files_written() >= before + more, 30.0, "the command does nothing any more")
    teller.say(f"Compiled modules on disk: {before:,} at the kill, {work.files_written():,} now.")
    _check(
        any(process.is_running() for process in command), "the command ended before a server was there again"
    )


async def _poll_to_the_end(teller: Teller, server: Connection, task: dict[str, Any]) -> None:
    view = await server.call("poll_task", 20.0, **task, show="none")
    # On a slow machine the command may be over before the server is there.
    _check(view["state"] in {"running", "completed"}, f"the new server says {view['state']}")
    teller.say(f"It knows the task: {view['state']}, {view['stdout_bytes']:,} bytes of output so far.")
    while view["state"] == "running":
        view = await server.call("poll_task", 20.0, **task, wait_ms=2_000, show="none")
        teller.say(
            f"poll_task: {view['state']} after {view['elapsed_ms'] / 1000:.1f} s, "
            f"{view['stdout_bytes']:,} bytes of output."
        )


async def _show_result(teller: Teller, server: Connection, task: dict[str, Any], work: Work) -> None:
    teller.step("6. The complete result")
    view = await server.call("get_result", **task)
    _check(view.get("exit_code") == 0, f"the exit code is {view.get('exit_code')}, state {view['state']}")
    teller.say(f"State {view['state']}, outcome {view['outcome']}, exit code {view['exit_code']}.")
    output = await _read_stdout(server, task, int(view["stdout_bytes"]))
    _check(output == work.expected, _first_difference(output, work.expected))
    teller.say(
        f"Output: {len(output):,} bytes, each as it had to be; {view['stderr_bytes']:,} bytes on stderr."
    )
    for line in (output[: output.index(b"\n")], output.rstrip(b"\n").rpartition(b"\n")[2]):
        teller.say(f"    {line.decode()}", "cyan")
    written = work.files_written()
    _check(written == work.modules * work.passes, f"{written} compiled modules on disk")
    teller.say(f"Compiled modules on disk: {written:,} = {work.modules:,} modules, {_times(work.passes)}.")
    _check(view.get("run", 1) == 1, f"the command was run {view.get('run')} times")
    teller.say("History:")
    states = []
    for change in view["history"]:
        states.append(change["state"])
        teller.say(f"    {change['at']}  {change['state']:<10} {change.get('reason') or ''}".rstrip(), "cyan")
    _check(states[-2:] == ["running", "completed"], f"the history is {states}")


async def _read_stdout(server: Connection, task: dict[str, Any], size: int) -> bytes:
    parts = []
    for offset in range(0, size, PAGE_BYTES):
        page = await server.call(
            "get_result", **task, stream="stdout", offset=offset, limit=PAGE_BYTES, encoding="base64"
        )
        parts.append(base64.b64decode(page["stdout"]))
    return b"".join(parts)


async def _clear(teller: Teller, server: Connection, task: dict[str, Any], place: Path) -> None:
    teller.step("7. Cleaning up")
    answer = await server.call("clear_task", **task)
    _check(answer["cleared"] == [task["task_id"]], f"clear_task answered {answer}")
    try:
        await server.call("poll_task", **task)
    except ToolRefused as refused:
        _check(refused.code == "task_not_found", str(refused))
    else:
        raise DemoFailed("a cleared task is still there")
    left = [path for path in (place / "state").rglob("*") if task["task_id"] in path.name]
    _check(not left, f"clear_task left {left[:1]}")
    teller.say(f"The task is cleared, {answer['freed_bytes']:,} bytes are free again.")


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoFailed(otherwise)


async def _until(predicate: Callable[[], bool], seconds: float, otherwise: str) -> None:
    with anyio.move_on_after(seconds):
        while not predicate():  # noqa: ASYNC110 - what other processes do sets no event here
            await anyio.sleep(0.02)
        return
    raise DemoFailed(f"{otherwise} (waited {seconds:.0f} s)")


def _alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _end_processes(place: Path) -> None:
    # Only after a failure there is something to end: the command, and a server that hangs.
    for process in processes_naming(place):
        with suppress(psutil.Error):
            process.kill()


def _described(processes: list[psutil.Process]) -> str:
    told = []
    for process in processes:
        with suppress(psutil.Error):
            told.append(f"{process.pid} ({process.name()})")
    return ", ".join(told)


def _last_lines(log: Path) -> list[str]:
    with suppress(OSError):
        return log.read_text(errors="replace").splitlines()[-5:]
    return []


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _first_difference(output: bytes, expected: bytes) -> str:
    at = next((i for i, pair in enumerate(zip(output, expected, strict=False)) if pair[0] != pair[1]), None)
    where = f"differs at byte {at}" if at is not None else "ends at another place"
    return f"the output is {len(output)} bytes where {len(expected)} were expected, and {where}"
