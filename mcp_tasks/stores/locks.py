"""A lock between the threads of this process and between processes.

Threads wait on a lock of their own first, so that only one of a server polls the file. The kernel
gives the file lock back when its holder dies, however it dies.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from mcp_tasks.errors import StoreBusy
from mcp_tasks.stores.durable import unavailable

__all__ = ["ProcessLock"]

_POLL_SECONDS = 0.002

_log = logging.getLogger(__name__)


class ProcessLock:
    """One lock, in one file that stays where it is. Not reentrant."""

    def __init__(self, path: str, wait_seconds: float) -> None:
        """Nothing is opened yet.

        Args:
            path: The lock file; its folder must exist when the lock is taken.
            wait_seconds: How long to wait for another holder.
        """
        self._threads = threading.Lock()
        self._file = FileLock(path, mode=0o600, thread_local=False, poll_interval=_POLL_SECONDS)
        self._wait_seconds = wait_seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock. Raises StoreUnavailable when others hold it for too long."""
        if not self._threads.acquire(timeout=self._wait_seconds):
            raise self._too_long()
        try:
            try:
                self._file.acquire(timeout=self._wait_seconds)
            except Timeout:
                raise self._too_long() from None
            except OSError as error:
                raise unavailable("locking the store", error) from error
            try:
                yield
            finally:
                try:
                    self._file.release()
                except OSError as error:
                    # What was done under the lock is done. The next release tries again.
                    _log.warning("a lock could not be released: %s", error)
        finally:
            self._threads.release()

    def _too_long(self) -> StoreBusy:
        return StoreBusy(
            f"the store has been locked by others for {self._wait_seconds:g} s", "try again in a moment"
        )
