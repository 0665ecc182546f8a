"""The tables of a journal's database, and how messages lie in them.

The row id of a message is the number of its session, shifted, and its sequence number. So the messages
of a session lie together and in order, a page is a range of row ids, and so is a search in one session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import Message, SessionKey, Version
from mcp_tasks.ports import Sealer

__all__ = [
    "COLUMNS",
    "MIGRATIONS",
    "SEQ_BITS",
    "TABLES",
    "Row",
    "Texts",
    "first_row",
    "last_row",
    "row_range",
    "seq_of",
]

SEQ_BITS = 40
_SEQ_MASK = (1 << SEQ_BITS) - 1

Row = tuple[Any, ...]

COLUMNS = "id, message_id, role, at, text, task_id, parent, data, edited_at, sealed"
"""Of a message, in the order that `Texts.message` takes."""

_FIRST = (
    # AUTOINCREMENT: a number is never given again.
    """CREATE TABLE session (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        active_at INTEGER,
        UNIQUE (owner, name)
    )""",
    """CREATE TABLE message (
        id INTEGER PRIMARY KEY,
        session INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        role TEXT NOT NULL,
        at INTEGER NOT NULL,
        text TEXT NOT NULL,
        task_id TEXT,
        parent TEXT,
        data TEXT,
        edited_at INTEGER,
        sealed INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE UNIQUE INDEX message_by_id ON message (session, message_id)",
    "CREATE INDEX message_by_task ON message (session, task_id) WHERE task_id IS NOT NULL",
    "CREATE INDEX message_by_parent ON message (session, parent) WHERE parent IS NOT NULL",
    "CREATE INDEX sealed_message ON message (session) WHERE sealed",
    "CREATE INDEX summary ON message (session) WHERE role = 'summary'",
    """CREATE TABLE version (
        message INTEGER NOT NULL,
        number INTEGER NOT NULL,
        at INTEGER NOT NULL,
        text TEXT NOT NULL,
        PRIMARY KEY (message, number)
    )""",
    # The row id is made as that of the first message in it.
    """CREATE TABLE fold (
        id INTEGER PRIMARY KEY,
        last INTEGER NOT NULL,
        messages INTEGER NOT NULL,
        oldest_at INTEGER NOT NULL,
        body BLOB NOT NULL
    )""",
    # Only what finds: the texts are in `message`.
    """CREATE VIRTUAL TABLE words USING fts5 (
        text, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2'
    )""",
    # Up to which row they are in it. Like the index it is not saved from a broken database but made anew.
    "CREATE TABLE word_index (session INTEGER PRIMARY KEY, upto INTEGER NOT NULL)",
    """CREATE TABLE connection (
        connection_id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        session TEXT,
        client TEXT NOT NULL,
        version TEXT NOT NULL,
        transport TEXT NOT NULL,
        began_at INTEGER NOT NULL,
        seen_at INTEGER NOT NULL,
        ended_at INTEGER,
        ended TEXT
    )""",
    "CREATE INDEX connection_by_age ON connection (owner, began_at)",
)

MIGRATIONS = (_FIRST,)
"""For each version of the database the statements that lead to it from the one before."""


TABLES = ("session", "message", "version", "fold", "connection")
"""What is taken over from a broken database."""


def first_row(number: int) -> int:
    """The smallest row id that a message of a session can have."""
    return (number << SEQ_BITS) + 1


def last_row(number: int) -> int:
    """The largest one."""
    return (number << SEQ_BITS) + _SEQ_MASK


def seq_of(row: int) -> int:
    """The sequence number in a row id."""
    return row & _SEQ_MASK


def row_range(number: int, after: int | None = None, before: int | None = None) -> tuple[int, int]:
    """The row ids between two sequence numbers, both exclusive."""
    start = first_row(number) - 1
    low = start + max(0, after or 0) + 1
    high = last_row(number) if before is None else min(last_row(number), start + before - 1)
    return low, high


class Texts:
    """Turns rows into messages and back, sealed where they are to be."""

    def __init__(self, sealer: Sealer | None) -> None:
        self._sealer = sealer

    def stored(self, text: str, *, sealed: bool) -> str:
        """A text as it is at rest. Raises StoreUnavailable where it cannot be sealed."""
        # A lone surrogate is no text for a database; it is written as Python would show it.
        text = text.encode("utf-8", "backslashreplace").decode()
        return self._ready().seal(text) if sealed else text

    def readable(self, stored: str, *, sealed: bool) -> str:
        """The text that was stored. Raises StoreUnavailable where it cannot be unsealed."""
        return self._ready().unseal(stored) if sealed else stored

    def stored_data(self, data: Mapping[str, Any], *, sealed: bool) -> str | None:
        """What an entry tells beside its text, as it is at rest."""
        if not data:
            return None
        return self.stored(to_json(data, fallback=str).decode(), sealed=sealed)

    def message(self, session: SessionKey, row: Row, versions: Sequence[tuple[int, str]] = ()) -> Message:
        """The message in a row of COLUMNS. Raises StoreUnavailable where it cannot be unsealed."""
        at_rest, message_id, role, at, text, task_id, parent, data, edited_at, sealed = row
        if sealed:
            text = self.readable(text, sealed=True)
            data = data and self.readable(data, sealed=True)
        return Message(
            session,
            message_id,
            seq_of(at_rest),
            role,
            text,
            at,
            task_id,
            parent,
            from_json(data) if data else {},
            edited_at,
            bool(sealed),
            tuple(Version(since, self.readable(old, sealed=bool(sealed))) for since, old in versions),
        )

    def _ready(self) -> Sealer:
        if self._sealer is None:
            raise StoreUnavailable(
                "the journal of this session is sealed, and there is no key", "see seal_journal in the README"
            )
        return self._sealer
