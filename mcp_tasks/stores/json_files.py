"""The store of JSON files: one small file per task, safe for many threads and many processes.

`sessions/<owner>/<session>/tasks/<task id>.json` is the record, `runs/<task id>.<n>/` the folder of
its n-th run. A change of state rewrites this one file, whatever the number of tasks. Everything else
(marks of the unfinished, entries of idempotency keys) is derived from the records or free without one.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import count
from pathlib import Path

from mcp_tasks.codec import BrokenRecord, NewerSchema, decode_task, encode_task
from mcp_tasks.errors import (
    InvalidArgument,
    KeyConflict,
    RevisionConflict,
    StoreUnavailable,
    TaskNotFound,
)
from mcp_tasks.models import TASK_ID, Session, SessionKey, StateName, Task, TaskKey
from mcp_tasks.stores import durable
from mcp_tasks.stores.leftovers import Leftovers
from mcp_tasks.stores.locks import ProcessLock
from mcp_tasks.stores.markers import StateMarks
from mcp_tasks.stores.record_cache import RecordCache
from mcp_tasks.stores.removal import remove_tree
from mcp_tasks.stores.run_folders import make_run_folder, run_folder
from mcp_tasks.stores.session_folders import SessionFolders
from mcp_tasks.stores.state_folder import StateFolder

__all__ = ["JsonFileStore"]

_ADMISSION_SECONDS = 30.0
_SLOW_WRITE_SECONDS = 30.0


class JsonFileStore:
    """Implements `mcp_tasks.ports.Store` in a state directory."""

    durable = True

    def __init__(self, root: Path, *, now: Callable[[], float] = time.time) -> None:
        """Open the state directory, or make it.

        Args:
            root: The state directory.
            now: Seconds since the epoch; tells what is stale.

        Raises:
            StoreUnavailable: Another user's, another adapter's, a newer version's, on a network,
                or it cannot be written. What is there is left untouched.
        """
        self._now = now
        marked = all(os.path.isdir(os.path.join(root, name)) for name in StateMarks.FOLDERS)
        self._state = StateFolder(root, "json", ("sessions", "slots", *StateMarks.FOLDERS), now)
        self._sessions = SessionFolders(self._state)
        self._marks = StateMarks(self._state, self._sessions, self._state_name, now)
        self.slots = Path(self._state.path("slots"))
        self._cache = RecordCache()
        self._admission = ProcessLock(self._state.path("admission.lock"), _ADMISSION_SECONDS)
        if not marked or self._state.rebooted():
            self.rebuild_markers()
            self._state.remember_boot()

    def create(self, task: Task) -> None:
        """See `Store.create`. One durable write where the session exists and there is no key."""
        key = task.key
        if not TASK_ID.fullmatch(key.task_id):
            raise InvalidArgument("the task id must be 36 characters of 0-9 and a-z")
        data = encode_task(task)
        folder = self._sessions.ready(key.session_key, task.created_at)
        if task.spec.key is None:
            self._write_new(task, data, folder)
            return
        with self._sessions.lock(key.session_key):
            holder = self._holder(key.session_key, task.spec.key, locked=True)
            if holder is not None:
                raise KeyConflict(
                    f"the key {task.spec.key!r} belongs to task {holder.key.task_id}",
                    "a key is free again when its task is cleared",
                )
            # The entry comes first: without its task it is free, but a task without its entry
            # could be started twice.
            self._sessions.write_entry(key.session_key, task.spec.key, key.task_id)
            self._write_new(task, data, folder)

    def load(self, key: TaskKey) -> Task:
        """See `Store.load`. Raises NewerSchema (a StoreUnavailable) for a newer version's record."""
        return self._read(key)[0]

    def locate(self, owner: str, task_id: str) -> TaskKey:
        """See `Store.locate`."""
        if TASK_ID.fullmatch(task_id):
            for session in self._sessions.names(owner):
                key = TaskKey(owner, session.session, task_id)
                with suppress(TaskNotFound):
                    if os.path.lexists(self._record_path(key)):
                        return key
        raise TaskNotFound(task_id)

    def replace(self, task: Task) -> Task:
        """See `Store.replace`."""
        key = task.key
        new = dataclasses.replace(task, revision=task.revision + 1)
        data = encode_task(new)
        path = self._record_path(key)
        with self._sessions.lock(key.session_key):
            stored, previous = self._read(key, path, locked=True)
            if stored.revision != task.revision:
                raise RevisionConflict(
                    f"task {key.task_id} was changed meanwhile: "
                    f"revision {stored.revision}, not {task.revision}",
                    "read it again",
                )
            if new.state_name != stored.state_name:
                self._marks.mark(new)
            durable.write_durably(path, data, previous=previous or encode_task(stored))
            self._cache.drop(key)
            if new.state_name != stored.state_name:
                self._marks.unmark(new)
        return new

    def delete(self, key: TaskKey) -> int:
        """See `Store.delete`. What is left of the files after a failure goes at the next opening."""
        path = self._record_path(key)
        with self._sessions.lock(key.session_key):
            stored, _ = self._read(key, path, locked=True)
            try:
                trash = self._state.throw_away(path, key.task_id)
            except OSError as error:
                raise durable.unavailable("deleting a task", error) from error
            try:
                durable.fsync_folder(os.path.dirname(path))
            except StoreUnavailable:
                with suppress(OSError):
                    os.rename(trash, path)
                raise
            self._cache.drop(key)
            self._marks.forget(key)
            if stored.spec.key is not None:
                self._free_key(key, stored.spec.key)
        return self._remove(key, [trash, *self._thrown_runs(stored)])

    def _thrown_runs(self, task: Task) -> list[str]:
        """Take the run folders of a task that is gone out of the tree, as far as they are there."""
        thrown: list[str] = []
        for run in count(1):
            try:
                thrown.append(self._state.throw_away(str(self.run_folder(task.key, run)), task.key.task_id))
            except OSError:
                if run >= task.run:
                    break
        return thrown

    def _remove(self, key: TaskKey, trash: list[str]) -> int:
        freed = 0
        for path in trash:
            try:
                freed += remove_tree(path)
            except StoreUnavailable as error:
                self._state.report(
                    f"files of the cleared task {key.task_id} are left in trash/: {error.message}"
                )
        return freed

    def find_key(self, session: SessionKey, key: str) -> Task | None:
        """See `Store.find_key`."""
        return self._holder(session, key, locked=False)

    def tasks(self, session: SessionKey) -> Iterator[Task]:
        """See `Store.tasks`."""
        return self._loaded(session, sorted(self._sessions.task_ids(session), reverse=True), locked=False)

    def unfinished(self) -> list[TaskKey]:
        """See `Store.unfinished`. Looks at the marks only, and reads a record when it has changed."""
        return self._marks.unfinished()

    def pending(self) -> list[TaskKey]:
        """See `Store.pending`. Works as `unfinished` does, on marks of its own."""
        return self._marks.pending()

    def count_tasks(self) -> int:
        """See `Store.count_tasks`. Counts the names of records."""
        return sum(len(self._sessions.task_ids(session)) for session in self._sessions.names())

    def sessions(self, owner: str | None = None) -> list[Session]:
        """See `Store.sessions`."""
        return self._sessions.all(owner)

    def run_folder(self, key: TaskKey, run: int) -> Path:
        """See `Store.run_folder`. Raises TaskNotFound for names that cannot be."""
        return run_folder(self._state.root, key, run)

    def make_run_folder(self, key: TaskKey, run: int) -> Path:
        """See `Store.make_run_folder`. One mkdir where the session exists; TaskNotFound as `run_folder`."""
        return make_run_folder(self._state.root, key, run, self._state.report)

    def sweep(self) -> None:
        """See `Store.sweep`."""
        Leftovers(self._state, self._sessions, self.load, self._admission, self._now).remove()

    def admission(self) -> AbstractContextManager[None]:
        """See `Store.admission`. Raises StoreUnavailable when it is not to be had within 30 s."""
        return self._admission.held()

    def problems(self) -> list[str]:
        """See `Store.problems`."""
        return self._state.problems()

    def close(self) -> None:
        """Forget what was read. Nothing is held open between calls."""
        self._cache.clear()

    def rebuild_markers(self) -> None:
        """Mark every unfinished task anew, from the records of all sessions.

        Done by itself when the machine has started again since the marks were made.
        """
        for session in self._sessions.names():
            self._sessions.remove_stale_temporaries(session)
            for task in self.tasks(session):
                self._marks.mark(task)

    def _write_new(self, task: Task, data: bytes, session_folder: str) -> None:
        path = f"{session_folder}/tasks/{task.key.task_id}.json"
        began = time.monotonic()
        if os.path.lexists(path):
            raise RevisionConflict(f"there is a task {task.key.task_id} already", "make a new id")
        try:
            self._marks.mark(task)
            durable.write_durably(path, data)
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            self._marks.forget(task.key)
            raise
        if time.monotonic() - began > _SLOW_WRITE_SECONDS:
            self._marks.mark(task)  # somebody may have taken the mark for a stale one

    def _state_name(self, key: TaskKey, *, locked: bool) -> StateName | None:
        """The state of a task for the marks; None where its record tells nothing now."""
        try:
            return self._read(key, locked=locked)[0].state_name
        except NewerSchema:
            return None  # reported already, and left as it is
        except StoreUnavailable as error:
            self._bear(key.task_id, error)
            return None

    def _record_path(self, key: TaskKey, session_folder: str | None = None) -> str:
        """Where a record is or would be, no step on the way being a link. Raises TaskNotFound.

        Args:
            key: The task.
            session_folder: The way down to there is known to be without links.
        """
        if not TASK_ID.fullmatch(key.task_id):
            raise TaskNotFound(key.task_id)
        if session_folder is not None:
            return f"{session_folder}/tasks/{key.task_id}.json"
        try:
            return f"{self._sessions.existing(key.session_key, 'tasks')}/{key.task_id}.json"
        except FileNotFoundError:
            raise TaskNotFound(key.task_id) from None
        except durable.UnsafeFile as error:
            self._state.report(f"task {key.task_id}: {error.message}")
            raise TaskNotFound(key.task_id) from None

    def _read(self, key: TaskKey, path: str | None = None, *, locked: bool = False) -> tuple[Task, bytes]:
        """A task and the bytes it was read from; no bytes where it came from the cache."""
        path = path or self._record_path(key)
        try:
            cached = self._cache.get(key, os.lstat(path))
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
        self._cache.put(task, found)
        return task, data

    def _decoded(self, key: TaskKey, path: str) -> tuple[Task, bytes, os.stat_result]:
        data, found = durable.read_with_stat(path, report=self._state.report)
        task = decode_task(data)
        if task.key != key:
            raise BrokenRecord("task.key: the record is another task's")
        return task, data, found

    def _second_look(self, key: TaskKey, path: str, *, locked: bool) -> tuple[Task, bytes, os.stat_result]:
        """Set a broken record aside, unless it is well under the lock. Raises TaskNotFound then."""
        with nullcontext() if locked else self._sessions.lock(key.session_key):
            try:
                return self._decoded(key, path)
            except NewerSchema:
                raise
            except (BrokenRecord, durable.UnsafeFile) as error:
                self._state.set_aside(path, error.message)
            except FileNotFoundError:
                pass
        raise TaskNotFound(key.task_id)

    def _loaded(self, session: SessionKey, ids: list[str], *, locked: bool) -> Iterator[Task]:
        for task_id in ids:
            key = TaskKey(session.owner, session.session, task_id)
            try:
                # The way down to the records was looked at for the listing.
                path = self._record_path(key, self._sessions.path(session))
                yield self._read(key, path, locked=locked)[0]
            except TaskNotFound:
                continue
            except NewerSchema:
                continue  # reported by load, and left as it is
            except StoreUnavailable as error:
                self._bear(task_id, error)

    def _bear(self, task_id: str, error: StoreUnavailable) -> None:
        """Report a bad spot of the disk, which is this one record's; raise what is every record's."""
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno != errno.EIO:
            raise error
        self._state.report(f"task {task_id}: {error.message}")

    def _holder(self, session: SessionKey, key: str, *, locked: bool) -> Task | None:
        try:
            task_id = self._sessions.read_entry(session, key)
        except BrokenRecord as error:
            return self._recover_entry(session, key, error.message, locked=locked)
        if task_id is None:
            return None
        try:
            task, _ = self._read(TaskKey(session.owner, session.session, task_id), locked=locked)
        except TaskNotFound:
            return None
        return task if task.spec.key == key else None

    def _recover_entry(self, session: SessionKey, key: str, why: str, *, locked: bool) -> Task | None:
        """The records know their keys, so a broken entry costs one look through the session."""
        with nullcontext() if locked else self._sessions.lock(session):
            tasks = self._loaded(session, self._sessions.task_ids(session), locked=True)
            holder = next((task for task in tasks if task.spec.key == key), None)
            self._sessions.set_entry_aside(session, key, why)
            if holder is not None:
                self._sessions.write_entry(session, key, holder.key.task_id)
        return holder

    def _free_key(self, key: TaskKey, idempotency_key: str) -> None:
        with suppress(BrokenRecord, StoreUnavailable):
            if self._sessions.read_entry(key.session_key, idempotency_key) == key.task_id:
                self._sessions.remove_entry(key.session_key, idempotency_key)
