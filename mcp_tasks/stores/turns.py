"""Whose turn it is to write: a lock between threads and processes that is cheap to take again and again.

Unlike `locks.ProcessLock` the file stays open, so that a turn costs two system calls. The kernel ends
the turn of whoever dies, however he dies.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mcp_tasks.errors import StoreBusy
from mcp_tasks.stores.durable import UnsafeFile, unavailable

__all__ = ["Turn"]

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_FIRST_PAUSE_SECONDS = 0.000_2
_LONGEST_PAUSE_SECONDS = 0.005


class Turn:
    """One lock, in one file that stays where it is. Not reentrant."""

    def __init__(self, path: str, wait_seconds: float) -> None:
        """Nothing is opened yet.

        Args:
            path: The lock file; its folder must exist when a turn begins.
            wait_seconds: How long to wait for the turns of others.
        """
        self._path = path
        self._wait_seconds = wait_seconds
        self._threads = threading.Lock()
        self._file: int | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have the turn. Raises StoreBusy when others have it for too long, StoreUnavailable."""
        # Threads wait here, so that only one of a process looks at the file.
        if not self._threads.acquire(timeout=self._wait_seconds):
            raise self._too_long()
        try:
            file = self._opened()
            self._lock(file)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def close(self) -> None:
        """Give the descriptor back, once nobody has the turn."""
        with self._threads:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _opened(self) -> int:
        if self._file is None or os.fstat(self._file).st_nlink == 0:
            # A lock on a file that is gone, and made anew by somebody else, would lock nobody out.
            stale, self._file = self._file, None
            if stale is not None:
                os.close(stale)
            try:
                self._file = os.open(self._path, _FLAGS, 0o600)
            except OSError as error:
                if os.path.islink(self._path):
                    raise UnsafeFile("the lock of the database is a link", "remove it by hand") from error
                raise unavailable("locking the database", error) from error
        return self._file

    def _lock(self, file: int) -> None:
        pause, until = _FIRST_PAUSE_SECONDS, time.monotonic() + self._wait_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise self._too_long() from None
            except OSError as error:
                raise unavailable("locking the database", error) from error
            else:
                return
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _too_long(self) -> StoreBusy:
        return StoreBusy(
            f"the database has been locked by others for {self._wait_seconds:g} s", "try again in a moment"
        )
