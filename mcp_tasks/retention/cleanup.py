"""The daily cleanup of a state directory, by whichever of its servers is first."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from mcp_tasks.errors import SessionNotFound, StoreBusy, TaskNotFinished, TasksError
from mcp_tasks.models import Session, SessionKey
from mcp_tasks.ports import Archives, Audit, Journal, Store
from mcp_tasks.retention.history import CleanupRecord, Counts, read_record, write_record
from mcp_tasks.retention.schedule import DAY_MS, Moments, went_back, when_due
from mcp_tasks.stores.disk.locks import ProcessLock

__all__ = ["Cleanup", "RecoverableArchives", "Rules"]

_BY = "cleanup"
_BREATH_S = 0.002
"""Between two sessions and among very many tasks, so that a server answers calls as well."""
_MANY = 50

log = logging.getLogger(__name__)


class RecoverableArchives(Archives, Protocol):
    """Archives of which killed processes may have left some half done."""

    def recover(self) -> list[str]:
        """Finish or undo it; one sentence for each."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """From which age on, in days, what is done; None means never.

    Attributes:
        hour: Local hour from which on the cleanup of the day is due.
    """

    archive_days: float | None
    journal_days: float | None
    retention_days: float | None
    hour: int = 3


class Cleanup:
    """Archives idle sessions, folds idle journals, removes old archives. Blocking.

    What is pending or running is never touched, and so is nothing that somebody uses meanwhile.

    Args:
        root: The state directory, which remembers when the last cleanup was.
        store: Whose sessions.
        journal: Whose messages, and what tells when a session was used.
        archives: Where sessions go.
        audit: Told of each session that is archived and each archive that is removed.
        rules: What is done when.
        now_ms: Wall clock, ms since the epoch.
        local: The local time of such a moment.
    """

    def __init__(
        self,
        root: Path,
        store: Store,
        journal: Journal,
        *,
        archives: RecoverableArchives,
        audit: Audit,
        rules: Rules,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        local: Callable[[int], datetime] = lambda ms: datetime.fromtimestamp(ms / 1000).astimezone(),
    ) -> None:
        self._root = root
        self._store = store
        self._journal = journal
        self._archives = archives
        self._audit = audit
        self._rules = rules
        self._now_ms = now_ms
        self._local = local
        self._lock = ProcessLock(os.fspath(root / "cleanup.lock"), 0.0)

    def run_when_due(self) -> None:
        """Do the cleanup of the day unless somebody did it, or is doing it. Next to free otherwise.

        Raises StoreUnavailable; what was done stays done, and the rest is tried again.
        """
        if not self._is_due(read_record(self._root)):
            return
        with suppress(StoreBusy), self._lock.held():
            record = read_record(self._root)
            now = self._now_ms()
            if went_back(now, record) and record is not None:
                log.warning("the last cleanup lies in the future; the clock was set back, so it counts anew")
                write_record(self._root, replace(record, last_at=now))
                return
            moments = when_due(now, record, self._rules.hour, self._local)
            if moments is not None:
                self._run(now, moments, record, breath_s=_BREATH_S)

    def run_now(self) -> Counts:
        """Do it now, because somebody asks: ages count from this moment, also for what is removed.

        Raises StoreBusy where one is going on, StoreUnavailable as `run_when_due`.
        """
        with self._lock.held():
            now = self._now_ms()
            return self._run(now, Moments(idle=now, removal=now), read_record(self._root))

    def _is_due(self, record: CleanupRecord | None) -> bool:
        now = self._now_ms()
        return went_back(now, record) or when_due(now, record, self._rules.hour, self._local) is not None

    def _run(
        self, now: int, moments: Moments, record: CleanupRecord | None, *, breath_s: float = 0.0
    ) -> Counts:
        began = time.monotonic()
        counts = self._recover()
        sessions = self._store.sessions()
        counts += self._archive_idle(sessions, now, moments, breath_s)
        counts += self._fold_idle(sessions, moments, breath_s)
        counts += self._remove_old(moments)
        before = record or CleanupRecord(now)
        took_ms = int((time.monotonic() - began) * 1000)
        write_record(self._root, CleanupRecord(now, took_ms, before.runs + 1, counts, before.total + counts))
        log.info(
            "cleanup: %d sessions archived, %d journals folded, %d archives removed (%d bytes), %d failed",
            counts.archived,
            counts.folded,
            counts.removed,
            counts.freed_bytes,
            counts.failed,
        )
        return counts

    def _recover(self) -> Counts:
        done = self._archives.recover()
        for sentence in done:
            log.warning("archive %s", sentence)
        return Counts(recovered=len(done))

    def _archive_idle(self, sessions: list[Session], now: int, moments: Moments, breath_s: float) -> Counts:
        if self._rules.archive_days is None:
            return Counts()
        oldest = moments.idle - int(self._rules.archive_days * DAY_MS)
        active = self._journal.active_at([session.key for session in sessions])
        busy = {key.session_key for key in self._store.unfinished()}
        counts = Counts()
        for session in sessions:
            time.sleep(breath_s)
            key = session.key
            if key in busy or max(session.created_at, active.get(key, 0)) > oldest:
                continue
            try:
                # An older version noted no activity but that of the tasks.
                if self._has_later(key, oldest, breath_s):
                    continue
                archive = self._archives.archive(key, at=now)
            except (TaskNotFinished, SessionNotFound):
                continue  # somebody uses it, or has put it away
            except TasksError as error:
                log.warning("session %s could not be archived: %s", key.session, error)
                counts += Counts(failed=1)
                continue
            log.info("cleanup: session %s is archived as %s", key.session, archive.name)
            self._note("archived", key, archive=archive.name)
            counts += Counts(archived=1)
        return counts

    def _has_later(self, key: SessionKey, moment: int, breath_s: float) -> bool:
        """Whether anything has become of a task of a session after a moment."""
        for number, task in enumerate(self._store.tasks(key), 1):
            if task.history and task.history[-1].at > moment:
                return True
            if number % _MANY == 0:
                time.sleep(breath_s)
        return False

    def _fold_idle(self, sessions: list[Session], moments: Moments, breath_s: float) -> Counts:
        if self._rules.journal_days is None:
            return Counts()
        oldest = moments.idle - int(self._rules.journal_days * DAY_MS)
        counts = Counts()
        for session in sessions:
            time.sleep(breath_s)
            try:
                figures = self._journal.figures(session.key)
                newest = max(figures.active_at or 0, figures.newest_at or 0)
                if not figures.live or newest > oldest:
                    continue
                folded = self._journal.prune(session.key, 0)
            except TasksError as error:
                log.warning("the journal of session %s could not be folded: %s", session.key.session, error)
                counts += Counts(failed=1)
                continue
            log.info("cleanup: %d messages of session %s are folded", folded, session.key.session)
            counts += Counts(folded=1)
        return counts

    def _remove_old(self, moments: Moments) -> Counts:
        if self._rules.retention_days is None or moments.removal is None:
            return Counts()
        oldest = moments.removal - int(self._rules.retention_days * DAY_MS)
        counts = Counts()
        for archive in self._archives.all():
            # A damaged one tells nothing certain of itself, and somebody may want to look at it.
            if archive.archived_at > oldest or archive.problem is not None:
                continue
            try:
                freed = self._archives.remove(archive.key.owner, archive.name)
            except SessionNotFound:
                continue
            except TasksError as error:
                log.warning("archive %s could not be removed: %s", archive.name, error)
                counts += Counts(failed=1)
                continue
            log.info("cleanup: archive %s is removed", archive.name)
            self._note("archive_removed", archive.key, archive=archive.name, freed_bytes=freed)
            counts += Counts(removed=1, freed_bytes=freed)
        return counts

    def _note(self, action: str, key: SessionKey, **detail: object) -> None:
        self._audit.note(action, owner=key.owner, session=key.session, by=_BY, detail=detail)
