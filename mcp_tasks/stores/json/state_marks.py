"""Which tasks are not final and what they wait for, told from marks that are checked against the records.

Order: a mark is made before the record that needs it, and taken away after the record that does not.
So one may be left over, and none is ever missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Literal, Protocol, TypeAlias

from mcp_tasks.errors import TaskNotFound
from mcp_tasks.models import Task, TaskKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.locks import FolderGone
from mcp_tasks.stores.disk.state_folder import StateFolder
from mcp_tasks.stores.json.markers import Markers
from mcp_tasks.stores.json.record_cache import Signature, signature
from mcp_tasks.stores.json.session_folders import SessionFolders

__all__ = ["Standing", "StandingReader", "StateMarks", "standing"]

Standing: TypeAlias = Literal["pending", "held", "running", "over"]
"""What tells the marks of a task."""

_MOST_SEEN = 100_000
_TRUSTED_SECONDS = 0.5
_UNFINISHED: frozenset[Standing] = frozenset({"pending", "held", "running"})
_PENDING: frozenset[Standing] = frozenset({"pending"})
_HELD: frozenset[Standing] = frozenset({"held"})


def standing(task: Task) -> Standing:
    """Where a task stands."""
    if task.is_final:
        return "over"
    if task.state_name == "running":
        return "running"
    return "held" if task.is_held else "pending"


class StandingReader(Protocol):
    """Reads where a task stands; None where it cannot be told now. Raises TaskNotFound."""

    def __call__(self, key: TaskKey, *, locked: bool) -> Standing | None:
        """Read it; `locked` says that the caller holds the session's lock."""
        ...


class _Waiting:
    """Lists marked tasks that wait, most of which were looked at a moment ago.

    Where a thousand wait and one more comes, a look at each would make the thousandth dearer than the
    tenth. A mark goes with the wait, so all that a look can find is what a killed process left: that
    shows half a second later.
    """

    def __init__(self, markers: Markers, is_waiting: Callable[[TaskKey], bool]) -> None:
        self._markers = markers
        self._is_waiting = is_waiting
        self._seen: dict[str, tuple[TaskKey, float]] = {}

    def list(self) -> list[TaskKey]:
        """Oldest first. Raises StoreUnavailable."""
        before, seen = self._seen, {}
        now = time.monotonic()
        for name in self._markers.names():
            known = before.get(name)
            if known is None or now - known[1] >= _TRUSTED_SECONDS:
                key = self._markers.key(name)
                if key is None or not self._is_waiting(key):
                    continue
                known = (key, now)
            seen[name] = known
        self._seen = seen
        return [key for key, _ in seen.values()]


class StateMarks:
    """The marks of the unfinished, of the pending and of the held."""

    FOLDERS: ClassVar[tuple[str, ...]] = ("active", "pending", "held")

    def __init__(
        self,
        state: StateFolder,
        sessions: SessionFolders,
        standing_of: StandingReader,
        now: Callable[[], float],
    ) -> None:
        """Nothing is read yet.

        Args:
            state: Holds FOLDERS.
            sessions: Where the records are.
            standing_of: Reads where a task stands.
            now: Seconds since the epoch; tells what is stale.
        """
        self._active, self._pending, self._held = (
            Markers(state.path(name), sessions.owner_of) for name in self.FOLDERS
        )
        self._sessions = sessions
        self._read = standing_of
        self._now = now
        self._seen: dict[TaskKey, tuple[Signature, Standing]] = {}
        self._pending_ones = _Waiting(self._pending, lambda key: self._is_in(key, self._pending, _PENDING))
        self._held_ones = _Waiting(self._held, lambda key: self._is_in(key, self._held, _HELD))
        self._orphans: dict[TaskKey, float] = {}

    def unfinished(self) -> list[TaskKey]:
        """Every task that is not final, oldest first. Raises StoreUnavailable."""
        return [key for key in self._active.all() if self._is_in(key, self._active, _UNFINISHED)]

    def pending(self) -> list[TaskKey]:
        """Every task that is pending and waits for a place only, oldest first. Raises StoreUnavailable."""
        return self._pending_ones.list()

    def held(self) -> list[TaskKey]:
        """Every task that is pending and held, oldest first. Raises StoreUnavailable."""
        return self._held_ones.list()

    def mark(self, task: Task) -> None:
        """Make the marks that a state needs, before it is written. Raises StoreUnavailable."""
        now = standing(task)
        for markers, needed in self._each():
            if now in needed:
                markers.add(task.key)

    def unmark(self, task: Task) -> None:
        """Take the marks away that a state does not need, after it has been written."""
        now = standing(task)
        for markers, needed in self._each():
            if now not in needed:
                markers.remove(task.key)

    def forget(self, key: TaskKey) -> None:
        """Take every mark of a task away."""
        for markers, _ in self._each():
            markers.remove(key)
        self._seen.pop(key, None)

    def glance(self, key: TaskKey) -> Standing | None:
        """Where a task stands, its record read only when it has changed; None where that tells nothing."""
        written = self._written(key)
        return None if written is None else self._standing_of(key, written)

    def missing(self, task: Task) -> list[str]:
        """The folders in which a task should have a mark and has none."""
        now = standing(task)
        named = zip(self.FOLDERS, self._each(), strict=True)
        return [name for name, (markers, needed) in named if now in needed and not markers.has(task.key)]

    def _each(self) -> tuple[tuple[Markers, frozenset[Standing]], ...]:
        return (self._active, _UNFINISHED), (self._pending, _PENDING), (self._held, _HELD)

    def _is_in(self, key: TaskKey, markers: Markers, needed: frozenset[Standing]) -> bool:
        """Whether a marked task needs the mark. One that nobody needs any more is taken away."""
        written = self._written(key)
        if written is None:
            if self._is_orphan(key):
                markers.remove(key)
            return False
        self._orphans.pop(key, None)
        now = self._standing_of(key, written)
        if now is not None and now not in needed:
            self._remove_stale(markers, key, needed)
        return now in needed

    def _written(self, key: TaskKey) -> Signature | None:
        try:
            path = f"{self._sessions.path(key.session_key)}/tasks/{key.task_id}.json"
            return signature(os.lstat(path))
        except OSError:
            return None

    def _standing_of(self, key: TaskKey, written: Signature) -> Standing | None:
        # A record that was rewritten within one tick of the clock, into an inode just freed and at
        # the same size, would be missed here; a state changes the size.
        seen = self._seen.get(key)
        if seen is not None and seen[0] == written:
            return seen[1]
        try:
            now = self._read(key, locked=False)
        except TaskNotFound:
            return None
        if now not in (None, "over"):  # which need not be looked at again
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            self._seen[key] = (written, now)
        return now

    def _is_orphan(self, key: TaskKey) -> bool:
        # Either somebody is creating the task at this moment, or was killed while doing so.
        now = self._now()
        if now - self._orphans.setdefault(key, now) <= durable.STALE_SECONDS:
            return False
        self._orphans.pop(key, None)  # another thread may judge the same
        return True

    def _remove_stale(self, markers: Markers, key: TaskKey, needed: frozenset[Standing]) -> None:
        # Somebody was killed after writing this state. The lock keeps a mark that has just been
        # made for the next state, which is not written yet, from being taken for a stale one.
        with suppress(TaskNotFound, FolderGone), self._sessions.lock(key.session_key):
            if self._read(key, locked=True) not in (None, *needed):
                markers.remove(key)
