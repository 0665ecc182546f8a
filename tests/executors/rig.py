"""A local executor, run folders, and ways to look at what it does from outside."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from mcp_tasks.errors import StoreBusy
from mcp_tasks.executors import run_folder
from mcp_tasks.executors.local import LocalExecutor
from mcp_tasks.executors.reservation import LocalReservation
from mcp_tasks.ports import Ended, Gone, Launch, Observation
from tests.waiting import wait_until

__all__ = ["FULL", "Rig", "interpreter"]

FULL = os.environ.get("MCP_TASKS_CAMPAIGN") == "full"
"""Whether the long campaigns are wanted."""

_numbers = itertools.count(1)
_MEASURED = str(Path(__file__).with_name("measured_launcher.py"))


def interpreter(mark: str, *, measured: bool = False) -> tuple[str, ...]:
    """The launcher's Python, with a mark in its command line; measured, if wanted, when the tests are."""
    measure = os.environ.get("COVERAGE_PROCESS_CONFIG")
    if measure and measured:
        return (sys.executable, "-X", mark, _MEASURED, measure)
    return (sys.executable, "-I", "-S", "-X", mark)


class Rig:
    """One server's executor over run folders under `root`; several rigs on one root are several servers."""

    def __init__(self, root: Path, before: Sequence[str] = ()) -> None:
        self.root = root
        self.mark = f"rig-{os.getpid()}-{next(_numbers)}"
        self.executor = LocalExecutor(interpreter=(*before, *interpreter(self.mark, measured=not before)))
        self.slots = root / "slots"
        self.slots.mkdir(exist_ok=True)

    def folder(self) -> Path:
        """A new run folder."""
        folder = self.root / "runs" / f"{os.getpid()}t{next(_numbers)}.1"
        folder.mkdir(parents=True, mode=0o700)
        return folder

    def launch(self, command: str | Sequence[str], **options: Any) -> Launch:
        """A launch of a shell text or of a program with arguments."""
        argv = ("/bin/sh", "-c", command) if isinstance(command, str) else tuple(command)
        env = {**os.environ, "RIG": str(self.root), **options.pop("env", {})}
        env.pop("COVERAGE_PROCESS_CONFIG", None)
        options = {"cwd": str(self.root), "grace_ms": 500, **options}
        return Launch(argv=argv, env=env, **options)

    def start(self, command: str | Sequence[str], folder: Path | None = None, **options: Any) -> Path:
        """Start a command and return its run folder."""
        folder = folder or self.folder()
        self.reserve(folder, self.launch(command, **options)).go()
        return folder

    def reserve(self, folder: Path, launch: Launch, limit: int = 1000) -> LocalReservation:
        """Reserve a run as soon as the run and a place are free, which is soon."""

        def reserved() -> LocalReservation | None:
            with contextlib.suppress(StoreBusy):
                return self.executor.reserve(folder, launch, self.slots, limit)
            return None

        reservation = wait_until(reserved, "the run and a place are free")
        assert reservation is not None
        return reservation

    def run(self, command: str | Sequence[str], timeout: float = 20, **options: Any) -> tuple[Path, Ended]:
        """Start a command and wait for its end."""
        folder = self.start(command, **options)
        return folder, self.end(folder, timeout)

    def settle(self, folder: Path, timeout: float = 20) -> Ended | Gone:
        """Wait until a run is over, however it ended."""
        deadline = time.monotonic() + timeout
        while True:
            seen: Observation = self.executor.observe(folder)
            if isinstance(seen, (Ended, Gone)):
                return seen
            left = deadline - time.monotonic()
            assert left > 0, f"waited {timeout} s until the run was over: {seen}"
            watched = self.executor.watch(folder)
            if watched is not None:
                end = select.poll()
                end.register(watched, select.POLLIN)
                end.poll(left * 1000)
                os.close(watched)

    def end(self, folder: Path, timeout: float = 20) -> Ended:
        """Wait until the exit record is there."""
        seen = self.settle(folder, timeout)
        assert isinstance(seen, Ended), seen
        return seen

    def wait_for_watch(self, watched: int, timeout: float = 10) -> None:
        """Wait until a watch is readable, and close it."""
        end = select.poll()
        end.register(watched, select.POLLIN)
        ready = end.poll(timeout * 1000)
        assert ready, "the watch is readable"
        assert os.read(watched, 1) == b""
        os.close(watched)

    def left(self, folder: Path, timeout: float = 10) -> None:
        """Wait until the supervisor has gone for good, and the run's lock is free."""
        wait_until(lambda: run_folder._is_free(folder), "the supervisor has left", timeout)

    def output(self, folder: Path, stream: str = "stdout") -> bytes:
        """All that is stored of a stream that was kept whole."""
        path = folder / stream
        return path.read_bytes() if path.exists() else b""

    def chunks(self, folder: Path) -> list[tuple[int, int, int]]:
        """The index: (microseconds, stream, length) of each piece."""
        path = folder / "chunks"
        return list(struct.iter_unpack("<QII", path.read_bytes())) if path.exists() else []

    def wait_for_output(self, folder: Path, wanted: bytes, stream: str = "stdout") -> None:
        """Wait until a stream has a text in it."""
        wait_until(lambda: wanted in self.output(folder, stream), f"{wanted!r} is in the {stream}")

    def supervisor(self, folder: Path) -> psutil.Process:
        """The supervisor of a run, which says so itself."""
        wait_until((folder / "started").exists, "the supervisor has said who it is")
        return psutil.Process(json.loads((folder / "started").read_text())["supervisor"])

    def family(self) -> list[psutil.Process]:
        """The launcher, its spare and its supervisors, as long as they live."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self.mark in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def launcher(self) -> psutil.Process:
        """The launcher itself."""
        family = self.family()
        pids = {process.pid for process in family}
        (launcher,) = [process for process in family if process.ppid() not in pids]
        return launcher

    def survivors(self, mark: str) -> list[int]:
        """Living processes that have a word in their command line."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (
                    any(mark in word for word in process.cmdline())
                    and process.pid != os.getpid()
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process.pid)
        return found

    def kill_all(self, mark: str) -> None:
        """Kill what a test left alive on purpose."""
        for pid in self.survivors(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Let the launcher go and see that nothing of it stays."""
        self.executor.close()
        wait_until(lambda: not self.family(), "launcher and supervisors are gone")
