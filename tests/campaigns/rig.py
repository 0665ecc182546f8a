"""Real servers as processes, killed in every way, and an account of what their tasks have done.

The whole of every campaign: `MCP_TASKS_CAMPAIGN=full pytest -m campaign --timeout 7200`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

import anyio
import psutil
from mcp.shared.exceptions import MCPError

from mcp_tasks.connection import CallTimedOut, Connection, connect, serve_command, surroundings
from tests.waiting import wait_until

__all__ = [
    "FULL",
    "GONE",
    "KILLS",
    "Ledger",
    "Work",
    "alive",
    "all_tasks",
    "check",
    "end",
    "gone",
    "server",
    "short_or_full",
    "whole_output",
]

FULL = os.environ.get("MCP_TASKS_CAMPAIGN") == "full"
T = TypeVar("T")

GONE = (MCPError, CallTimedOut, OSError, anyio.ClosedResourceError, anyio.BrokenResourceError)
"""What a client sees of a server that is killed."""


def short_or_full(short: T, full: T) -> T:
    """The size of a campaign: short in every run, full where the environment asks for it."""
    return full if FULL else short


@asynccontextmanager
async def server(
    state: Path, *options: str, env: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()
) -> AsyncIterator[Connection]:
    """A server of its own process on a state directory, and the SDK's client connected to it.

    Args:
        state: The state directory.
        options: Added to `serve`.
        env: Added to its environment.
        prefix: A program that runs the server, with its arguments.
    """
    command = [*prefix, *serve_command(state, *options)]
    around = {**surroundings(state.parent), "MCP_TASKS_MIN_FREE_BYTES": "0", **(env or {})}
    with _log(state.parent) as log:
        async with connect(command, around, errors=log) as connection:
            yield connection


def _log(folder: Path) -> TextIO:
    return open(folder / "servers.log", "a", encoding="utf-8")


async def end(connection: Connection, how: str) -> None:
    """End a server in one of the ways of KILLS, and see it gone."""
    match how:
        case "kill":
            os.kill(connection.pid, signal.SIGKILL)
        case "group":
            group = os.getpgid(connection.pid)
            assert group != os.getpgid(0), "the server is in the process group of the tests"
            os.killpg(group, signal.SIGKILL)
        case "terminate":
            os.kill(connection.pid, signal.SIGTERM)
        case _:
            return  # the client closes stdin when it leaves
    await anyio.to_thread.run_sync(lambda: wait_until(lambda: gone(connection.pid), "the server is gone"))


KILLS = ("kill", "group", "terminate", "close")


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def alive(folder: Path, word: str) -> list[int]:
    """The processes with `word` in their command line and `folder` in their command line or environment."""
    found = []
    for pid in psutil.pids():
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            around = line + Path(f"/proc/{pid}/environ").read_bytes()
            if word.encode() in line and os.fsencode(folder) in around:
                found.append(pid)
    return found


@dataclass(frozen=True)
class Work:
    """One command with a known end and a known output, which leaves a line in its ledger when it runs."""

    number: int
    command: str
    stdout: str
    exit_code: int


class Ledger:
    """Makes commands that note each of their runs, and counts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder

    def work(self, number: int) -> Work:
        """The command of this number: short or longer, quiet or loud, ending well or not."""
        pause = ("", "sleep 0.02; ", "sleep 0.2; ")[number % 3]
        lines = (1, 1, 3_000)[number % 7 % 3]
        command = (
            f"echo ran >> {self._folder}/{number}; {pause}"
            f"seq {number} {number + lines - 1}; exit {number % 4}"
        )
        stdout = "".join(f"{n}\n" for n in range(number, number + lines))
        return Work(number, command, stdout, number % 4)

    def runs(self, number: int) -> int:
        """How often the command of this number has run."""
        try:
            return len((self._folder / str(number)).read_text().split())
        except FileNotFoundError:
            return 0


async def all_tasks(connection: Connection, **options: Any) -> list[dict[str, Any]]:
    """The tasks of a listing, page by page."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await connection.call("list_tasks", limit=1_000, cursor=cursor, **options)
        found += page["tasks"]
        cursor = page.get("next_cursor")
        if cursor is None:
            return found


async def whole_output(connection: Connection, task_id: str) -> str:
    """Everything on stdout, page by page."""
    text, offset = "", 0
    while True:
        page: dict[str, Any] = await connection.call(
            "get_result", task_id=task_id, stream="stdout", offset=offset, limit=50_000
        )
        text += str(page.get("stdout", ""))
        offset = page.get("shown", {}).get("stdout", [0, offset])[1]
        if not page.get("more"):
            return text


async def check(connection: Connection, work: Work, task_id: str) -> None:
    """The task has ended as it had to, and its output is exact."""
    while True:
        view = await connection.call("poll_task", task_id=task_id, wait_ms=20_000, show="none")
        if view["state"] not in ("pending", "running"):
            break
    assert view["outcome"] == "exited", view
    assert view["exit_code"] == work.exit_code, view
    assert await whole_output(connection, task_id) == work.stdout, view
