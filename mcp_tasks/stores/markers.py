"""Which tasks are in some state, derived: one name per task, so that nothing need be read.

A mark is a further link to one empty file. That costs a name in a folder, where a file of its own
would cost an inode to make and one to free, which on ext4 is as dear as the record beside it.
Marks are not synced. They are right for as long as the machine runs, and are built anew from the
records after it has started again. A mark too many is harmless.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Protocol

from mcp_tasks.errors import TaskNotFound
from mcp_tasks.models import TASK_ID, StateName, Task, TaskKey
from mcp_tasks.stores import durable
from mcp_tasks.stores.folder_names import owner_folder, session_folder, session_of_folder
from mcp_tasks.stores.record_cache import Signature, signature
from mcp_tasks.stores.session_folders import SessionFolders
from mcp_tasks.stores.state_folder import StateFolder

__all__ = ["Markers", "StateMarks", "StateReader", "marker_name"]

_ANCHOR = ".mark"
_MOST_SEEN = 100_000
_UNFINISHED: frozenset[StateName] = frozenset({"pending", "running"})
_PENDING: frozenset[StateName] = frozenset({"pending"})
_FLAGS = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def marker_name(key: TaskKey) -> str:
    """`<task id>~<owner>~<session>`, escaped, at most 248 bytes."""
    return f"{key.task_id}~{owner_folder(key.owner)}~{session_folder(key.session)}"


class Markers:
    """The marks in one folder. Safe for many threads and many processes."""

    def __init__(self, folder: str, owner_of: Callable[[str, str], str | None]) -> None:
        """Nothing is read yet.

        Args:
            folder: Must exist.
            owner_of: Tells the owner from the names of the owner's and the session's folder.
        """
        self._folder = folder
        self._owner_of = owner_of
        self._anchor = f"{folder}/{_ANCHOR}"

    def add(self, key: TaskKey) -> None:
        """Mark a task, which may be marked already. Raises StoreUnavailable."""
        mark = self._path(key)
        try:
            try:
                os.link(self._anchor, mark, follow_symlinks=False)
            except FileExistsError:
                pass
            except OSError:
                # No anchor yet, or it has all the links that a file can have: a new one.
                os.close(os.open(mark, _FLAGS, 0o600))
                with suppress(OSError):
                    os.unlink(self._anchor)
                with suppress(OSError):
                    os.link(mark, self._anchor, follow_symlinks=False)
        except OSError as error:
            raise durable.unavailable("marking a task", error) from error

    def remove(self, key: TaskKey) -> None:
        """Take a mark away. What cannot be removed is found stale later."""
        with suppress(OSError):
            os.unlink(self._path(key))

    def all(self) -> list[TaskKey]:
        """Every marked task, oldest first. Raises StoreUnavailable."""
        try:
            names = sorted(os.listdir(self._folder))
        except OSError as error:
            raise durable.unavailable("reading the marks", error) from error
        return [key for name in names if (key := self._key(name)) is not None]

    def _path(self, key: TaskKey) -> str:
        return f"{self._folder}/{marker_name(key)}"

    def _key(self, name: str) -> TaskKey | None:
        task_id, _, rest = name.partition("~")
        owner_name, _, session_name = rest.partition("~")
        session = session_of_folder(session_name)
        if session is None or not TASK_ID.fullmatch(task_id):
            return None
        owner = self._owner_of(owner_name, session_name)
        return None if owner is None else TaskKey(owner, session, task_id)


class StateReader(Protocol):
    """Reads the state of a task; None where it cannot be told now. Raises TaskNotFound."""

    def __call__(self, key: TaskKey, *, locked: bool) -> StateName | None:
        """Read it; `locked` says that the caller holds the session's lock."""
        ...


class StateMarks:
    """The marks of the unfinished and of the pending, checked against the records.

    Order: a mark is made before the record that needs it, and taken away after the record that
    does not. So one may be left over, and none is ever missing.
    """

    FOLDERS: ClassVar[tuple[str, ...]] = ("active", "pending")

    def __init__(
        self,
        state: StateFolder,
        sessions: SessionFolders,
        state_of: StateReader,
        now: Callable[[], float],
    ) -> None:
        """Nothing is read yet.

        Args:
            state: Holds FOLDERS.
            sessions: Where the records are.
            state_of: Reads the state of a task.
            now: Seconds since the epoch; tells what is stale.
        """
        self._active, self._pending = (Markers(state.path(name), sessions.owner_of) for name in self.FOLDERS)
        self._sessions = sessions
        self._read = state_of
        self._now = now
        self._seen: dict[TaskKey, tuple[Signature, StateName]] = {}
        self._orphans: dict[TaskKey, float] = {}

    def unfinished(self) -> list[TaskKey]:
        """Every task that is not final, oldest first. Raises StoreUnavailable."""
        return self._marked(self._active, _UNFINISHED)

    def pending(self) -> list[TaskKey]:
        """Every task that is pending, oldest first. Raises StoreUnavailable."""
        return self._marked(self._pending, _PENDING)

    def mark(self, task: Task) -> None:
        """Make the marks that a state needs, before it is written. Raises StoreUnavailable."""
        if task.state_name in _UNFINISHED:
            self._active.add(task.key)
        if task.state_name in _PENDING:
            self._pending.add(task.key)

    def unmark(self, task: Task) -> None:
        """Take the marks away that a state does not need, after it has been written."""
        if task.state_name not in _UNFINISHED:
            self._active.remove(task.key)
        if task.state_name not in _PENDING:
            self._pending.remove(task.key)

    def forget(self, key: TaskKey) -> None:
        """Take every mark of a task away."""
        self._active.remove(key)
        self._pending.remove(key)
        self._seen.pop(key, None)

    def _marked(self, markers: Markers, states: frozenset[StateName]) -> list[TaskKey]:
        found: list[TaskKey] = []
        for key in markers.all():
            written = self._written(key)
            if written is None:
                if self._is_orphan(key):
                    markers.remove(key)
                continue
            self._orphans.pop(key, None)
            state = self._state_of(key, written)
            if state in states:
                found.append(key)
            elif state is not None:
                self._remove_stale(markers, key, states)
        return found

    def _written(self, key: TaskKey) -> Signature | None:
        try:
            path = f"{self._sessions.path(key.session_key)}/tasks/{key.task_id}.json"
            return signature(os.lstat(path))
        except OSError:
            return None

    def _state_of(self, key: TaskKey, written: Signature) -> StateName | None:
        # A record that was rewritten within one tick of the clock, into an inode just freed and at
        # the same size, would be missed here; a state changes the size.
        seen = self._seen.get(key)
        if seen is not None and seen[0] == written:
            return seen[1]
        try:
            state = self._read(key, locked=False)
        except TaskNotFound:
            return None
        if state is not None:
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            self._seen[key] = (written, state)
        return state

    def _is_orphan(self, key: TaskKey) -> bool:
        # Either somebody is creating the task at this moment, or was killed while doing so.
        now = self._now()
        if now - self._orphans.setdefault(key, now) <= durable.STALE_SECONDS:
            return False
        self._orphans.pop(key, None)  # another thread may judge the same
        return True

    def _remove_stale(self, markers: Markers, key: TaskKey, states: frozenset[StateName]) -> None:
        # Somebody was killed after writing this state. The lock keeps a mark that has just been
        # made for the next state, which is not written yet, from being taken for a stale one.
        with suppress(TaskNotFound), self._sessions.lock(key.session_key):
            if self._read(key, locked=True) not in (None, *states):
                markers.remove(key)
