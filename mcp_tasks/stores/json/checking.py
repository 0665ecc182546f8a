"""Looks at every record of a state directory, and at everything that is derived from them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from mcp_tasks.codec import BrokenRecord
from mcp_tasks.errors import SessionNotFound, StoreUnavailable
from mcp_tasks.models import SessionKey, Task
from mcp_tasks.ports import Store
from mcp_tasks.stores.json.key_entries import KeyEntries
from mcp_tasks.stores.json.session_folders import SessionFolders
from mcp_tasks.stores.json.state_marks import StateMarks
from mcp_tasks.stores.json.task_index import TaskIndex

__all__ = ["Checking"]


class Checking:
    """Reads everything. What is broken is set aside as any reading would; nothing else is changed."""

    def __init__(
        self,
        store: Store,
        sessions: SessionFolders,
        keys: KeyEntries,
        index: TaskIndex,
        marks: StateMarks,
    ) -> None:
        """Nothing is read yet."""
        self._store = store
        self._sessions = sessions
        self._keys = keys
        self._index = index
        self._marks = marks
        self._told = 0

    def sentences(self) -> Iterator[str]:
        """See `Store.verify`."""
        yield from self._news()
        for key in self._sessions.names():
            with suppress(SessionNotFound, StoreUnavailable):  # reported
                self._store.load_session(key)
            yield from self._news()
            for task in self._store.tasks(key):
                yield from self._news()
                yield from self._derived(task)
            for _ in self._store.plans(key):  # some tasks of a plan may well have been cleared
                yield from self._news()
            yield from self._entries(key)
            yield from self._news()
        self._store.unfinished()
        yield from self._news()

    def _news(self) -> Iterator[str]:
        problems = self._store.problems()
        yield from problems[self._told :]
        self._told = len(problems)

    def _derived(self, task: Task) -> Iterator[str]:
        key = task.key
        # It may have changed since it was read; only what holds still is judged.
        for name in self._marks.missing(task):
            if self._store.load(key) == task and name in self._marks.missing(task):
                yield f"task {key.task_id} is {task.state_name} and has no mark in {name}/"
        written = self._index.written(key.session_key).get(key.task_id)
        if written is not None and written != task.state_name:
            yield f"task {key.task_id} is {task.state_name}, and {written} in the index of its session"
        if task.spec.key is not None and self._store.find_key(key.session_key, task.spec.key) != task:
            yield f"task {key.task_id} does not hold its key"

    def _entries(self, key: SessionKey) -> Iterator[str]:
        """Entries that can be read as none."""
        try:
            there = os.listdir(self._sessions.existing(key, "keys"))
            names = [name for name in there if not name.endswith(".tmp")]  # of a writer that was killed
        except (OSError, StoreUnavailable):
            return
        for name in names:
            try:
                self._keys.read_named(key, name)
            except BrokenRecord as error:
                yield f"session {key.session}: the entry {name[:16]}… of a key: {error.message}"
