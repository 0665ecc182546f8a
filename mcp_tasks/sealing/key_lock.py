"""One process at a time changes keys, so that none of those that two of them add is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcp_tasks.errors import StoreUnavailable

__all__ = ["key_lock"]

_LOCK_S = 10.0


@contextmanager
def key_lock(path: Path) -> Iterator[None]:
    """Hold the lock file of some keys; its folder is made where it is missing.

    Raises:
        StoreUnavailable: Others hold it for long, or it cannot be made.
    """
    from filelock import FileLock, Timeout  # costs start-up time

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(path, mode=0o600, poll_interval=0.01)
        lock.acquire(timeout=_LOCK_S)
    except Timeout:
        raise StoreUnavailable("the keys are locked by others", "try again in a moment") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "unknown error"
        raise StoreUnavailable(
            f"the key file cannot be used: its lock cannot be taken ({reason})", "see MCP_TASKS_KEY_FILE"
        ) from error
    try:
        yield
    finally:
        lock.release()
