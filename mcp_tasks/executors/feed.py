"""The command's stdin: text given at the start, or a FIFO that servers write to. Standard library only."""

from __future__ import annotations

import os
import select

from mcp_tasks.executors.readiness import Readiness

__all__ = ["Feed"]

_PIECE = 65536


class Feed:
    """Moves input to the command no faster than it reads.

    Args:
        target: The writing end of the command's stdin, which does not block.
        given: What the command gets first.
        source: Both ends of the FIFO `input`; without it, stdin ends after `given`.
    """

    def __init__(
        self, readiness: Readiness, target: int, given: bytes, source: tuple[int, int] | None
    ) -> None:
        self._readiness = readiness
        self._target: int | None = target
        self._left = memoryview(given)
        self._source = source
        self._ending = source is None

    def begin(self) -> None:
        """Start to move input."""
        self._next()

    def end(self) -> None:
        """Close the command's stdin after all that has been written so far."""
        self._ending = True
        if not self._left:
            self._next()

    def close(self) -> None:
        """Close everything now. A server that still writes is told so, by EPIPE or ENXIO."""
        self._left = memoryview(b"")
        if self._target is not None:
            self._readiness.off(self._target)
            os.close(self._target)
            self._target = None
        if self._source is not None:
            self._readiness.off(self._source[0])
            for end in self._source:
                os.close(end)
            self._source = None

    def _next(self) -> None:
        """Take the next piece, and watch for what must happen before it can move on."""
        if self._target is None:
            return
        if not self._left and self._source is not None:
            try:
                self._left = memoryview(os.read(self._source[0], _PIECE))
            except BlockingIOError:
                self._left = memoryview(b"")
        if self._left:
            if self._source is not None:
                self._readiness.off(self._source[0])
            self._readiness.on(self._target, self._write, select.POLLOUT)
        elif self._ending:
            self.close()
        elif self._source is not None:
            self._readiness.on(self._source[0], self._next)

    def _write(self) -> None:
        if self._target is None:
            return
        try:
            written = os.write(self._target, self._left)
        except BlockingIOError:
            return
        except OSError:
            # The command has closed its stdin.
            self.close()
            return
        self._left = self._left[written:]
        if not self._left:
            self._readiness.off(self._target)
            self._next()
