"""When sessions were used, and who was connected to them; in a transaction of the caller."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mcp_tasks.models import Connection, SessionKey

__all__ = ["connections", "note_connection", "used", "used_at"]

_COLUMNS = "connection_id, owner, session, client, version, transport, began_at, seen_at, ended_at, ended"
_KEPT = 200
"""So many connections of an owner are remembered."""


def used(connection: sqlite3.Connection, number: int, at: int) -> None:
    """Note that a session was used."""
    connection.execute(
        "UPDATE session SET active_at = max(coalesce(active_at, 0), ?) WHERE id = ?", (at, number)
    )


def used_at(connection: sqlite3.Connection, sessions: Sequence[SessionKey]) -> dict[SessionKey, int]:
    """When sessions were used last."""
    found: dict[SessionKey, int] = {}
    if len(sessions) > 50:
        # All at once: one pass is cheaper than many look-ups.
        wanted = set(sessions)
        for owner, name, at in connection.execute("SELECT owner, name, active_at FROM session"):
            if at is not None and SessionKey(owner, name) in wanted:
                found[SessionKey(owner, name)] = at
        return found
    for key in sessions:
        row = connection.execute(
            "SELECT active_at FROM session WHERE owner = ? AND name = ?", (key.owner, key.session)
        ).fetchone()
        if row is not None and row[0] is not None:
            found[key] = row[0]
    return found


def note_connection(tables: sqlite3.Connection, connection: Connection) -> None:
    """Remember a connection as it is now, and forget the oldest ones of its owner."""
    values = tuple(getattr(connection, name.strip()) for name in _COLUMNS.split(","))
    cursor = tables.execute(
        f"INSERT INTO connection ({_COLUMNS}) VALUES ({', '.join('?' * len(values))})"  # noqa: S608 - constants
        " ON CONFLICT (connection_id) DO UPDATE SET session = excluded.session, client = excluded.client,"
        " version = excluded.version, seen_at = max(seen_at, excluded.seen_at),"
        " ended_at = coalesce(excluded.ended_at, ended_at), ended = coalesce(excluded.ended, ended)"
        " WHERE owner = excluded.owner",
        values,
    )
    if cursor.rowcount:
        tables.execute(
            "DELETE FROM connection WHERE owner = ?1 AND connection_id NOT IN"
            " (SELECT connection_id FROM connection WHERE owner = ?1 ORDER BY began_at DESC LIMIT ?2)",
            (connection.owner, _KEPT),
        )


def connections(tables: sqlite3.Connection, owner: str, session: str | None, limit: int) -> list[Connection]:
    """The newest connections of an owner, or of one session."""
    query = f"SELECT {_COLUMNS} FROM connection WHERE owner = ?"  # noqa: S608 - constants
    values: list[object] = [owner]
    if session is not None:
        query += " AND session = ?"
        values.append(session)
    query += " ORDER BY began_at DESC, rowid DESC LIMIT ?"
    return [Connection(*row) for row in tables.execute(query, (*values, limit))]
