"""A journal in the tables of a database: finding messages by their words."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import Message, SessionKey
from mcp_tasks.stores.database.database import Damaged
from mcp_tasks.stores.journal import rows as journal_rows
from mcp_tasks.stores.journal.reading import PAGE, TablesReading
from mcp_tasks.stores.journal.schema import row_range
from mcp_tasks.stores.journal.words import contains, phrases_of, query_of

__all__ = ["TablesSearching"]

T = TypeVar("T")

_INDEX_STEP = 2_000

log = logging.getLogger(__name__)


class TablesSearching(TablesReading):
    """What of `mcp_tasks.ports.Journal` searches, and keeps the index that searching needs."""

    def search(
        self, session: SessionKey, text: str, *, limit: int = 50, before: int | None = None
    ) -> list[Message]:
        """See `ports.Journal`."""
        phrases = phrases_of(text)
        if not phrases:
            return []
        try:
            self._index(session)
        except StoreUnavailable as error:
            log.warning("a journal could not be indexed now: %s", error)
        with self.tables().reading() as connection:
            number = journal_rows.session_number(connection, session)
            if number is None:
                return []
            low, high = row_range(number, None, before)
            found = connection.execute(
                "SELECT rowid FROM words WHERE words MATCH ? AND rowid BETWEEN ? AND ?"
                " ORDER BY rowid DESC LIMIT ?",
                (query_of(phrases), low, high, limit),
            ).fetchall()
            rows = [row for (one,) in found for row in journal_rows.live_page(connection, one, one, 1)]
            # Sealed texts are in no index, and the newest ones may not be there yet.
            others = connection.execute(
                "SELECT id FROM message WHERE session = ? AND sealed AND id BETWEEN ? AND ?"
                " UNION SELECT id FROM message WHERE id BETWEEN ? AND ? ORDER BY id DESC",
                (number, low, high, max(low, journal_rows.indexed_row(connection, number) + 1), high),
            ).fetchall()
        messages = [self._texts.message(session, row) for row in rows]
        messages += self._scanned(session, [one for (one,) in others], phrases, limit)
        return sorted(messages, key=lambda message: -message.seq)[:limit]

    def _scanned(
        self, session: SessionKey, rows: Sequence[int], phrases: Sequence[str], limit: int
    ) -> list[Message]:
        found: list[Message] = []
        for start in range(0, len(rows), PAGE):
            with self.tables().reading() as connection:
                page = [
                    row
                    for one in rows[start : start + PAGE]
                    for row in journal_rows.live_page(connection, one, one, 1)
                ]
            for row in page:
                message = self._texts.message(session, row)
                if contains(message.text, phrases):
                    found.append(message)
                    if len(found) == limit:
                        return found
        return found

    def _index(self, session: SessionKey) -> None:
        """Take into the full-text index what is not there yet."""
        with self.tables().reading() as connection:
            number = journal_rows.session_number(connection, session)
            if number is None or journal_rows.newest_row(connection, number) <= journal_rows.indexed_row(
                connection, number
            ):
                return
        more = True
        while more:
            # The index can be made again from the messages, so it need not be on the disk at once.
            more = self._writing(
                lambda connection: journal_rows.index_tail(connection, number, _INDEX_STEP), durable=False
            )

    def _writing(self, write: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        """Do something in one transaction; once more where the database has just been replaced."""
        try:
            with self.tables().transaction(durable=durable) as connection:
                return write(connection)
        except Damaged:
            with self.tables().transaction(durable=durable) as connection:
                return write(connection)
