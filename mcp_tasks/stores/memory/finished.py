"""Which finished tasks the memory store still has room for, and what it forgets when it has none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mcp_tasks.models import TaskKey

__all__ = ["FinishedTasks", "Room", "Usage", "folder_bytes"]


@dataclass(frozen=True, slots=True)
class Room:
    """How much of what is finished is kept.

    Attributes:
        tasks: How many; 0 for no limit.
        bytes: Of their records and output; 0 for no limit.
        seconds: After which each is forgotten; None for never.
    """

    tasks: int = 10_000
    bytes: int = 4 * 2**30
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a memory store holds, and how much it has forgotten to make room.

    Attributes:
        bytes: Of records and output of the finished tasks.
        evicted: Tasks forgotten for want of room.
        expired: Tasks forgotten because of their age.
    """

    sessions: int
    plans: int
    tasks: int
    finished: int
    bytes: int
    evicted: int
    expired: int


@dataclass(frozen=True, slots=True)
class _Kept:
    bytes: int
    since: float


class FinishedTasks:
    """The finished tasks in the order in which they finished. Whoever uses it holds a lock."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._kept: dict[TaskKey, _Kept] = {}
        self.bytes = 0
        self.evicted = 0
        self.expired = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._kept)

    def add(self, key: TaskKey, size: int, now: float) -> None:
        """Count a task that has just finished; `size` in bytes, `now` in seconds."""
        self.discard(key)
        self._kept[key] = _Kept(size, now)
        self.bytes += size

    def discard(self, key: TaskKey) -> None:
        """Count a task no more, where it was counted."""
        kept = self._kept.pop(key, None)
        self.bytes -= 0 if kept is None else kept.bytes

    def is_due(self, now: float) -> bool:
        """Whether anything is too old, or too much. Costs the same however many there are."""
        return self._is_too_much() or (
            bool(self._kept) and self._is_old(next(iter(self._kept.values())), now)
        )

    def due(self, now: float, is_needed: Callable[[TaskKey], bool]) -> Iterator[TaskKey]:
        """Take out what is too old, then the oldest of what is too much.

        Args:
            now: In seconds.
            is_needed: What must stay all the same, because something unfinished refers to it.
        """
        newest = next(reversed(self._kept), None)
        for key, kept in list(self._kept.items()):
            old = self._is_old(kept, now)
            if not old and not self._is_too_much():
                return
            if is_needed(key) or (key == newest and not old):  # somebody waits for this end
                continue
            self.discard(key)
            self.expired += old
            self.evicted += not old
            yield key

    def _is_too_much(self) -> bool:
        room = self._room
        return bool((room.tasks and len(self._kept) > room.tasks) or (room.bytes and self.bytes > room.bytes))

    def _is_old(self, kept: _Kept, now: float) -> bool:
        return self._room.seconds is not None and now - kept.since >= self._room.seconds


def folder_bytes(folder: Path) -> int:
    """Sizes of the files right in a folder; nothing there is 0."""
    with suppress(OSError), os.scandir(folder) as entries:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    return 0
