"""Places among the running, for all servers of a store.

A place is a locked file (flock(2)) whose lock passes to the supervisor with the run, so the kernel
counts: whatever dies, its place is free at once, and no server has to be asked.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

__all__ = ["Slots"]

_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Slots:
    """Takes places; remembers where the last free one was found, so that the search is short."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, folder: Path, limit: int) -> int | None:
        """Lock one of `limit` places and return its descriptor, or None when all are taken."""
        first = self._next % limit
        for step in range(limit):
            number = (first + step) % limit
            descriptor = os.open(folder / str(number), _OPEN, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            except BaseException:
                os.close(descriptor)
                raise
            self._next = number + 1
            return descriptor
        return None

    def taken(self, folder: Path, limit: int) -> int:
        """How many of the places are taken now."""
        count = 0
        for number in range(limit):
            try:
                descriptor = os.open(folder / str(number), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                count += 1
            finally:
                os.close(descriptor)
        return count
