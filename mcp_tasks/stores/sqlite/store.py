"""The store in an SQLite database, safe for many threads and many processes.

`records.db` has the records; `sessions/<owner>/<session>/runs/<task id>.<n>/` is the folder of the n-th
run of a task, as with JSON files. A write is one transaction, and durable when it returns.
"""

from __future__ import annotations

import dataclasses
import heapq
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from mcp_tasks.codec import NewerSchema, encode_task
from mcp_tasks.errors import (
    InvalidArgument,
    KeyConflict,
    RevisionConflict,
    SessionNotFound,
    TaskNotFinished,
    TaskNotFound,
)
from mcp_tasks.models import (
    TASK_ID,
    Plan,
    PlanKey,
    Session,
    SessionKey,
    StateName,
    Task,
    TaskKey,
)
from mcp_tasks.stores.database.connections import Connection
from mcp_tasks.stores.database.database import Database
from mcp_tasks.stores.disk.leftovers import Leftovers
from mcp_tasks.stores.disk.locks import ProcessLock
from mcp_tasks.stores.disk.run_folders import make_run_folder, run_folder
from mcp_tasks.stores.disk.state_folder import StateFolder
from mcp_tasks.stores.sqlite.checking import audit
from mcp_tasks.stores.sqlite.plans import PlanRows
from mcp_tasks.stores.sqlite.rows import PLANS, SESSIONS, TASKS, RecordRows
from mcp_tasks.stores.sqlite.run_registry import RunRegistry
from mcp_tasks.stores.sqlite.sessions import SessionRows, compare, refuse_name
from mcp_tasks.stores.sqlite.tables import MIGRATIONS, TABLES, OpenState, open_state

__all__ = ["SqliteStore"]

_ADMISSION_SECONDS = 30.0
_PAGE = 200
_AFTER_EVERY_ID = "~"


