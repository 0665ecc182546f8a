"""A journal in the tables of a database: everything but where the database is."""

from __future__ import annotations

import functools
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from mcp_tasks.clock import Clock
from mcp_tasks.errors import MessageNotFound, StoreUnavailable, TasksError
from mcp_tasks.models import (
    Connection,
    Draft,
    JournalFigures,
    Message,
    SessionKey,
)
from mcp_tasks.ports import Sealer
from mcp_tasks.ports.journals import Entry
from mcp_tasks.stores.journal import activity as journal_activity
from mcp_tasks.stores.journal import rows as journal_rows
from mcp_tasks.stores.journal.folding import AtRest, unpack
from mcp_tasks.stores.journal.notes import Notes
from mcp_tasks.stores.journal.pruning import prune_some
from mcp_tasks.stores.journal.reading import PAGE
from mcp_tasks.stores.journal.resealing import reseal_some_folds, reseal_some_messages
from mcp_tasks.stores.journal.schema import Row, Texts, first_row, row_range, seq_of
from mcp_tasks.stores.journal.searching import TablesSearching

__all__ = ["Rules", "RulesOf", "TablesJournal"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds in the journal of one session.

    Attributes:
        limit: Live messages, beyond which the oldest are folded; 0 means no limit.
        sealed: Whether everything new is unreadable at rest.
    """

    limit: int = 0
    sealed: bool = False


RulesOf: TypeAlias = Callable[[SessionKey], Rules]
"""Looks the rules of a session up. May raise StoreUnavailable, and then nothing is written to its journal."""

_NO_RULES = Rules()

_INDEX_AT = 512
"""So many messages that are not in the index are taken in at once, by whoever wrote the last of them."""

log = logging.getLogger(__name__)


class TablesJournal(TablesSearching):
    """Implements `mcp_tasks.ports.Journal` on `tables()`, which each subclass opens in its own way."""

    def __init__(self, clock: Clock, sealer: Sealer | None, rules_of: RulesOf | None) -> None:
        super().__init__(Texts(sealer))
        self._clock = clock
        self._rules_of = rules_of
        self._notes = Notes(self._write_notes)

    # -- writing -------------------------------------------------------------------------------

    def append(self, drafts: Sequence[Draft]) -> list[Message]:
        """See `ports.Journal`."""
        made = [self._at_rest(draft, self._rules) for draft in drafts]
        return self._append(made, {}, durable=True) if made else []

    def note(self, entry: Entry) -> None:
        """See `ports.Journal`."""
        self._notes.add(entry)

    def flush(self) -> None:
        """See `ports.Journal`."""
        self._notes.flush()

    def _write_notes(self, drafts: Sequence[Draft], used: Mapping[SessionKey, int]) -> None:
        made, rules = [], functools.cache(self._rules)  # many entries are of few sessions
        for draft in drafts:
            try:
                made.append(self._at_rest(draft, rules))
            except StoreUnavailable as error:
                # One that cannot be sealed does not hold up all the others.
                log.warning("an entry of a journal is left out: %s", error)
        if made or used:
            self._append(made, used, durable=False)

    def _append(
        self,
        made: Sequence[tuple[Draft, str, str | None]],
        used: Mapping[SessionKey, int],
        *,
        durable: bool,
    ) -> list[Message]:
        """Write entries with their texts as they are at rest."""
        limits = {key: self._rules(key).limit for key in {draft.session for draft, *_ in made}}

        def write(connection: sqlite3.Connection) -> tuple[list[Message], list[SessionKey]]:
            places: dict[SessionKey, tuple[int, int]] = {}
            rows: list[Row] = []
            messages = []
            for draft, text, data in made:
                key = draft.session
                if key not in places:
                    number = journal_rows.make_session(connection, key)
                    places[key] = number, journal_rows.newest_row(connection, number)
                number, row = places[key][0], places[key][1] + 1
                places[key] = number, row
                if draft.parent is not None and not journal_rows.one_message(
                    connection, number, draft.parent
                ):
                    raise MessageNotFound(draft.parent)
                message = Message(
                    key,
                    self._clock.new_task_id(),
                    seq_of(row),
                    draft.role,
                    draft.text if draft.sealed else text,
                    draft.at,
                    draft.task_id,
                    draft.parent,
                    draft.data,
                    sealed=draft.sealed,
                )
                messages.append(message)
                rows.append(
                    (
                        *(number, row, message.message_id, draft.role, draft.at, text),
                        *(draft.task_id, draft.parent, data, None, draft.sealed),
                    )
                )
            journal_rows.add_messages(connection, rows)
            for key, at in used.items():
                journal_activity.used(connection, journal_rows.make_session(connection, key), at)
            due = [
                key
                for key, (number, newest) in places.items()
                if self._is_due(connection, number, newest, limits[key])
            ]
            return messages, due

        messages, due = self._writing(write, durable=durable)
        for key in due:
            self._tend(key, limits[key])
        return messages

    def _at_rest(self, draft: Draft, rules_of: RulesOf) -> tuple[Draft, str, str | None]:
        """The entry, sealed where it is to be, with text and data as they are at rest."""
        if not draft.sealed and rules_of(draft.session).sealed:
            draft = replace(draft, sealed=True)
        return (
            draft,
            self._texts.stored(draft.text, sealed=draft.sealed),
            self._texts.stored_data(draft.data, sealed=draft.sealed),
        )

    def _rules(self, key: SessionKey) -> Rules:
        return self._rules_of(key) if self._rules_of is not None else _NO_RULES

    def _is_due(self, connection: sqlite3.Connection, number: int, newest: int, limit: int) -> bool:
        if newest - journal_rows.indexed_row(connection, number) >= _INDEX_AT:
            return True
        # Never less than there are; where a restored journal has gaps, more.
        return 0 < limit < newest - journal_rows.newest_summary(connection, number)

    def _tend(self, key: SessionKey, limit: int) -> None:
        """Do what has become due in a journal. What fails here is done with one of the next messages."""
        try:
            if limit and self._live(key) > limit:
                # By the tenth, so that it is not to be done again with the next message.
                self.prune(key, limit - limit // 10)
            self._index(key)
        except TasksError as error:
            log.warning("a journal could not be folded or indexed now: %s", error)

    def _live(self, key: SessionKey) -> int:
        with self.tables().reading() as connection:
            number = journal_rows.session_number(connection, key)
            return journal_rows.live_count(connection, number) if number is not None else 0

    def edit(self, session: SessionKey, message_id: str, text: str, at: int) -> Message:
        """See `ports.Journal`."""

        def write(connection: sqlite3.Connection) -> Row:
            number = journal_rows.session_number(connection, session)
            row = journal_rows.one_message(connection, number, message_id)
            if row is None or number is None:
                raise MessageNotFound(message_id)
            stored = self._texts.stored(text, sealed=bool(row[journal_rows.SEALED]))
            connection.execute(
                "INSERT INTO version (message, number, at, text)"
                " SELECT ?1, coalesce(max(number), 0) + 1, ?2, ?3 FROM version WHERE message = ?1",
                (row[0], row[8] if row[8] is not None else row[3], row[journal_rows.TEXT]),
            )
            journal_rows.forget_words(connection, number, [row])
            connection.execute(
                "UPDATE message SET text = ?, edited_at = ? WHERE id = ?", (stored, at, row[0])
            )
            changed = (*row[:4], stored, *row[5:8], at, row[9])
            journal_rows.learn_words(connection, number, changed)
            return changed

        return self._texts.message(session, self._writing(write))

    def prune(self, session: SessionKey, keep: int) -> int:
        """See `ports.Journal`."""
        folded, last = 0, None
        while True:
            # In steps, so that others come to write in between.
            step = self._writing(
                lambda connection, last=last: prune_some(  # type: ignore[misc]
                    connection, session, keep, texts=self._texts, clock=self._clock, before=last
                )
            )
            if step is None:
                return folded
            count, last = step
            folded += count

    def restore(self, session: SessionKey, messages: Iterable[Message]) -> int:
        """See `ports.Journal`."""
        # Read to the end before anything is written: they may come out of this very database.
        rules = self._rules(session)
        taken = [
            (message, self._row_of(message, sealed=message.sealed or rules.sealed))
            for message in messages
            if message.role != "summary"
        ]

        def write(connection: sqlite3.Connection) -> int:
            number = journal_rows.make_session(connection, session)
            newest = journal_rows.newest_row(connection, number)
            known = journal_rows.folded_ids(connection, number)
            known.update(
                message_id
                for (message_id,) in connection.execute(
                    "SELECT message_id FROM message WHERE session = ?", (number,)
                )
            )
            rows: list[Row] = []
            versions: list[tuple[int, int, int, str]] = []
            for message, at_rest in taken:
                if message.message_id in known:
                    continue
                known.add(message.message_id)
                newest = max(newest + 1, first_row(number) - 1 + message.seq)
                rows.append((number, newest, *at_rest.row[1:]))
                versions += [(newest, n, at, text) for n, (at, text) in enumerate(at_rest.versions, 1)]
            journal_rows.add_messages(connection, rows)
            connection.executemany(
                "INSERT INTO version (message, number, at, text) VALUES (?, ?, ?, ?)", versions
            )
            return len(rows)

        count = self._writing(write) if taken else 0
        if count:
            self._tend(session, rules.limit)
        return count

    def _row_of(self, message: Message, *, sealed: bool) -> AtRest:
        row = (
            *(message.seq, message.message_id, message.role, message.at),
            *(self._texts.stored(message.text, sealed=sealed), message.task_id, message.parent),
            *(self._texts.stored_data(message.data, sealed=sealed), message.edited_at, sealed),
        )
        return AtRest(
            row, tuple((one.at, self._texts.stored(one.text, sealed=sealed)) for one in message.versions)
        )

    def delete(self, session: SessionKey, *, upto: int | None = None) -> int:
        """See `ports.Journal`."""

        def write(connection: sqlite3.Connection) -> int:
            number = journal_rows.session_number(connection, session)
            if number is None:
                return 0
            if upto is not None and journal_rows.newest_row(connection, number) >= first_row(number) + upto:
                return journal_rows.forget_older(connection, number, upto)
            (folded,) = connection.execute(
                "SELECT coalesce(sum(messages), 0) FROM fold WHERE id BETWEEN ? AND ?", row_range(number)
            ).fetchone()
            gone = int(folded) + journal_rows.live_count(connection, number)
            low, high = row_range(number)
            while rows := journal_rows.live_page(connection, low, high, PAGE):
                journal_rows.forget_messages(connection, number, rows)
            connection.execute("DELETE FROM fold WHERE id BETWEEN ? AND ?", (low, high))
            connection.execute("DELETE FROM word_index WHERE session = ?", (number,))
            connection.execute("DELETE FROM session WHERE id = ?", (number,))
            connection.execute(
                "DELETE FROM connection WHERE owner = ? AND session = ?", (session.owner, session.session)
            )
            return gone

        return self._writing(write)

    def reseal(self, renewed: Callable[[str], str | None]) -> tuple[int, int]:
        """See `ports.Journal`."""
        done = unreadable = 0
        for some in (reseal_some_messages, reseal_some_folds):
            after = 0
            while step := self._writing(lambda connection, a=after, s=some: s(connection, renewed, a)):  # type: ignore[misc]
                done, unreadable, after = done + step[0], unreadable + step[1], step[2]
        return done, unreadable

    def figures(self, session: SessionKey) -> JournalFigures:
        """See `ports.Journal`."""
        noted = self._notes.used_at().get(session)  # first: then what is written meanwhile is found below
        with self.tables().reading() as connection, journal_rows.snapshot(connection):
            number = journal_rows.session_number(connection, session)
            if number is None:
                return JournalFigures(0, 0, None, None, noted)
            folded, oldest = connection.execute(
                "SELECT coalesce(sum(messages), 0), min(oldest_at) FROM fold WHERE id BETWEEN ? AND ?",
                row_range(number),
            ).fetchone()
            live = journal_rows.live_count(connection, number)
            low, high = row_range(number)
            first = journal_rows.live_page(connection, low, high, 1, summaries=False)
            last = journal_rows.live_page(connection, low, high, 1, newest_first=True)
            active = journal_activity.used_at(connection, [session])
        if oldest is None and first:
            oldest = first[0][3]
        moments = (active.get(session), noted)
        return JournalFigures(
            live,
            folded,
            oldest,
            last[0][3] if last else None,
            max((moment for moment in moments if moment is not None), default=None),
        )

    # -- who is there --------------------------------------------------------------------------

    def touch(self, session: SessionKey, at: int) -> None:
        """See `ports.Journal`."""
        self._notes.used(session, at)

    def active_at(self, sessions: Sequence[SessionKey]) -> Mapping[SessionKey, int]:
        """See `ports.Journal`."""
        newest = self._notes.used_at()  # first: then what is written meanwhile is found below
        with self.tables().reading() as connection:
            active = journal_activity.used_at(connection, sessions)
        for session in sessions:
            if session in newest:
                active[session] = max(newest[session], active.get(session, 0))
        return active

    def connect(self, connection: Connection) -> None:
        """See `ports.Journal`."""
        self._writing(lambda tables: journal_activity.note_connection(tables, connection))

    def connections(self, owner: str, session: str | None = None, *, limit: int = 20) -> list[Connection]:
        """See `ports.Journal`."""
        with self.tables().reading() as tables:
            return journal_activity.connections(tables, owner, session, limit)

    def verify(self) -> Iterator[str]:
        """See `ports.Journal`."""
        with self.tables().reading() as connection:
            wrong = [said for (said,) in connection.execute("PRAGMA integrity_check(20)") if said != "ok"]
            folds = connection.execute("SELECT id FROM fold").fetchall()
        yield from (f"the journal: {' '.join(said.split())}" for said in wrong)
        for (fold,) in folds:
            with self.tables().reading() as connection:
                body = connection.execute("SELECT body, messages FROM fold WHERE id = ?", (fold,)).fetchone()
            try:
                if body is not None and len(unpack(body[0])) != body[1]:
                    yield f"the journal: folded messages are missing in the body {fold}"
            except StoreUnavailable:
                yield f"the journal: the folded messages in the body {fold} are damaged"

    def problems(self) -> list[str]:
        """See `ports.Journal`."""
        return self._notes.problems()

    def close(self) -> None:
        """See `ports.Journal`."""
        self._notes.close()
