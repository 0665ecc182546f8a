"""The store of JSON files: one small file per task, safe for many threads and many processes.

`sessions/<owner>/<session>/tasks/<task id>.json` is the record, `runs/<task id>.<n>/` the folder of
its n-th run. A change of state rewrites this one file, whatever the number of tasks. Everything else
(marks of the unfinished, entries of idempotency keys, the index of the final ones) is derived from
the records or free without one.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from itertools import count
from pathlib import Path

from mcp_tasks.codec import BrokenRecord, NewerSchema, encode_task
from mcp_tasks.errors import (
    InvalidArgument,
    KeyConflict,
    RevisionConflict,
    StoreUnavailable,
    TaskNotFound,
)
from mcp_tasks.models import TASK_ID, Plan, PlanKey, Session, SessionKey, StateName, Task, TaskKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.leftovers import Leftovers
from mcp_tasks.stores.disk.locks import FolderGone, ProcessLock
from mcp_tasks.stores.disk.removal import remove_tree
from mcp_tasks.stores.disk.run_folders import make_run_folder, run_folder
from mcp_tasks.stores.disk.state_folder import StateFolder
from mcp_tasks.stores.json.checking import Checking
from mcp_tasks.stores.json.key_entries import KeyEntries
from mcp_tasks.stores.json.plan_files import PlanFiles
from mcp_tasks.stores.json.session_files import SessionFiles
from mcp_tasks.stores.json.session_folders import SessionFolders
from mcp_tasks.stores.json.session_removal import SessionRemoval
from mcp_tasks.stores.json.state_marks import Standing, StateMarks, standing
from mcp_tasks.stores.json.task_files import TaskFiles
from mcp_tasks.stores.json.task_index import TaskIndex

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
        self._state = StateFolder(root, "json", ("sessions", "slots", *StateMarks.FOLDERS), now)
        self._sessions = SessionFolders(self._state)
        self._session_files = SessionFiles(self._state, self._sessions)
        self._records = TaskFiles(self._state, self._sessions)
        self._keys = KeyEntries(self._state, self._sessions)
        self._plans = PlanFiles(self._state, self._sessions)
        self._marks = StateMarks(self._state, self._sessions, self._standing, now)
        self._index = TaskIndex(self._sessions, self._records, self._marks.glance)
        self.slots = Path(self._state.path("slots"))
        self._admission = ProcessLock(self._state.path("admission.lock"), _ADMISSION_SECONDS)
        # Before schema 2 nothing was held, so there is nothing to mark.
        unmarked = self._state.made.intersection(StateMarks.FOLDERS) - (
            {"held"} if self._state.lifted_from else set()
        )
        if unmarked or self._state.rebooted():
            self.rebuild_markers()
            self._state.remember_boot()

    def create(self, task: Task) -> None:
        """See `Store.create`. One durable write where the session exists and there is no key."""
        key = task.key
        if not TASK_ID.fullmatch(key.task_id):
            raise InvalidArgument("the task id must be 36 characters of 0-9 and a-z")
        data = encode_task(task)
        try:
            self._create(task, data)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            # The session was deleted under our feet. It is made anew when that is over.
            self._create(task, data)

    def _create(self, task: Task, data: bytes) -> None:
        key = task.key
        folder = self._session_files.ready(key.session_key, task.created_at)
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
            self._keys.write(key.session_key, task.spec.key, key.task_id)
            self._write_new(task, data, folder)

    def load(self, key: TaskKey) -> Task:
        """See `Store.load`. Raises NewerSchema (a StoreUnavailable) for a newer version's record."""
        return self._records.read(key)[0]

    def locate(self, owner: str, task_id: str) -> TaskKey:
        """See `Store.locate`."""
        if TASK_ID.fullmatch(task_id):
            for session in self._sessions.names(owner):
                key = TaskKey(owner, session.session, task_id)
                with suppress(TaskNotFound):
                    if os.path.lexists(self._records.path(key)):
                        return key
        raise TaskNotFound(task_id)

    def replace(self, task: Task) -> Task:
        """See `Store.replace`."""
        key = task.key
        new = dataclasses.replace(task, revision=task.revision + 1)
        data = encode_task(new)
        path = self._records.path(key)
        with self._locked(key):
            stored, previous = self._records.read(key, path, locked=True)
            if stored.revision != task.revision:
                raise RevisionConflict(
                    f"task {key.task_id} was changed meanwhile: "
                    f"revision {stored.revision}, not {task.revision}",
                    "read it again",
                )
            moved = standing(new) != standing(stored)
            changed = new.state_name != stored.state_name
            if moved:
                self._marks.mark(new)
            if changed and stored.is_final:
                self._index.withdraw(key)
            durable.write_durably(path, data, previous=previous or encode_task(stored))
            self._records.cache.drop(key)
            if moved:
                self._marks.unmark(new)
            if changed:
                self._index.add(new)
        return new

    def delete(self, key: TaskKey) -> int:
        """See `Store.delete`. What is left of the files after a failure goes at the next opening."""
        path = self._records.path(key)
        with self._locked(key):
            stored, _ = self._records.read(key, path, locked=True)
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
            self._records.cache.drop(key)
            self._marks.forget(key)
            if stored.spec.key is not None:
                self._free_key(key, stored.spec.key)
        return self._remove(key, [trash, *self._thrown_runs(stored)])

    def _locked(self, key: TaskKey) -> ExitStack:
        """The lock of a task's session. Raises TaskNotFound where the session has just been deleted."""
        with ExitStack() as held:
            try:
                held.enter_context(self._sessions.lock(key.session_key))
            except FolderGone:
                raise TaskNotFound(key.task_id) from None
            return held.pop_all()

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

    def tasks(
        self, session: SessionKey, *, before: str | None = None, states: Collection[StateName] | None = None
    ) -> Iterator[Task]:
        """See `Store.tasks`. A final task that is in none of the states is not read."""
        return self._index.newest_first(session, before, states)

    def counts(self, session: SessionKey) -> Mapping[StateName, int]:
        """See `Store.counts`. Lists the names of the records, and reads those that are not final."""
        return self._index.counts(session)

    def states(self, session: SessionKey, task_ids: Sequence[str]) -> Mapping[str, StateName]:
        """See `Store.states`."""
        return self._index.states(session, task_ids)

    def unfinished(self) -> list[TaskKey]:
        """See `Store.unfinished`. Looks at the marks only, and reads a record when it has changed."""
        return self._marks.unfinished()

    def pending(self) -> list[TaskKey]:
        """See `Store.pending`. Works as `unfinished` does, on marks of its own."""
        return self._marks.pending()

    def held(self) -> list[TaskKey]:
        """See `Store.held`. Works as `unfinished` does, on marks of its own."""
        return self._marks.held()

    def count_tasks(self) -> int:
        """See `Store.count_tasks`. Counts the names of records."""
        return sum(len(self._sessions.task_ids(session)) for session in self._sessions.names())

    def sessions(self, owner: str | None = None) -> list[Session]:
        """See `Store.sessions`."""
        return self._session_files.all(owner)

    def open_session(self, session: Session) -> Session:
        """See `Store.open_session`."""
        return self._session_files.open(session)

    def load_session(self, key: SessionKey) -> Session:
        """See `Store.load_session`. Raises NewerSchema for a newer version's record."""
        return self._session_files.load(key)

    def replace_session(self, session: Session) -> Session:
        """See `Store.replace_session`."""
        return self._session_files.replace(session)

    def delete_session(self, key: SessionKey) -> int:
        """See `Store.delete_session`. It goes in one step, or stays; what is left of its files goes later."""
        self._session_files.load(key)
        self._plans.refuse_newer(key)
        trash = SessionRemoval(self._state, self._sessions, self._index, self._now).take(key)
        self._session_files.forget(key)
        try:
            return remove_tree(trash)
        except StoreUnavailable as error:
            self._state.report(
                f"files of the deleted session {key.session} are left in trash/: {error.message}"
            )
            return 0

    def create_plan(self, plan: Plan) -> None:
        """See `Store.create_plan`."""
        self._plans.create(plan)

    def load_plan(self, key: PlanKey) -> Plan:
        """See `Store.load_plan`."""
        return self._plans.load(key)

    def plans(self, session: SessionKey) -> Iterator[Plan]:
        """See `Store.plans`."""
        return self._plans.all(session)

    def delete_plan(self, key: PlanKey) -> None:
        """See `Store.delete_plan`."""
        self._plans.delete(key)

    def run_folder(self, key: TaskKey, run: int) -> Path:
        """See `Store.run_folder`. Raises TaskNotFound for names that cannot be."""
        return run_folder(self._state.root, key, run)

    def make_run_folder(self, key: TaskKey, run: int) -> Path:
        """See `Store.make_run_folder`. One mkdir where the session exists; TaskNotFound as `run_folder`."""
        return make_run_folder(self._state.root, key, run, self._state.report, self._sessions.making)

    def sweep(self) -> None:
        """See `Store.sweep`."""
        for session in self._sessions.names():
            self._sessions.remove_stale_temporaries(session)
        Leftovers(self._state, self._sessions, self.load, self._admission, self._now).remove()

    def admission(self) -> AbstractContextManager[None]:
        """See `Store.admission`. Raises StoreUnavailable when it is not to be had within 30 s."""
        return self._admission.held()

    def verify(self) -> Iterator[str]:
        """See `Store.verify`."""
        return Checking(self, self._sessions, self._keys, self._index, self._marks).sentences()

    def problems(self) -> list[str]:
        """See `Store.problems`."""
        return self._state.problems()

    def close(self) -> None:
        """Forget what was read. Nothing is held open between calls."""
        self._records.cache.clear()
        self._index.clear()

    def rebuild_markers(self) -> None:
        """Mark every unfinished task anew, from the records of all sessions that are not known as final.

        Done by itself when the machine has started again since the marks were made.
        """
        for session in self._sessions.names():
            for task in self._index.unfinished(session):
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

    def _standing(self, key: TaskKey, *, locked: bool) -> Standing | None:
        """Where a task stands, for the marks; None where its record tells nothing now."""
        try:
            return standing(self._records.read(key, locked=locked)[0])
        except NewerSchema:
            return None  # reported already, and left as it is
        except StoreUnavailable as error:
            self._records.bear(key.task_id, error)
            return None

    def _holder(self, session: SessionKey, key: str, *, locked: bool) -> Task | None:
        try:
            task_id = self._keys.read(session, key)
        except BrokenRecord as error:
            return self._recover_entry(session, key, error.message, locked=locked)
        if task_id is None:
            return None
        try:
            task, _ = self._records.read(TaskKey(session.owner, session.session, task_id), locked=locked)
        except TaskNotFound:
            return None
        return task if task.spec.key == key else None

    def _recover_entry(self, session: SessionKey, key: str, why: str, *, locked: bool) -> Task | None:
        """The records know their keys, so a broken entry costs one look through the session."""
        with nullcontext() if locked else self._sessions.lock(session):
            tasks = self._records.each(session, self._sessions.task_ids(session), locked=True)
            holder = next((task for task in tasks if task.spec.key == key), None)
            self._keys.set_aside(session, key, why)
            if holder is not None:
                self._keys.write(session, key, holder.key.task_id)
        return holder

    def _free_key(self, key: TaskKey, idempotency_key: str) -> None:
        with suppress(BrokenRecord, StoreUnavailable):
            if self._keys.read(key.session_key, idempotency_key) == key.task_id:
                self._keys.remove(key.session_key, idempotency_key)
