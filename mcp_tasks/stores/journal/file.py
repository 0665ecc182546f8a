"""The journals of all sessions of a state directory: one database beside the records."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress

from mcp_tasks.clock import Clock
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.ports import Sealer
from mcp_tasks.stores.database.database import Database, MemoryDatabase
from mcp_tasks.stores.disk.durable import make_private_folder
from mcp_tasks.stores.journal.reading import Tables
from mcp_tasks.stores.journal.schema import MIGRATIONS, TABLES
from mcp_tasks.stores.journal.tables import Rules, RulesOf, TablesJournal

__all__ = ["JournalFile", "MemoryJournal", "Rules"]

_NAME = "journal.db"

_log = logging.getLogger(__name__)


class JournalFile(TablesJournal):
    """Implements `mcp_tasks.ports.Journal` in `journal.db`, which is opened with the first use.

    So nothing waits for it that does not need it, and one that cannot be opened stops nothing else.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        clock: Clock,
        *,
        sealer: Sealer | None = None,
        rules_of: RulesOf | None = None,
    ) -> None:
        """Nothing is opened or made yet.

        Args:
            directory: The state directory.
            clock: Source of the ids.
            sealer: For the texts that are to be sealed; without one they are refused.
            rules_of: What holds in a session; without it no limit, and only what asks for it is sealed.
        """
        super().__init__(clock, sealer, rules_of)
        self._directory = os.fspath(directory)
        self._opening = threading.Lock()
        self._database: Database | None = None
        self._closed = False
        self._reports: list[str] = []
        self._unusable: str | None = None

    def tables(self) -> Tables:
        """See `TablesJournal`. Makes the file where there is none."""
        if (database := self._database) is not None:
            return database
        with self._opening:
            if self._closed:
                raise StoreUnavailable("the journal is closed")
            if self._database is None:
                try:
                    self._database = self._opened()
                except StoreUnavailable as error:
                    self._unusable = error.message
                    raise
                self._unusable = None
            return self._database

    def _opened(self) -> Database:
        quarantine = os.path.join(self._directory, "quarantine")
        make_private_folder(self._directory)
        make_private_folder(quarantine)
        return Database(
            os.path.join(self._directory, _NAME),
            MIGRATIONS,
            quarantine=quarantine,
            report=self._report,
            tables=TABLES,
        )

    def _report(self, sentence: str) -> None:
        self._reports.append(sentence)
        _log.warning("%s", sentence)

    def verify(self) -> Iterator[str]:
        """See `ports.Journal`."""
        if os.path.lexists(os.path.join(self._directory, _NAME)):
            try:
                yield from super().verify()
            except StoreUnavailable as error:
                yield f"the journal: {error.message}"

    def problems(self) -> list[str]:
        """See `ports.Journal`. Opens the file, if it is there, to know."""
        if self._database is None and os.path.lexists(os.path.join(self._directory, _NAME)):
            with suppress(StoreUnavailable):  # told below
                self.tables()
        unusable = [f"the journal cannot be used: {self._unusable}"] if self._unusable else []
        return [*unusable, *self._reports, *super().problems()]

    def close(self) -> None:
        """See `ports.Journal`."""
        super().close()
        with self._opening:
            self._closed = True
            database, self._database = self._database, None
        if database is not None:
            database.close()


class MemoryJournal(TablesJournal):
    """Implements `mcp_tasks.ports.Journal` for as long as it is there, in memory."""

    def __init__(
        self, clock: Clock, *, sealer: Sealer | None = None, rules_of: RulesOf | None = None
    ) -> None:
        """See `JournalFile`."""
        super().__init__(clock, sealer, rules_of)
        self._database = MemoryDatabase(MIGRATIONS)

    def tables(self) -> Tables:
        """See `TablesJournal`."""
        return self._database

    def close(self) -> None:
        """See `ports.Journal`."""
        super().close()
        self._database.close()
