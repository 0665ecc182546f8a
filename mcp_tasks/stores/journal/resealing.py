"""The sealed texts of a journal, sealed anew with another key."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.stores.journal.folding import AtRest, pack, unpack
from mcp_tasks.stores.journal.rows import SEALED, TEXT

__all__ = ["reseal_some_folds", "reseal_some_messages"]

log = logging.getLogger(__name__)

_DATA = 7
_AT_ONCE = 200

Renewed = Callable[[str], str | None]
Step = tuple[int, int, int]
"""How many messages were sealed anew, how many could not be, and the row to go on from."""


def reseal_some_messages(connection: sqlite3.Connection, renewed: Renewed, after: int) -> Step | None:
    """The next live messages after a row, with their versions. None when there are no more."""
    rows = connection.execute(
        "SELECT id, text, data FROM message WHERE sealed AND id > ? ORDER BY id LIMIT ?", (after, _AT_ONCE)
    ).fetchall()
    if not rows:
        return None
    done = unreadable = 0
    for row, text, data in rows:
        versions = connection.execute("SELECT number, text FROM version WHERE message = ?", (row,)).fetchall()
        try:
            new_text, new_data = renewed(text), renewed(data) if data else None
            new_versions = [(renewed(old), number) for number, old in versions]
        except StoreUnavailable as error:
            log.warning("a sealed message stays as it is: %s", error)
            unreadable += 1
            continue
        if new_text or new_data:
            connection.execute(
                "UPDATE message SET text = ?, data = ? WHERE id = ?",
                (new_text or text, new_data or data, row),
            )
        for new, number in new_versions:
            if new:
                connection.execute(
                    "UPDATE version SET text = ? WHERE message = ? AND number = ?", (new, row, number)
                )
        done += any((new_text, new_data, *(new for new, _ in new_versions)))
    return done, unreadable, rows[-1][0]


def reseal_some_folds(connection: sqlite3.Connection, renewed: Renewed, after: int) -> Step | None:
    """The next body of folded messages after a row. None when there are no more."""
    found = connection.execute(
        "SELECT id, body FROM fold WHERE id > ? ORDER BY id LIMIT 1", (after,)
    ).fetchone()
    if found is None:
        return None
    row, body = found
    try:
        messages = unpack(body)
        changed = [_renewed(message, renewed) for message in messages]
    except StoreUnavailable as error:
        log.warning("folded messages stay as they are: %s", error)
        return 0, 1, row
    done = sum(after != before for after, before in zip(changed, messages, strict=True))
    if done:
        connection.execute("UPDATE fold SET body = ? WHERE id = ?", (pack(changed), row))
    return done, 0, row


def _renewed(message: AtRest, renewed: Renewed) -> AtRest:
    row: list[Any] = list(message.row)
    if not row[SEALED]:
        return message
    for place in (TEXT, _DATA):
        if row[place]:
            row[place] = renewed(row[place]) or row[place]
    return AtRest(tuple(row), tuple((at, renewed(old) or old) for at, old in message.versions))
