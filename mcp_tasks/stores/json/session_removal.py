"""How a session is taken away as a whole while others may start tasks in it.

Whoever starts a task makes a run folder, then the record, each by its path. So the session's folder is
moved away in one step, and looked at again where it lies then: what somebody finished to write before
the move is seen there, and moves back. Who comes later finds no folder, waits for us, and makes a new one.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from mcp_tasks.errors import SessionNotFound, StoreUnavailable, TaskNotFinished
from mcp_tasks.models import SessionKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.locks import FolderGone
from mcp_tasks.stores.disk.state_folder import StateFolder
from mcp_tasks.stores.json.session_folders import SessionFolders
from mcp_tasks.stores.json.task_index import TaskIndex

__all__ = ["SessionRemoval"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SessionRemoval:
    """Takes the folder of a session out of the tree."""

    def __init__(
        self,
        state: StateFolder,
        sessions: SessionFolders,
        index: TaskIndex,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is read yet. `now` is in seconds since the epoch; it tells which runs are new."""
        self._state = state
        self._sessions = sessions
        self._index = index
        self._now = now

    def take(self, key: SessionKey) -> str:
        """Move a session into the trash, durably.

        Returns:
            Where it lies now, to be removed.

        Raises:
            SessionNotFound: There is none.
            TaskNotFinished: A task is not final, or is being started.
            StoreUnavailable: It could not be moved; or one of its tasks is a newer version's.
        """
        with self._sessions.making(), ExitStack() as held:
            try:
                path = self._sessions.existing(key)
                held.enter_context(self._sessions.lock(key))
            except (FileNotFoundError, FolderGone, durable.UnsafeFile):
                raise SessionNotFound(key.session) from None
            try:
                trash = self._moved(key, path)
            except OSError as error:
                raise durable.unavailable("deleting a session", error) from error
            self._index.forget(key)
            return trash

    def _moved(self, key: SessionKey, path: str) -> str:
        before = self._settled(key, path)
        trash = self._state.throw_away(path, "session")
        try:
            if _inside(trash) - before:
                raise _unfinished(key, "a task has just been started")
            durable.fsync_folder(os.path.dirname(path))
        except BaseException:
            os.rename(trash, path)
            raise
        return trash

    def _settled(self, key: SessionKey, path: str) -> frozenset[str]:
        """The names of the records and runs, all of which are of tasks that are final."""
        inside = _inside(path)
        if task := next(self._index.unfinished(key), None):
            raise _unfinished(key, f"task {task.key.task_id} is {task.state_name}")
        ids = set(self._sessions.task_ids(key))
        if unread := ids - self._index.states(key, list(ids)).keys() & ids:
            raise StoreUnavailable(
                f"{len(unread)} tasks of the session cannot be read", "see `mcp-tasks doctor`"
            )
        for name in inside:
            folder, _, run = name.partition("/")
            if folder == "runs" and run.partition(".")[0] not in ids and self._is_used(f"{path}/{name}"):
                raise _unfinished(key, "a task is being started")
        return inside

    def _is_used(self, path: str) -> bool:
        """Whether somebody is about to register the task of a run; see `leftovers`."""
        with suppress(FileNotFoundError, NotADirectoryError):
            if self._now() - os.lstat(path).st_mtime <= durable.STALE_SECONDS:
                return True
            descriptor = os.open(path, _FOLDER)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(descriptor)
        return False


def _inside(path: str) -> frozenset[str]:
    names: list[str] = []
    for part in ("tasks", "runs", "plans"):
        with suppress(FileNotFoundError, NotADirectoryError):
            names += [f"{part}/{name}" for name in os.listdir(f"{path}/{part}") if not name.endswith(".tmp")]
    return frozenset(names)


def _unfinished(key: SessionKey, why: str) -> TaskNotFinished:
    return TaskNotFinished(f"session {key.session} is in use: {why}", "end what runs in it first")