class SqliteStore:
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
        self._state = StateFolder(root, "sqlite", ("sessions", "slots"), now)
        self.slots = Path(self._state.path("slots"))
        self._admission = ProcessLock(self._state.path("admission.lock"), _ADMISSION_SECONDS)
        self._note_missing_records()
        self._database = Database(
            self._state.path("records.db"),
            MIGRATIONS,
            quarantine=self._state.path("quarantine"),
            report=self._state.report,
            tables=TABLES,
        )
        self._rows = RecordRows(self._state, self._database)
        self._runs = RunRegistry(self._state, self._rows.select)
        self._plans = PlanRows(self._rows)
        self._sessions = SessionRows(self._rows)
        try:
            self._sessions.adopt(int(now() * 1000))
        except BaseException:
            self._database.close()
            raise

    def _note_missing_records(self) -> None:
        """Where the database is gone but not what the tasks wrote, that is kept as if it had been broken."""
        if not os.path.lexists(self._state.path("records.db")):
            runs = next(Path(self._state.path("sessions")).glob("*/*/runs/*"), None)
            if runs is not None:
                self._state.keep_aside("records.db", b"", "it was missing, and the output of tasks was not")

    def create(self, task: Task) -> None:
        """See `Store.create`. One transaction."""
        key = task.key
        if not TASK_ID.fullmatch(key.task_id):
            raise InvalidArgument("the task id must be 36 characters of 0-9 and a-z")
        refuse_name(key.session)
        row = (*TASKS.address(key), task.revision, task.state_name, open_state(task), task.spec.key)
        data = encode_task(task)

        def write(connection: Connection) -> None:
            self._sessions.register(connection, Session(key.session_key, task.created_at))
            if task.spec.key is not None:
                self._refuse_key(connection, key.session_key, task.spec.key)
            try:
                connection.execute(
                    "INSERT INTO tasks (owner, session, task_id, revision, state, open, key, data)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (*row, data),
                )
            except sqlite3.IntegrityError:
                raise RevisionConflict(f"there is a task {key.task_id} already", "make a new id") from None

        self._rows.change(write)
        self._sessions.known.add(key.session_key)

    def load(self, key: TaskKey) -> Task:
        """See `Store.load`. Raises NewerSchema (a StoreUnavailable) for a newer version's record."""
        return self._rows.read(TASKS, key)

    def locate(self, owner: str, task_id: str) -> TaskKey:
        """See `Store.locate`."""
        rows = self._rows.select(
            "SELECT session FROM tasks WHERE owner = ?1 AND task_id = ?2"
            " AND session IN (SELECT session FROM sessions WHERE owner = ?1) ORDER BY session LIMIT 1",
            owner,
            task_id,
        )
        if not rows:
            raise TaskNotFound(task_id)
        return TaskKey(owner, rows[0][0], task_id)

    def replace(self, task: Task) -> Task:
        """See `Store.replace`. One transaction."""
        new = dataclasses.replace(task, revision=task.revision + 1)
        data = encode_task(new)

        def write(connection: Connection) -> bool:
            stored = self._rows.stored(connection, TASKS, task.key)
            if stored is None:
                return False
            compare(f"task {task.key.task_id}", stored.revision, task.revision)
            connection.execute(
                "UPDATE tasks SET revision = ?, state = ?, open = ?, data = ?"
                " WHERE owner = ? AND session = ? AND task_id = ?",
                (new.revision, new.state_name, open_state(new), data, *TASKS.address(task.key)),
            )
            return True

        if not self._rows.change(write):
            raise TaskNotFound(task.key.task_id)
        return new

    def delete(self, key: TaskKey) -> int:
        """See `Store.delete`. What is left of the files after a failure goes at the next opening."""

        def write(connection: Connection) -> Task | None:
            stored = self._rows.stored(connection, TASKS, key)
            if stored is not None:
                connection.execute(f"DELETE FROM tasks WHERE {TASKS.where}", TASKS.address(key))  # noqa: S608
            return stored

        stored = self._rows.change(write) if self._is_there(key) else None
        if stored is None:
            raise TaskNotFound(key.task_id)
        return self._runs.remove(key, stored.run)

    def find_key(self, session: SessionKey, key: str) -> Task | None:
        """See `Store.find_key`."""
        rows = self._rows.select(
            "SELECT task_id FROM tasks WHERE owner = ? AND session = ? AND key = ?",
            *SESSIONS.address(session),
            key,
        )
        if not rows:
            return None
        try:
            return self.load(TaskKey(session.owner, session.session, rows[0][0]))
        except TaskNotFound:
            return None

    def tasks(
        self, session: SessionKey, *, before: str | None = None, states: Collection[StateName] | None = None
    ) -> Iterator[Task]:
        """See `Store.tasks`."""
        before = _AFTER_EVERY_ID if before is None else before
        if states is None:
            ids = self._ids(session, before)
        else:
            each = [self._ids(session, before, state) for state in states]
            ids = heapq.merge(*each, reverse=True)
        for task_id in ids:
            try:
                task = self.load(TaskKey(session.owner, session.session, task_id))
            except (TaskNotFound, NewerSchema):
                continue  # cleared meanwhile, or reported
            if states is None or task.state_name in states:
                yield task

    def unfinished(self) -> list[TaskKey]:
        """See `Store.unfinished`. Reads an index that holds no other tasks."""
        rows = self._rows.select(
            "SELECT owner, session, task_id FROM tasks WHERE open IS NOT NULL ORDER BY task_id"
        )
        return [TaskKey(*row) for row in rows]

    def pending(self) -> list[TaskKey]:
        """See `Store.pending`."""
        return self._open("waiting")

    def held(self) -> list[TaskKey]:
        """See `Store.held`."""
        return self._open("held")

    def counts(self, session: SessionKey) -> Mapping[StateName, int]:
        """See `Store.counts`. They are kept by the database itself."""
        return dict(
            self._rows.select(
                "SELECT state, number FROM counts WHERE owner = ? AND session = ? AND number > 0",
                *SESSIONS.address(session),
            )
        )

    def states(self, session: SessionKey, task_ids: Sequence[str]) -> Mapping[str, StateName]:
        """See `Store.states`."""
        found: dict[str, StateName] = {}
        for begin in range(0, len(task_ids), _PAGE):
            ids = task_ids[begin : begin + _PAGE]
            places = ", ".join("?" * len(ids))
            query = f"""
                SELECT task_id, state FROM tasks INDEXED BY tasks_by_id
                WHERE owner = ? AND session = ? AND task_id IN ({places})
                """  # noqa: S608 (question marks)
            found |= self._rows.select(query, *SESSIONS.address(session), *ids)
        return found

    def count_tasks(self) -> int:
        """See `Store.count_tasks`."""
        return int(self._rows.select("SELECT COALESCE(SUM(number), 0) FROM counts")[0][0])

    def sessions(self, owner: str | None = None) -> list[Session]:
        """See `Store.sessions`."""
        return self._sessions.all(owner)

    def open_session(self, session: Session) -> Session:
        """See `Store.open_session`."""
        return self._sessions.open(session)

    def load_session(self, key: SessionKey) -> Session:
        """See `Store.load_session`."""
        return self._rows.read(SESSIONS, key)

    def replace_session(self, session: Session) -> Session:
        """See `Store.replace_session`."""
        return self._sessions.replace(session)

    def delete_session(self, key: SessionKey) -> int:
        """See `Store.delete_session`. What is left of the files after a failure goes when swept."""
        address = SESSIONS.address(key)
        self.load_session(key)

        def write(connection: Connection) -> frozenset[str]:
            where = "WHERE owner = ? AND session = ?"
            query = f"SELECT task_id FROM tasks {where} AND open IS NOT NULL LIMIT 1"  # noqa: S608 (our own)
            unfinished = connection.execute(query, address).fetchone()
            if unfinished is not None:
                raise TaskNotFinished(
                    f"task {unfinished[0]} of the session is not final",
                    "cancel it first, or wait for its end",
                )
            found = connection.execute(f"SELECT task_id FROM tasks {where}", address)  # noqa: S608 (our own)
            ids = frozenset(task_id for (task_id,) in found)
            if self._runs.is_starting(key, ids):
                raise TaskNotFinished(
                    f"session {key.session} is in use: a task is being started", "end what runs in it first"
                )
            for table in ("plans", "tasks", "counts"):
                connection.execute(f"DELETE FROM {table} {where}", address)  # noqa: S608 (our own words)
            if not connection.execute(f"DELETE FROM sessions {where}", address).rowcount:  # noqa: S608
                raise SessionNotFound(key.session)
            return ids

        gone = self._rows.change(write)
        self._sessions.known.discard(key)
        return self._runs.remove_all(key, gone)

    def create_plan(self, plan: Plan) -> None:
        """See `Store.create_plan`."""
        self._plans.create(plan)

    def load_plan(self, key: PlanKey) -> Plan:
        """See `Store.load_plan`. Raises NewerSchema for a newer version's record."""
        return self._rows.read(PLANS, key)

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
        return make_run_folder(
            self._state.root, key, run, report=self._state.report, making=self._runs.making
        )

    def sweep(self) -> None:
        """See `Store.sweep`."""
        Leftovers(
            self._state, self._runs, self.load, self._admission, self._now, registered=self._runs
        ).remove()

    def admission(self) -> AbstractContextManager[None]:
        """See `Store.admission`. Raises StoreUnavailable when it is not to be had within 30 s."""
        return self._admission.held()

    def verify(self) -> Iterator[str]:
        """See `Store.verify`."""
        return audit(self._rows)

    def problems(self) -> list[str]:
        """See `Store.problems`."""
        return self._state.problems()

    def close(self) -> None:
        """Close the database, and forget what was read."""
        self._rows.forget()
        self._database.close()

    def _ids(self, session: SessionKey, before: str, state: StateName | None = None) -> Iterator[str]:
        """The ids of a session, newest first; each page is one look into an index."""
        which = "owner = ? AND session = ? AND task_id < ?" + ("" if state is None else " AND state = ?")
        query = f"SELECT task_id FROM tasks WHERE {which} ORDER BY task_id DESC LIMIT {_PAGE}"  # noqa: S608
        while True:
            page = self._rows.select(query, *SESSIONS.address(session), before, *filter(None, (state,)))
            yield from (task_id for (task_id,) in page)
            if len(page) < _PAGE:
                return
            before = page[-1][0]

    def _open(self, what: OpenState) -> list[TaskKey]:
        rows = self._rows.select(
            "SELECT owner, session, task_id FROM tasks WHERE open = ? ORDER BY task_id", what
        )
        return [TaskKey(*row) for row in rows]

    def _is_there(self, key: TaskKey) -> bool:
        return bool(self._rows.select(f"SELECT 1 FROM tasks WHERE {TASKS.where}", *TASKS.address(key)))  # noqa: S608

    def _refuse_key(self, connection: Connection, session: SessionKey, key: str) -> None:
        query = "SELECT task_id FROM tasks WHERE owner = ? AND session = ? AND key = ?"
        row = connection.execute(query, (*SESSIONS.address(session), key)).fetchone()
        if row is None:
            return
        holder = TaskKey(session.owner, session.session, row[0])
        if self._rows.stored(connection, TASKS, holder) is not None:
            raise KeyConflict(
                f"the key {key!r} belongs to task {holder.task_id}",
                "a key is free again when its task is cleared",
            )
