"""stdin and stdout as a wire: bounded lines in, whole lines out, and nothing here ever blocks.

The SDK's own transport reads and writes in threads that cannot be interrupted, so a client that
never reads, or keeps stdin open, would keep the server from ending. Here the event loop waits for
the descriptors instead, which saves two changes of thread for every message as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.lowlevel

__all__ = ["MAX_LINE", "Inlet", "Outlet", "Oversized", "Wire", "claimed_wire"]

MAX_LINE: Final = 16 * 2**20
"""A longer message is skipped, not stored."""

_READ: Final = 65_536
_EDGE: Final = 256
"""How much of each end of an oversized line is kept, to find the id of the request in."""

# A pipe that poll(2) reports as writable takes this much without blocking. The descriptors are not set
# to O_NONBLOCK instead, because that would hold for whoever shares them, like the shell of a terminal.
_WRITE: Final = select.PIPE_BUF


@dataclass(frozen=True, slots=True)
class Wire:
    """The two descriptors that carry the protocol."""

    read: int
    write: int


@contextlib.contextmanager
def claimed_wire() -> Iterator[Wire]:
    """Take stdin and stdout for the protocol alone.

    As long as this lasts, descriptor 0 is the null device and descriptor 1 is stderr: what a library
    prints, and whatever a child process inherits, cannot get between the messages.
    """
    sys.stdout.flush()
    wire = Wire(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3), fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3))
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.dup2(null, 0)
        try:
            os.dup2(2, 1)
        except OSError:  # stderr is closed
            os.dup2(null, 1)
        yield wire
    finally:
        sys.stdout.flush()
        os.dup2(wire.read, 0)
        os.dup2(wire.write, 1)
        for descriptor in (null, wire.read, wire.write):
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Oversized:
    """What is left of a line that was longer than MAX_LINE: its two ends."""

    head: bytes
    tail: bytes


class Inlet:
    """Lines from a descriptor that may be a pipe, a socket, a terminal or a file."""

    def __init__(self, descriptor: int, *, max_line: int = MAX_LINE) -> None:
        self._descriptor = descriptor
        self._max_line = max_line
        self._waits = True
        self._hangup = select.poll()
        # Hangups and errors are reported whether they are asked for or not.
        self._hangup.register(descriptor, getattr(select, "POLLRDHUP", 0))

    def hung_up(self) -> bool:
        """Whether the other side has closed, even if there is still something to read."""
        return bool(self._hangup.poll(0))

    async def lines(self) -> AsyncIterator[bytes | Oversized]:
        """Each line without its end, until the other side closes."""
        kept = bytearray()
        oversized: Oversized | None = None
        while chunk := await self._chunk():
            *ended, rest = chunk.split(b"\n")
            for piece in ended:
                if oversized is not None:
                    yield Oversized(oversized.head, (oversized.tail + piece)[-_EDGE:])
                    oversized = None
                elif len(kept) + len(piece) > self._max_line:
                    yield _oversized(kept, piece)
                    kept.clear()
                elif kept:
                    kept += piece
                    line = bytes(kept)
                    kept.clear()
                    yield line
                else:
                    yield piece
            if oversized is not None:
                oversized = Oversized(oversized.head, (oversized.tail + rest)[-_EDGE:])
            elif len(kept) + len(rest) > self._max_line:
                oversized = _oversized(kept, rest)
                kept.clear()
            else:
                kept += rest
        if oversized is not None:
            yield oversized
        elif kept:
            yield bytes(kept)

    async def _chunk(self) -> bytes:
        while True:
            await self._readable()
            try:
                return os.read(self._descriptor, _READ)
            except BlockingIOError:
                continue
            except OSError:  # the terminal is gone, the connection was reset: nothing more will come
                return b""

    async def _readable(self) -> None:
        if self._waits:
            try:
                await anyio.wait_readable(self._descriptor)
                return
            except PermissionError:  # epoll(7) knows no files; they never block
                self._waits = False
        await anyio.lowlevel.checkpoint()


def _oversized(kept: bytearray, piece: bytes) -> Oversized:
    ends = bytes(kept[:_EDGE]) + piece[:_EDGE], bytes(kept[-_EDGE:]) + piece[-_EDGE:]
    return Oversized(ends[0][:_EDGE], ends[1][-_EDGE:])


class Outlet:
    """Lines to a descriptor, whole and in order, written as fast as the other side reads.

    A line that has been taken is written to its end even if whoever sent it is cancelled meanwhile:
    half a line would spoil all that follow.

    Attributes:
        broken: The other side is gone; nothing more can be written.
        backlog: Bytes taken and not yet written.
    """

    def __init__(self, descriptor: int, on_broken: Callable[[], None]) -> None:
        self.broken = False
        self.backlog = 0
        self._descriptor = descriptor
        self._on_broken = on_broken
        self._queue: deque[memoryview] = deque()
        self._taken = 0
        self._state = select.poll()
        self._state.register(descriptor, select.POLLOUT)
        self._work = anyio.Event()
        self._progress = anyio.Event()

    async def write(self, line: bytes) -> None:
        """Write one line; returns when the system has taken all of it.

        Raises:
            anyio.BrokenResourceError: The other side is gone.
        """
        if not self.broken:
            self._queue.append(memoryview(line))
            self.backlog += len(line)
            self._taken += len(line)
            mine = self._taken
            self._write_ready()
            while self._taken - self.backlog < mine:
                self._work.set()
                await self._progress.wait()
        if self.broken:
            raise anyio.BrokenResourceError

    async def drain(self) -> None:
        """Write what `write` could not write at once. Runs for as long as the outlet is used."""
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            while self._queue:
                await anyio.wait_writable(self._descriptor)
                self._write_ready()
                self._progress.set()
                self._progress = anyio.Event()

    async def flush(self) -> None:
        """Wait until all that was taken is written, or cannot be."""
        while self._queue:
            self._work.set()
            await self._progress.wait()

    def hung_up(self) -> bool:
        """Whether nobody reads any more."""
        return self.broken or any(event & ~select.POLLOUT for _, event in self._state.poll(0))

    def _write_ready(self) -> None:
        while self._queue and any(self._state.poll(0)):
            first = self._queue[0]
            try:
                written = os.write(self._descriptor, first[:_WRITE])
            except BlockingIOError:
                return
            except OSError:
                self._break()
                return
            self.backlog -= written
            if written == len(first):
                self._queue.popleft()
            else:
                self._queue[0] = first[written:]

    def _break(self) -> None:
        self.broken = True
        self._queue.clear()
        self.backlog = 0
        self._progress.set()
        self._on_broken()
