"""Records as rows of a database: read, decoded, and set aside where they are broken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar, cast

from mcp_tasks.codec import (
    BrokenRecord,
    NewerSchema,
    decode_plan,
    decode_session,
    decode_task,
    encode_session,
)
from mcp_tasks.errors import PlanNotFound, SessionNotFound, StoreUnavailable, TaskNotFound, TasksError
from mcp_tasks.models import Plan, PlanKey, Session, SessionKey, Task, TaskKey
from mcp_tasks.stores.database.connections import Connection
from mcp_tasks.stores.database.database import Damaged, Database
from mcp_tasks.stores.disk.folder_names import session_folder
from mcp_tasks.stores.disk.state_folder import StateFolder

__all__ = ["PLANS", "SESSIONS", "TASKS", "AnyKey", "Kind", "RecordRows"]

_MOST_CACHED = 8_192

T = TypeVar("T")
R = TypeVar("R", bound=Task | Session | Plan)
AnyKey: TypeAlias = TaskKey | PlanKey | SessionKey


@dataclass(frozen=True, slots=True)
class Kind(Generic[R]):
    """How the records of one table are addressed and read.

    Attributes:
        name: In words.
        table: Name of the table.
        column: That has the id of a record, besides `owner` and `session`.
        decode: Reads `data`. Raises BrokenRecord, NewerSchema.
        missing: What is raised where there is no record of an id.
    """

    name: str
    table: str
    column: str
    decode: Callable[[bytes], R]
    missing: Callable[[str], TasksError]

    @property
    def where(self) -> str:
        """The condition that names one record."""
        return "owner = ? AND session = ?" + (f" AND {self.column} = ?" if self.table != "sessions" else "")

    def address(self, key: AnyKey) -> tuple[str, ...]:
        """The values for `where`."""
        match key:
            case TaskKey():
                return key.owner, key.session, key.task_id
            case PlanKey():
                return key.owner, key.session, key.plan_id
            case SessionKey():
                return key.owner, key.session

    def not_found(self, key: AnyKey) -> TasksError:
        """The error for a key that names nothing."""
        return self.missing(self.address(key)[-1])


TASKS = Kind("task", "tasks", "task_id", decode_task, TaskNotFound)
PLANS = Kind("plan", "plans", "plan_id", decode_plan, PlanNotFound)
SESSIONS = Kind("session", "sessions", "session", decode_session, SessionNotFound)


class RecordRows:
    """The records in a database. What was broken as a whole is tried once more on the new one."""

    def __init__(self, state: StateFolder, database: Database) -> None:
        """Nothing is read yet."""
        self._state = state
        self._database = database
        self._guard = threading.Lock()
        self._cache: dict[AnyKey, tuple[bytes, Task | Session | Plan]] = {}

    def select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows of a query. Raises StoreUnavailable."""

        def read() -> list[tuple[Any, ...]]:
            with self._database.reading() as connection:
                return connection.execute(query, values).fetchall()

        try:
            return self._once_more(read)
        except UnicodeEncodeError:  # a name that no record can have
            return []

    def change(self, work: Callable[[Connection], T]) -> T:
        """Do something in one transaction, which is durable then. Raises StoreUnavailable."""

        def write() -> T:
            with self._database.transaction() as connection:
                return work(connection)

        return self._once_more(write)

    def read(self, kind: Kind[R], key: AnyKey) -> R:
        """One record.

        Raises:
            TasksError: `kind.missing`: there is none, or it was broken and has been set aside.
            NewerSchema: A newer version wrote it.
        """
        address = kind.address(key)
        rows = self.select(f"SELECT data FROM {kind.table} WHERE {kind.where}", *address)  # noqa: S608
        if not rows:
            raise kind.not_found(key)
        try:
            return self.decoded(kind, key, rows[0][0])
        except NewerSchema as error:
            self._state.report(f"{kind.name} {address[-1]}: {error.message}")
            raise
        except BrokenRecord:
            pass
        try:
            stored = self.change(lambda connection: self.stored(connection, kind, key))
        except NewerSchema:
            raise
        except StoreUnavailable as error:
            self._state.report(f"{kind.name} {address[-1]} is broken and could not be set aside: {error}")
            stored = None
        if stored is None:
            raise kind.not_found(key)
        return stored

    def stored(self, connection: Connection, kind: Kind[R], key: AnyKey) -> R | None:
        """One record within a transaction; None where there is none, or it is broken and set aside now.

        A session lives on with what is left of it. Raises NewerSchema.
        """
        address = kind.address(key)
        query = f"SELECT * FROM {kind.table} WHERE {kind.where}"  # noqa: S608 (our own words)
        cursor = connection.execute(query, address)
        row = cursor.fetchone()
        if row is None:
            return None
        columns = dict(zip((one[0] for one in cursor.description), row, strict=True))
        cursor.close()
        try:
            return self.decoded(kind, key, columns["data"])
        except NewerSchema:
            raise
        except BrokenRecord as error:
            return self._set_aside(connection, kind, key, columns, error.message)

    def decoded(self, kind: Kind[R], key: AnyKey, data: object) -> R:
        """A record from its bytes. Raises BrokenRecord, NewerSchema."""
        known = self._cache.get(key)
        if known is not None and known[0] == data:
            return cast("R", known[1])
        if not isinstance(data, bytes):
            raise BrokenRecord(f"{kind.name}: not bytes but {type(data).__name__}")
        record = kind.decode(data)
        if record.key != key:
            raise BrokenRecord(f"{kind.name}.key: the record is another {kind.name}'s")
        if not isinstance(record, Task) or record.is_final:
            with self._guard:  # only what is read again and again
                while len(self._cache) >= _MOST_CACHED:
                    del self._cache[next(iter(self._cache))]
                self._cache[key] = (data, record)
        return record

    def forget(self) -> None:
        """Keep nothing of what was read."""
        with self._guard:
            self._cache.clear()

    def _set_aside(
        self, connection: Connection, kind: Kind[R], key: AnyKey, columns: Mapping[str, Any], why: str
    ) -> R | None:
        address = kind.address(key)
        data = columns["data"]
        raw = data if isinstance(data, bytes) else str(data).encode("utf-8", "surrogateescape")
        # As the files of the JSON store are called, so that what is swept knows whose output to keep.
        name = kind.name if isinstance(key, SessionKey) else address[-1]
        try:
            self._state.keep_aside(f"{session_folder(key.session)}~{name}.json", raw, why)
        except StoreUnavailable as error:
            self._state.report(f"{kind.name} {address[-1]} is broken and could not be set aside: {error}")
            return None
        if isinstance(key, SessionKey):
            # Its tasks are well, so it stays, with what is left of it.
            session = Session(key, int(columns["created_at"]), int(columns["revision"]) + 1)
            connection.execute(
                "UPDATE sessions SET revision = ?, data = ? WHERE owner = ? AND session = ?",
                (session.revision, encode_session(session), *address),
            )
            return cast("R", session)
        connection.execute(f"DELETE FROM {kind.table} WHERE {kind.where}", address)  # noqa: S608
        return None

    @staticmethod
    def _once_more(work: Callable[[], T]) -> T:
        try:
            return work()
        except Damaged:
            return work()
