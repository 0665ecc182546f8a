"""A lock between the threads of this process and between processes.

Threads wait on a lock of their own first, so that only one of a server polls the file. The kernel
gives the file lock back when its holder dies, however it dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mcp_tasks.errors import StoreBusy, StoreUnavailable
from mcp_tasks.stores.disk.durable import unavailable

__all__ = ["FolderGone", "ProcessLock"]

_POLL_SECONDS = 0.002
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_HELD = (errno.EAGAIN, errno.EACCES)


class FolderGone(StoreUnavailable):
    """The folder of a lock file does not exist, or not any more."""


class ProcessLock:
    """One lock, in one file. Not reentrant.

    Whoever holds it may move the file away together with its folder: who waits for it then takes
    the file that is in its place by then.
    """

    def __init__(self, path: str, wait_seconds: float) -> None:
        """Nothing is opened yet.

        Args:
            path: The lock file; made when the lock is taken.
            wait_seconds: How long to wait for another holder.
        """
        self._threads = threading.Lock()
        self._path = path
        self._wait_seconds = wait_seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock.

        Raises:
            FolderGone: The folder of the lock file does not exist.
            StoreUnavailable: Others hold it for too long, or the kernel refused.
        """
        until = time.monotonic() + self._wait_seconds
        if not self._threads.acquire(timeout=self._wait_seconds):
            raise self._too_long()
        try:
            descriptor = self._locked(until)
            try:
                yield
            finally:
                os.close(descriptor)  # which gives the lock back
        finally:
            self._threads.release()

    def _locked(self, until: float) -> int:
        while True:
            try:
                descriptor = self._try()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise FolderGone("the folder of a lock does not exist", "look again") from error
            except OSError as error:
                raise unavailable("locking the store", error) from error
            if descriptor is not None:
                return descriptor
            if time.monotonic() >= until:
                raise self._too_long()
            time.sleep(_POLL_SECONDS)

    def _try(self) -> int | None:
        """A descriptor that holds the lock; None where somebody else does."""
        descriptor = os.open(self._path, _FLAGS, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine, there = os.fstat(descriptor), os.lstat(self._path)
            if mine.st_mode & 0o777 != 0o600:
                os.fchmod(descriptor, 0o600)  # whatever the umask says
            if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno in _HELD:
                return None
            raise
        os.close(descriptor)
        return None

    def _too_long(self) -> StoreBusy:
        return StoreBusy(
            f"the store has been locked by others for {self._wait_seconds:g} s", "try again in a moment"
        )
