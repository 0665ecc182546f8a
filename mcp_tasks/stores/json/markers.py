"""Marks of tasks, one name in a folder for each, so that nothing need be read to know them all.

A mark is a further link to one empty file. That costs a name in a folder, where a file of its own
would cost an inode to make and one to free, which on ext4 is as dear as the record beside it.
Marks are not synced. They are right for as long as the machine runs, and are built anew from the
records after it has started again. A mark too many is harmless.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from mcp_tasks.models import TASK_ID, TaskKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.folder_names import owner_folder, session_folder, session_of_folder

__all__ = ["Markers", "marker_name"]

_ANCHOR = ".mark"
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

    def has(self, key: TaskKey) -> bool:
        """Whether a task is marked."""
        return os.path.lexists(self._path(key))

    def all(self) -> list[TaskKey]:
        """Every marked task, oldest first. Raises StoreUnavailable."""
        return [key for name in self.names() if (key := self.key(name)) is not None]

    def names(self) -> list[str]:
        """The names of the marks, of the oldest task first. Raises StoreUnavailable."""
        try:
            return sorted(os.listdir(self._folder))
        except OSError as error:
            raise durable.unavailable("reading the marks", error) from error

    def key(self, name: str) -> TaskKey | None:
        """The task that a name marks; None where it is no mark of ours."""
        task_id, _, rest = name.partition("~")
        owner_name, _, session_name = rest.partition("~")
        session = session_of_folder(session_name)
        if session is None or not TASK_ID.fullmatch(task_id):
            return None
        owner = self._owner_of(owner_name, session_name)
        return None if owner is None else TaskKey(owner, session, task_id)

    def _path(self, key: TaskKey) -> str:
        return f"{self._folder}/{marker_name(key)}"
