"""Rows of a journal's tables, read and written inside of one transaction; nothing here begins or ends one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from mcp_tasks.models import SessionKey
from mcp_tasks.stores.journal.folding import AtRest, unpack
from mcp_tasks.stores.journal.schema import COLUMNS, SEQ_BITS, Row, first_row, last_row

__all__ = [
    "ID",
    "SEALED",
    "TEXT",
    "add_messages",
    "any_page",
    "folded_ids",
    "forget_messages",
    "forget_older",
    "forget_words",
    "index_tail",
    "indexed_row",
    "learn_words",
    "live_count",
    "live_page",
    "make_session",
    "newest_row",
    "newest_summary",
    "one_message",
    "session_number",
    "snapshot",
    "summaries",
    "with_versions",
]

ID, ROLE, TEXT, SEALED = 0, 2, 4, 9
"""Where they stand in COLUMNS."""

_AT_ONCE = 500

_INSERT = (
    f"INSERT INTO message (session, {COLUMNS}) VALUES ({', '.join('?' * (1 + len(COLUMNS.split(','))))})"  # noqa: S608 - a constant
)
_LIVE = f"SELECT {COLUMNS} FROM message WHERE id BETWEEN ? AND ?"  # noqa: S608 - as above


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Let several statements see the same moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def session_number(connection: sqlite3.Connection, key: SessionKey) -> int | None:
    """The number of a session, None where it has no journal."""
    row = connection.execute(
        "SELECT id FROM session WHERE owner = ? AND name = ?", (key.owner, key.session)
    ).fetchone()
    return None if row is None else int(row[0])


def make_session(connection: sqlite3.Connection, key: SessionKey) -> int:
    """The number of a session, which gets one where it has none."""
    number = session_number(connection, key)
    if number is None:
        cursor = connection.execute(
            "INSERT INTO session (owner, name) VALUES (?, ?)", (key.owner, key.session)
        )
        number = cursor.lastrowid or 0
    return number


def newest_row(connection: sqlite3.Connection, number: int) -> int:
    """The row id of the newest message; that before the first one where there is none."""
    (newest,) = connection.execute(
        "SELECT max(id) FROM message WHERE id BETWEEN ? AND ?", (first_row(number), last_row(number))
    ).fetchone()
    return int(newest) if newest is not None else first_row(number) - 1


def newest_summary(connection: sqlite3.Connection, number: int) -> int:
    """The row id of the newest summary: what is newer is live, and nothing else is."""
    (newest,) = connection.execute(
        "SELECT max(id) FROM message WHERE session = ? AND role = 'summary'", (number,)
    ).fetchone()
    return int(newest) if newest is not None else first_row(number) - 1


def summaries(connection: sqlite3.Connection, number: int) -> list[Row]:
    """The summaries of a session, oldest first."""
    return connection.execute(
        f"SELECT {COLUMNS} FROM message WHERE session = ? AND role = 'summary' ORDER BY id",  # noqa: S608 - as above
        (number,),
    ).fetchall()


def live_count(connection: sqlite3.Connection, number: int) -> int:
    """How many live messages there are, summaries not counted."""
    (count,) = connection.execute("SELECT count(*) FROM message WHERE session = ?", (number,)).fetchone()
    (summaries,) = connection.execute(
        "SELECT count(*) FROM message WHERE session = ? AND role = 'summary'", (number,)
    ).fetchone()
    return int(count) - int(summaries)


def one_message(connection: sqlite3.Connection, number: int | None, message_id: str) -> Row | None:
    """The row of one live message."""
    row: Row | None = connection.execute(
        f"SELECT {COLUMNS} FROM message WHERE session = ? AND message_id = ?",  # noqa: S608 - as above
        (number, message_id.encode("utf-8", "replace").decode()),
    ).fetchone()
    return row


def add_messages(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Add messages: the number of the session, then COLUMNS."""
    connection.executemany(_INSERT, rows)


def live_page(
    connection: sqlite3.Connection,
    low: int,
    high: int,
    limit: int,
    *,
    newest_first: bool = False,
    role: str | None = None,
    task: tuple[int, str] | None = None,
    summaries: bool = True,
) -> list[Row]:
    """Rows with ids from `low` to `high`; `task` is the number of the session and the id of the task."""
    query, values = _LIVE, [low, high]
    more: list[object] = []
    if role is not None:
        query += " AND role = ?"
        more.append(role)
    if task is not None:
        query += " AND session = ? AND task_id = ?"
        more += task
    if not summaries:
        query += " AND role <> 'summary'"
    query += f" ORDER BY id {'DESC' if newest_first else 'ASC'} LIMIT ?"
    return connection.execute(query, (*values, *more, limit)).fetchall()


