"""The tables of the SQLite store. `data` is the record; the other columns are derived from it.

A column is there only where something is found by it, so that nothing is decoded that nobody wants.
`open` is `waiting`, `held` or `running`, and NULL for what is final: the index on it holds no final task.
"""

from __future__ import annotations

from typing import Literal

from mcp_tasks.models import Task
from mcp_tasks.stores.database.database import Migration

__all__ = ["MIGRATIONS", "TABLES", "OpenState", "open_state"]

OpenState = Literal["waiting", "held", "running"]

TABLES = ("sessions", "tasks", "plans")
"""What is taken over from a broken database; `counts` is kept by triggers."""

_FIRST: Migration = (
    """
    CREATE TABLE sessions (
        id INTEGER PRIMARY KEY,
        owner TEXT NOT NULL,
        session TEXT NOT NULL,
        revision INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        data BLOB NOT NULL,
        UNIQUE (owner, session)
    )
    """,
    """
    CREATE TABLE tasks (
        id INTEGER PRIMARY KEY,
        owner TEXT NOT NULL,
        session TEXT NOT NULL,
        task_id TEXT NOT NULL,
        revision INTEGER NOT NULL,
        state TEXT NOT NULL,
        open TEXT,
        key TEXT,
        data BLOB NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX tasks_by_id ON tasks (owner, session, task_id)",
    "CREATE INDEX open_tasks ON tasks (open, task_id, owner, session) WHERE open IS NOT NULL",
    "CREATE INDEX tasks_by_state ON tasks (owner, session, state, task_id)",
    "CREATE UNIQUE INDEX task_keys ON tasks (owner, session, key) WHERE key IS NOT NULL",
    """
    CREATE TABLE plans (
        id INTEGER PRIMARY KEY,
        owner TEXT NOT NULL,
        session TEXT NOT NULL,
        plan_id TEXT NOT NULL,
        data BLOB NOT NULL,
        UNIQUE (owner, session, plan_id)
    )
    """,
    """
    CREATE TABLE counts (
        owner TEXT NOT NULL,
        session TEXT NOT NULL,
        state TEXT NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (owner, session, state)
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER count_new AFTER INSERT ON tasks BEGIN
        INSERT INTO counts VALUES (new.owner, new.session, new.state, 1)
            ON CONFLICT (owner, session, state) DO UPDATE SET number = number + 1;
    END
    """,
    """
    CREATE TRIGGER count_moved AFTER UPDATE OF state ON tasks WHEN old.state <> new.state BEGIN
        UPDATE counts SET number = number - 1
            WHERE owner = old.owner AND session = old.session AND state = old.state;
        INSERT INTO counts VALUES (new.owner, new.session, new.state, 1)
            ON CONFLICT (owner, session, state) DO UPDATE SET number = number + 1;
    END
    """,
    """
    CREATE TRIGGER count_gone AFTER DELETE ON tasks BEGIN
        UPDATE counts SET number = number - 1
            WHERE owner = old.owner AND session = old.session AND state = old.state;
    END
    """,
)

MIGRATIONS: tuple[Migration, ...] = (_FIRST,)
"""One for each version that there has been."""


def open_state(task: Task) -> OpenState | None:
    """What the column `open` says of a task."""
    match task.state_name:
        case "pending":
            return "held" if task.is_held else "waiting"
        case "running":
            return "running"
        case _:
            return None
