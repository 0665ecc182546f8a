"""One step of folding: the oldest messages of a session go into a body, a summary comes in their place."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mcp_tasks.clock import Clock
from mcp_tasks.models import SessionKey
from mcp_tasks.stores.journal import rows as journal_rows
from mcp_tasks.stores.journal.folding import AtRest, Summary, pack, unpack
from mcp_tasks.stores.journal.schema import Row, Texts, first_row, last_row

__all__ = ["prune_some"]

_STEP = 500
_STEP_CHARACTERS = 4_000_000
_MOST_SUMMARIES = 8
"""With one more, all of them become one, and small bodies are put together."""


def prune_some(
    connection: sqlite3.Connection,
    session: SessionKey,
    keep: int,
    *,
    texts: Texts,
    clock: Clock,
    before: str | None,
) -> tuple[int, str] | None:
    """Fold some messages, in a transaction of the caller.

    Args:
        connection: In a transaction.
        session: Whose journal.
        keep: How many messages may stay live.
        texts: To read what is sealed, and to seal the summary of it.
        clock: Source of the summary's id.
        before: Id of the summary of the step before, which becomes one with the new one.

    Returns:
        How many were folded, and the id of the summary; None when there is nothing to fold.
    """
    number = journal_rows.session_number(connection, session)
    if number is None:
        return None
    surplus = journal_rows.live_count(connection, number) - keep
    if surplus <= 0:
        return None
    low, high = first_row(number), last_row(number)
    rows = _within(
        journal_rows.live_page(connection, low, high, min(surplus, _STEP), summaries=False), _STEP_CHARACTERS
    )
    summary = Summary.of([texts.message(session, row) for row in rows])
    _add_fold(connection, journal_rows.with_versions(connection, rows))
    journal_rows.forget_messages(connection, number, rows)
    old = journal_rows.summaries(connection, number)
    merged = [row for row in old if row[1] == before]
    if len(old) - len(merged) >= _MOST_SUMMARIES:
        merged = old
        _join_small_folds(connection, number)
    for row in reversed(merged):
        summary = Summary.read(texts.message(session, row).data).merged(summary)
    journal_rows.forget_messages(connection, number, merged)
    sealed = any(row[journal_rows.SEALED] for row in (*rows, *merged))
    message_id = clock.new_task_id()
    place: Row = (
        *(rows[-1][0], message_id, "summary", summary.until, texts.stored(summary.text, sealed=sealed)),
        *(None, None, texts.stored_data(summary.data, sealed=sealed), None, sealed),
    )
    journal_rows.add_messages(connection, [(number, *place)])
    journal_rows.learn_words(connection, number, place)
    return len(rows), message_id


def _within(rows: list[Row], characters: int) -> list[Row]:
    """As many rows, at least one, as have no more text than that."""
    for count, row in enumerate(rows):
        characters -= len(row[journal_rows.TEXT])
        if characters < 0 and count:
            return rows[:count]
    return rows


def _add_fold(connection: sqlite3.Connection, messages: Sequence[AtRest]) -> None:
    connection.execute(
        "INSERT INTO fold (id, last, messages, oldest_at, body) VALUES (?, ?, ?, ?, ?)",
        (
            messages[0].row[0],
            messages[-1].row[0],
            len(messages),
            min(message.row[3] for message in messages),
            pack(messages),
        ),
    )


def _join_small_folds(connection: sqlite3.Connection, number: int) -> None:
    """Put the newest bodies together as long as they are small: one body compresses better than ten."""
    newest = connection.execute(
        "SELECT id, messages, body FROM fold WHERE id BETWEEN ? AND ? ORDER BY id DESC",
        (first_row(number), last_row(number)),
    )
    joined: list[AtRest] = []
    ids = []
    for fold, messages, body in newest:
        if len(joined) + messages > _STEP:
            break
        found = unpack(body)
        joined[:0] = found
        ids.append(fold)
    newest.close()
    if len(ids) > 1:
        connection.executemany("DELETE FROM fold WHERE id = ?", [(fold,) for fold in ids])
        _add_fold(connection, joined)
