"""A journal in the tables of a database: reading it, page by page and by who answers whom."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from mcp_tasks.errors import MessageNotFound
from mcp_tasks.models import Message, MessageRole, SessionKey, Version
from mcp_tasks.stores.journal import rows as journal_rows
from mcp_tasks.stores.journal.folding import AtRest
from mcp_tasks.stores.journal.schema import SEQ_BITS, Row, Texts, row_range, seq_of
from mcp_tasks.stores.journal.trees import branch_of, thread_of

__all__ = ["PAGE", "Tables", "TablesReading"]

PAGE = 500
"""So many messages are read at once, where all of them are wanted."""


class Tables(Protocol):
    """A database with the tables of `journal_schema`."""

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A connection to read with."""
        ...

    def transaction(self, *, durable: bool = True) -> AbstractContextManager[sqlite3.Connection]:
        """A connection to write with, alone."""
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


class TablesReading:
    """What of `mcp_tasks.ports.Journal` reads messages."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts

    def tables(self) -> Tables:
        """The database. Raises StoreUnavailable where it cannot be opened."""
        raise NotImplementedError

    def read(
        self,
        session: SessionKey,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
        role: MessageRole | None = None,
        task_id: str | None = None,
        folded: bool = False,
    ) -> list[Message]:
        """See `ports.Journal`."""
        if folded:
            found: list[Message] = []
            for message in self._walk(session, after or 0, before, newest_first=newest_first):
                if role in (None, message.row[2]) and task_id in (None, message.row[5]):
                    found.append(self._texts.message(session, message.row))
                    if len(found) == limit:
                        break
            return found
        with self.tables().reading() as connection:
            number = journal_rows.session_number(connection, session)
            if number is None:
                return []
            rows = journal_rows.live_page(
                connection,
                *row_range(number, after, before),
                limit,
                newest_first=newest_first,
                role=role,
                task=(number, task_id) if task_id is not None else None,
            )
        return [self._texts.message(session, row) for row in rows]

    def _walk(
        self, session: SessionKey, after: int = 0, before: int | None = None, *, newest_first: bool = False
    ) -> Iterator[AtRest]:
        """Messages, folded ones too, lazily; each is there once whatever is folded meanwhile."""
        while True:
            with self.tables().reading() as connection:
                number = journal_rows.session_number(connection, session)
                if number is None:
                    return
                with journal_rows.snapshot(connection):
                    page = journal_rows.any_page(
                        connection, *row_range(number, after, before), PAGE, newest_first=newest_first
                    )
            if not page:
                return
            yield from page
            last = seq_of(page[-1].row[0])
            after, before = (after, last) if newest_first else (last, before)

    def everything(self, session: SessionKey) -> Iterator[Message]:
        """See `ports.Journal`."""
        for message in self._walk(session):
            yield self._texts.message(session, message.row, message.versions)

    def load(self, session: SessionKey, message_id: str) -> Message:
        """See `ports.Journal`."""
        with self.tables().reading() as connection:
            row = self._row(connection, session, message_id)
        return self._texts.message(session, row)

    def _row(self, connection: sqlite3.Connection, session: SessionKey, message_id: str) -> Row:
        number = journal_rows.session_number(connection, session)
        row = journal_rows.one_message(connection, number, message_id)
        if row is None:
            raise MessageNotFound(message_id)
        return row

    def thread(self, session: SessionKey, message_id: str, *, folded: bool = False) -> list[Message]:
        """See `ports.Journal`."""
        return self._related(session, message_id, thread_of, folded=folded)

    def branch(self, session: SessionKey, message_id: str, *, folded: bool = False) -> list[Message]:
        """See `ports.Journal`."""
        return self._related(session, message_id, branch_of, folded=folded)

    def _related(
        self,
        session: SessionKey,
        message_id: str,
        wanted: Callable[[Mapping[str, str | None], str], set[str]],
        *,
        folded: bool,
    ) -> list[Message]:
        """Find who belongs together by ids alone, and read only those."""
        if folded:
            parents = {message.row[1]: message.row[6] for message in self._walk(session)}
            if message_id not in parents:
                raise MessageNotFound(message_id)
            ids = wanted(parents, message_id)
            rows = [message.row for message in self._walk(session) if message.row[1] in ids]
            return [self._texts.message(session, row) for row in rows]
        with self.tables().reading() as connection, journal_rows.snapshot(connection):
            first = self._row(connection, session, message_id)
            number = first[0] >> SEQ_BITS
            # Only who answers or is answered is in the index of parents.
            parents = dict(
                connection.execute(
                    "SELECT message_id, parent FROM message WHERE session = ? AND parent IS NOT NULL",
                    (number,),
                ).fetchall()
            )
            rows = [
                row
                for one in wanted(parents, message_id)
                if (row := journal_rows.one_message(connection, number, one)) is not None
            ]
        return [self._texts.message(session, row) for row in sorted(rows)]

    def versions(self, session: SessionKey, message_id: str) -> list[Version]:
        """See `ports.Journal`."""
        with self.tables().reading() as connection, journal_rows.snapshot(connection):
            row = self._row(connection, session, message_id)
            (found,) = journal_rows.with_versions(connection, [row])
        message = self._texts.message(session, row, found.versions)
        since = message.edited_at if message.edited_at is not None else message.at
        return [*message.versions, Version(since, message.text)]
