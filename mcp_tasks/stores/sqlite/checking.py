"""A look at every record of a database, and at all that is derived from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from mcp_tasks.codec import BrokenRecord, NewerSchema
from mcp_tasks.errors import TasksError
from mcp_tasks.models import PlanKey, SessionKey, Task, TaskKey
from mcp_tasks.stores.sqlite.rows import PLANS, SESSIONS, TASKS, AnyKey, Kind, RecordRows
from mcp_tasks.stores.sqlite.tables import open_state

__all__ = ["audit"]

_PAGE = 500


def audit(rows: RecordRows) -> Iterator[str]:
    """One sentence for each thing that is wrong; see `ports.Store.verify`."""
    for (line,) in rows.select("PRAGMA integrity_check"):
        if line != "ok":
            yield f"records.db: {line}"
    for owner, session, data in _each(rows, "sessions", "owner, session, data"):
        yield from _wrong(rows, SESSIONS, SessionKey(owner, session), data)
    yield from _tasks(rows)
    for owner, session, plan_id, data in _each(rows, "plans", "owner, session, plan_id, data"):
        yield from _wrong(rows, PLANS, PlanKey(owner, session, plan_id), data)
    for table, column in (("tasks", "task_id"), ("plans", "plan_id")):
        for session, name in rows.select(
            f"SELECT session, {column} FROM {table} t WHERE NOT EXISTS"  # noqa: S608 (our own words)
            " (SELECT 1 FROM sessions s WHERE s.owner = t.owner AND s.session = t.session)"
        ):
            yield f"{name} of {table}: there is no session {session}"


def _tasks(rows: RecordRows) -> Iterator[str]:
    counted: Counter[tuple[str, str, str]] = Counter()
    columns = "owner, session, task_id, revision, state, open, key, data"
    for owner, session, task_id, revision, state, open_, key, data in _each(rows, "tasks", columns):
        named = TaskKey(owner, session, task_id)
        task: Task | None = None
        with suppress(BrokenRecord, NewerSchema):
            task = rows.decoded(TASKS, named, data)
        if task is None:
            yield from _wrong(rows, TASKS, named, data)
            with suppress(TasksError):
                counted[owner, session, rows.read(TASKS, named).state_name] += 1
            continue
        counted[owner, session, task.state_name] += 1
        if (revision, state, open_, key) != (
            task.revision,
            task.state_name,
            open_state(task),
            task.spec.key,
        ):
            yield f"task {task_id}: its record and what it is found by differ"
    for owner, session, state, number in rows.select("SELECT * FROM counts WHERE number <> 0"):
        found = counted.pop((owner, session, state), 0)
        if found != number:
            yield f"session {session}: {found} tasks are {state}, and {number} are counted"
    for (_, session, state), found in counted.items():
        yield f"session {session}: {found} tasks are {state}, and none is counted"


def _wrong(rows: RecordRows, kind: Kind[Any], key: AnyKey, data: object) -> Iterator[str]:
    name = kind.address(key)[-1]
    try:
        rows.decoded(kind, key, data)
    except NewerSchema as error:
        yield f"{kind.name} {name}: {error.message}"
    except BrokenRecord as error:
        yield f"{kind.name} {name}: {error.message}"
        with suppress(TasksError):
            rows.read(kind, key)  # which sets it aside


def _each(rows: RecordRows, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    last = 0
    while True:
        page = rows.select(
            f"SELECT id, {columns} FROM {table} WHERE id > ? ORDER BY id LIMIT {_PAGE}",  # noqa: S608 (our own)
            last,
        )
        for row in page:
            yield row[1:]
        if len(page) < _PAGE:
            return
        last = page[-1][0]
