"""The record of a task: where it lies and how it is read, however broken it may be."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext

from mcp_tasks.codec import BrokenRecord, NewerSchema, decode_task
from mcp_tasks.errors import StoreUnavailable, TaskNotFound
from mcp_tasks.models import TASK_ID, SessionKey, Task, TaskKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.locks import FolderGone
from mcp_tasks.stores.disk.state_folder import StateFolder
from mcp_tasks.stores.json.record_cache import RecordCache
from mcp_tasks.stores.json.session_folders import SessionFolders

__all__ = ["TaskFiles"]


class TaskFiles:
    """Reads `tasks/<task id>.json` of every session; what is broken is set aside."""

    def __init__(self, state: StateFolder, sessions: SessionFolders) -> None:
        """Nothing is read yet."""
        self._state = state
        self._sessions = sessions
        self.cache = RecordCache()

    def path(self, key: TaskKey) -> str:
        """Where a record is or would be, no step on the way being a link. Raises TaskNotFound."""
        if not TASK_ID.fullmatch(key.task_id):
            raise TaskNotFound(key.task_id)
        try:
            return f"{self._sessions.existing(key.session_key, 'tasks')}/{key.task_id}.json"
        except FileNotFoundError:
            raise TaskNotFound(key.task_id) from None
        except durable.UnsafeFile as error:
            self._state.report(f"task {key.task_id}: {error.message}")
            raise TaskNotFound(key.task_id) from None

    def read(self, key: TaskKey, path: str | None = None, *, locked: bool = False) -> tuple[Task, bytes]:
        """A task and the bytes it was read from; no bytes where it came from the cache.

        Args:
            key: The task.
            path: Of its record, where the way down to it is known to be without links.
            locked: The caller holds the session's lock.

        Raises:
            TaskNotFound: There is none, or it was broken and has been set aside.
            NewerSchema: A newer version wrote it.
            StoreUnavailable: It cannot be read now.
        """
        path = path or self.path(key)
        try:
            cached = self.cache.get(key, os.lstat(path))
            if cached is not None:
                return cached, b""
            task, data, found = self._decoded(key, path)
        except FileNotFoundError:
            raise TaskNotFound(key.task_id) from None
        except NewerSchema as error:
            self._state.report(f"task {key.task_id}: {error.message}")
            raise
        except (BrokenRecord, durable.UnsafeFile):
            task, data, found = self._second_look(key, path, locked=locked)
        except OSError as error:
            if isinstance(error, NotADirectoryError):
                raise TaskNotFound(key.task_id) from None
            raise durable.unavailable("reading a record", error) from error
        self.cache.put(task, found)
        return task, data

    def each(self, session: SessionKey, task_ids: Iterable[str], *, locked: bool = False) -> Iterator[Task]:
        """The tasks of these ids, lazily; what cannot be read is left out and reported.

        The way down to the records has just been looked at for a listing.
        """
        folder = ""
        for task_id in task_ids:
            folder = folder or f"{self._sessions.path(session)}/tasks"
            key = TaskKey(session.owner, session.session, task_id)
            try:
                yield self.read(key, f"{folder}/{task_id}.json", locked=locked)[0]
            except TaskNotFound:
                continue
            except NewerSchema:
                continue  # reported, and left as it is
            except StoreUnavailable as error:
                self.bear(task_id, error)

    def bear(self, task_id: str, error: StoreUnavailable) -> None:
        """Report a bad spot of the disk, which is this one record's; raise what is every record's."""
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno != errno.EIO:
            raise error
        self._state.report(f"task {task_id}: {error.message}")

    def _decoded(self, key: TaskKey, path: str) -> tuple[Task, bytes, os.stat_result]:
        data, found = durable.read_with_stat(path, report=self._state.report)
        task = decode_task(data)
        if task.key != key:
            raise BrokenRecord("task.key: the record is another task's")
        return task, data, found

    def _second_look(self, key: TaskKey, path: str, *, locked: bool) -> tuple[Task, bytes, os.stat_result]:
        """Set a broken record aside, unless it is well under the lock. Raises TaskNotFound then."""
        try:
            with nullcontext() if locked else self._sessions.lock(key.session_key):
                try:
                    return self._decoded(key, path)
                except NewerSchema:
                    raise
                except (BrokenRecord, durable.UnsafeFile) as error:
                    self._state.set_aside(path, error.message)
        except (FileNotFoundError, FolderGone):
            pass
        raise TaskNotFound(key.task_id)
