"""The outset of a run: its pipes, its processes' ends, and the command itself. Standard library only."""

from __future__ import annotations

import errno
import os
from typing import Any

from mcp_tasks.executors import wire
from mcp_tasks.executors.capture import STREAMS
from mcp_tasks.executors.exit_record import json_object
from mcp_tasks.executors.feed import Feed
from mcp_tasks.executors.readiness import Readiness
from mcp_tasks.executors.spawning import candidates, fifo, spawn

__all__ = ["Outset", "unlink"]

_PIPES = ("alive", "control", "input")


class Outset:
    """What must be in place before a command starts, and the start. Works in the run folder."""

    def __init__(self, message: dict[str, Any], folder: int, pipes: list[tuple[int, int]]) -> None:
        """Nothing is made yet.

        Args:
            message: The launch.
            folder: Descriptor of the run folder, which is the current one.
            pipes: Reading and writing end of stdout's pipe, then of stderr's.
        """
        self._message = message
        self._folder = folder
        self._pipes = pipes
        self._input: tuple[int, int] | None = None
        self.alive: int | None = None
        self.feed: Feed | None = None
        # Whether what went wrong is that the directory could not be entered.
        self.is_astray = False

    def prepare(self) -> None:
        """Put everything but the command in place. Raises OSError, with nothing of ours left."""
        if any(os.path.lexists(name) for name in ("exit.json", *STREAMS)):
            # A command has run here. Its output is not ours to add to, and even less to remove.
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        names = _PIPES if self._message["interactive"] else _PIPES[:2]
        try:
            for name in names:
                # Left by a supervisor that was killed: whoever holds the run's lock may take it away.
                unlink(name)
                os.mkfifo(name, 0o600)
            reader, self.alive = fifo("alive")
            os.close(reader)
            self.control = fifo("control")
            if self._message["interactive"]:
                self._input = fifo("input")
        except OSError:
            for name in names:
                unlink(name)
            raise
        self._places = candidates(self._message["argv"], self._message["env"])

    def start(self, readiness: Readiness) -> int:
        """Start the command in a process group of its own. Raises OSError when it cannot be started."""
        ends = [writer for _, writer in self._pipes]
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_DUP2, writer, stream) for stream, writer in enumerate(ends, 1)
        ]
        try:
            given: bytes = self._message["stdin"]
            if given or self._message["interactive"]:
                reader, writer = os.pipe()
                ends.append(reader)
                os.set_blocking(writer, False)
                self.feed = Feed(readiness, writer, given, self._input)
                actions.append((os.POSIX_SPAWN_DUP2, reader, 0))
            else:
                actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
            self.is_astray = True
            os.chdir(self._message["cwd"])
            self.is_astray = False
            try:
                command = spawn(self._places, self._message["argv"], self._message["env"], actions)
            finally:
                os.fchdir(self._folder)
        finally:
            for end in ends:
                os.close(end)
        # Nothing of the environment or the input stays longer in memory than it must.
        del self._message["argv"], self._message["env"], self._message["stdin"]
        return command

    def outputs(self) -> dict[int, int]:
        """The reading ends of the command's output, and which of STREAMS each is."""
        return {reader: stream for stream, (reader, _) in enumerate(self._pipes)}

    def tell(self, command: int, started_at: int, started_mono: float) -> None:
        """Tell servers to come which processes these are. A help, never the truth about being alive."""
        text = json_object(
            v=wire.RECORD_VERSION,
            supervisor=os.getpid(),
            command=command,
            started_at=started_at,
            started_mono=int(started_mono * 1000),
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            file = os.open("started.tmp", flags, 0o600)
            try:
                os.write(file, text)
            finally:
                os.close(file)
            os.rename("started.tmp", "started")
        except OSError:
            return

    def clear(self) -> None:
        """Take away what a run needs only while it goes on."""
        for name in (*_PIPES, "started", "started.tmp"):
            unlink(name)

    def vanish(self) -> None:
        """Remove the folders that were made for this run, as far as they are empty."""
        for path in self._message["folders"]:
            try:
                os.rmdir(path)
            except OSError:
                return


def unlink(name: str) -> None:
    """Remove a file of the run folder, if it is there."""
    try:
        os.unlink(name)
    except OSError:
        return