def any_page(
    connection: sqlite3.Connection, low: int, high: int, limit: int, *, newest_first: bool
) -> list[AtRest]:
    """Messages with ids from `low` to `high`, folded or live, in order; at least one if there is one.

    Of folded ones as many as lie in one body. What is live is newer than what is folded, so the two
    need no merging. The caller holds a snapshot.
    """
    if newest_first:
        rows = live_page(connection, low, high, limit, newest_first=True, summaries=False)
        if rows:
            return with_versions(connection, rows)
        query = "SELECT body FROM fold WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1"
        body = connection.execute(query, (low >> SEQ_BITS << SEQ_BITS, high)).fetchone()
    else:
        start = low >> SEQ_BITS << SEQ_BITS
        query = (
            "SELECT body FROM fold WHERE last >= ? AND id <= ? AND id >="
            " (SELECT coalesce(max(id), ?) FROM fold WHERE id BETWEEN ? AND ?) ORDER BY id LIMIT 1"
        )
        body = connection.execute(query, (low, high, start, start, low)).fetchone()
        if body is None:
            rows = live_page(connection, low, high, limit, summaries=False)
            return with_versions(connection, rows)
    if body is None:
        return []
    found = [message for message in unpack(body[0]) if low <= message.row[ID] <= high]
    return found[::-1] if newest_first else found


def with_versions(connection: sqlite3.Connection, rows: Sequence[Row]) -> list[AtRest]:
    """Rows with what they said before they were edited."""
    found = []
    for row in rows:
        versions: tuple[tuple[int, str], ...] = ()
        if row[8] is not None:
            versions = tuple(
                connection.execute(
                    "SELECT at, text FROM version WHERE message = ? ORDER BY number", (row[ID],)
                ).fetchall()
            )
        found.append(AtRest(row, versions))
    return found


def folded_ids(connection: sqlite3.Connection, number: int) -> set[str]:
    """The ids of all folded messages of a session."""
    bodies = connection.execute(
        "SELECT body FROM fold WHERE id BETWEEN ? AND ?", (first_row(number), last_row(number))
    )
    return {message.row[1] for (body,) in bodies for message in unpack(body)}


def forget_messages(connection: sqlite3.Connection, number: int, rows: Sequence[Row]) -> None:
    """Remove live messages, with their words and versions."""
    forget_words(connection, number, rows)
    connection.executemany("DELETE FROM version WHERE message = ?", [(row[ID],) for row in rows if row[8]])
    connection.executemany("DELETE FROM message WHERE id = ?", [(row[ID],) for row in rows])


def forget_older(connection: sqlite3.Connection, number: int, upto: int) -> int:
    """Remove messages up to a sequence number, folded ones too; returns how many.

    A body that newer ones are folded into as well stays whole.
    """
    low, high = first_row(number), first_row(number) - 1 + upto
    (gone,) = connection.execute(
        "SELECT coalesce(sum(messages), 0) FROM fold WHERE id >= ? AND last <= ?", (low, high)
    ).fetchone()
    connection.execute("DELETE FROM fold WHERE id >= ? AND last <= ?", (low, high))
    while rows := live_page(connection, low, high, _AT_ONCE):
        gone += sum(row[ROLE] != "summary" for row in rows)
        forget_messages(connection, number, rows)
    return int(gone)


# -- the full-text index, which lags behind until somebody searches or much has come together -------


def indexed_row(connection: sqlite3.Connection, number: int) -> int:
    """Up to which row the messages of a session are in the index."""
    row = connection.execute("SELECT upto FROM word_index WHERE session = ?", (number,)).fetchone()
    return int(row[0]) if row is not None else first_row(number) - 1


def index_tail(connection: sqlite3.Connection, number: int, limit: int) -> bool:
    """Take the next messages into the index. Returns whether there are more."""
    low = indexed_row(connection, number) + 1
    rows = connection.execute(
        "SELECT id, text, sealed FROM message WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
        (low, last_row(number), limit),
    ).fetchall()
    if rows:
        connection.executemany(
            "INSERT INTO words (rowid, text) VALUES (?, ?)",
            [(row, text) for row, text, hidden in rows if not hidden],
        )
        connection.execute(
            "INSERT INTO word_index (session, upto) VALUES (?, ?)"
            " ON CONFLICT (session) DO UPDATE SET upto = excluded.upto",
            (number, rows[-1][0]),
        )
    return len(rows) == limit


def forget_words(connection: sqlite3.Connection, number: int, rows: Iterable[Row]) -> None:
    """Take messages out of the index, which needs to be told exactly what it was given."""
    upto = indexed_row(connection, number)
    connection.executemany(
        "INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)",
        [(row[ID], row[TEXT]) for row in rows if row[ID] <= upto and not row[SEALED]],
    )


def learn_words(connection: sqlite3.Connection, number: int, row: Row) -> None:
    """Take a message into the index that stands where the index has been already."""
    if row[ID] <= indexed_row(connection, number) and not row[SEALED]:
        connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (row[ID], row[TEXT]))
