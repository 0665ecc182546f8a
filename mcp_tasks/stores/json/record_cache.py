"""Final tasks that were read before: they never change, so a look at the file's stat is enough."""

from __future__ import annotations

import os
import threading
from typing import TypeAlias

from mcp_tasks.models import Task, TaskKey

__all__ = ["RecordCache", "Signature", "signature", "unsettled_ns"]

Signature: TypeAlias = tuple[int, int, int]

_MOST = 16_384
_TICK_NS = 20_000_000
_COARSE_TICK_NS = 2_100_000_000


def signature(found: os.stat_result) -> Signature:
    """What tells a file apart from one that replaced it: moment in ns, inode and size.

    Not enough for records that change fast (an inode is used again at once, and the clock of a
    file system ticks in milliseconds), so only final ones are cached by it.
    """
    return found.st_mtime_ns, found.st_ino, found.st_size


def unsettled_ns(changed_ns: int, looked_ns: int) -> int:
    """How much later a look would have to be so that every change after it shows; 0 or less for not at all.

    A file system stamps with a clock that ticks in milliseconds, and some in seconds. What changed just
    before we looked may change again within the same tick.

    Args:
        changed_ns: What stat(2) said before the look, in ns since the epoch.
        looked_ns: When the look began.
    """
    tick = _TICK_NS if changed_ns % 1_000_000_000 else _COARSE_TICK_NS
    return tick - (looked_ns - changed_ns)


class RecordCache:
    """At most 16,384 final tasks; the oldest entry makes room."""

    def __init__(self) -> None:
        """Start empty."""
        self._guard = threading.Lock()
        self._entries: dict[TaskKey, tuple[Signature, Task]] = {}

    def get(self, key: TaskKey, found: os.stat_result) -> Task | None:
        """The task, if its file is still the one it was read from."""
        entry = self._entries.get(key)
        if entry is None or entry[0] != signature(found):
            return None
        return entry[1]

    def put(self, task: Task, found: os.stat_result) -> None:
        """Keep a task that is final; any other is ignored."""
        if not task.is_final:
            return
        with self._guard:
            while len(self._entries) >= _MOST:
                del self._entries[next(iter(self._entries))]
            self._entries[task.key] = (signature(found), task)

    def drop(self, key: TaskKey) -> None:
        """Forget a task."""
        with self._guard:
            self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        with self._guard:
            self._entries.clear()
