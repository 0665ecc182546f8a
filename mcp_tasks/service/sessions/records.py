"""Session records: made, changed by compare-and-set, closed and opened again, and what is told of it."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from mcp_tasks.clock import Clock
from mcp_tasks.errors import RevisionConflict, SessionNotFound, StoreUnavailable
from mcp_tasks.models import Closed, Draft, Open, Session, SessionKey, Task
from mcp_tasks.ports import Audit, Journal, Store

__all__ = ["SessionRecords", "refuse_other_revision"]

log = logging.getLogger(__name__)

_SOONEST_MS = 1_000


class SessionRecords:
    """The one place where session records change. Blocking, safe for many threads.

    Each event of a session goes into its journal and into the audit log.
    """

    def __init__(self, store: Store, journal: Journal, audit: Audit, clock: Clock) -> None:
        self._store = store
        self._journal = journal
        self._audit = audit
        self._clock = clock
        self._later: ThreadPoolExecutor | None = None
        self._touched: dict[SessionKey, int] = {}
        self._guard = threading.Lock()

    def find(self, key: SessionKey) -> Session | None:
        """A session, or None where there is none. Raises StoreUnavailable."""
        try:
            return self._store.load_session(key)
        except SessionNotFound:
            return None

    def load(self, key: SessionKey) -> Session:
        """A session. Raises SessionNotFound, in the same words as for another's, and StoreUnavailable."""
        return self._store.load_session(key)

    def change(
        self, key: SessionKey, edit: Callable[[Session], Session], by: str, revision: int | None = None
    ) -> Session:
        """Change a session, which is made where there is none.

        Without `revision` the edit is made again on whatever another writer has left, until it fits: no
        update is lost, and of two writers of one field the last one wins.

        Args:
            key: Which session.
            edit: From the session as stored to what it is to be; called again when somebody was faster.
            by: Who changes it.
            revision: Refuse the change where the session is not at this revision.

        Raises:
            RevisionConflict: It is not; the message tells the current one.
        """
        while True:
            stored = self._opened(key, by)
            if revision is not None:
                refuse_other_revision(stored, revision)
            edited = edit(stored)
            if edited == stored:
                return stored
            try:
                return self._store.replace_session(edited)
            except (RevisionConflict, SessionNotFound):
                # Somebody else was faster, or has deleted it in this moment.
                continue

    def close(self, session: Session, reason: str, by: str, event: str = "closed") -> Session:
        """Close a session, unless it is closed. Raises RevisionConflict where it has just been changed."""
        if isinstance(session.state, Closed):
            return session
        closed = replace(session, state=Closed(self._clock.now_ms(), reason))
        stored = self._store.replace_session(closed)
        self.tell(session.key, event, by, reason=reason)
        return stored

    def reopen(self, key: SessionKey, by: str) -> None:
        """Open a session again that is closed. A moment of expiry that is past is forgotten."""
        while isinstance((session := self.find(key)), Session) and isinstance(session.state, Closed):
            due = session.expires_at is not None and session.expires_at <= self._clock.now_ms()
            opened = replace(session, state=Open(), expires_at=None if due else session.expires_at)
            try:
                self._store.replace_session(opened)
            except (RevisionConflict, SessionNotFound):
                continue
            self.tell_soon(key, "reopened", by)

    def begun(self, before: Session | None, task: Task, by: str) -> None:
        """Something was started in a session: it is open, whatever it was. Never raises.

        To be called after the task is registered: who closes the session looks for tasks afterwards, so
        one of the two sees the other.

        Args:
            before: The session before the start; None where there was none.
            task: One of those that were registered.
            by: Who did it.
        """
        key = task.key.session_key
        try:
            session = self.find(key)
            if session is None:
                return  # the store cannot be written, and the task lives elsewhere
            if before is None and session.created_at == task.created_at and session.revision == 0:
                self.tell_soon(key, "created", by)
            if isinstance(session.state, Closed):
                self.reopen(key, by)
            self.used(key)
        except StoreUnavailable as error:
            log.warning("a session could not be opened again: %s", error)

    def used(self, key: SessionKey) -> None:
        """A session that is there is being used now. Never raises, and seldom costs anything."""
        now = self._clock.now_ms()
        if now - self._touched.get(key, -_SOONEST_MS) < _SOONEST_MS:
            return
        try:
            if self.find(key) is None:
                return
        except StoreUnavailable:
            return
        with self._guard:
            if len(self._touched) > 1_000:
                self._touched.clear()
            self._touched[key] = now
        self._journal.touch(key, now)

    def tell(self, key: SessionKey, event: str, by: str, **detail: Any) -> None:
        """Write an event of a session into its journal and into the audit log."""
        detail = {name: value for name, value in detail.items() if value is not None}
        self._note(key, event, by, detail)
        self._audit.note(event, owner=key.owner, session=key.session, by=by, detail=detail)

    def tell_soon(self, key: SessionKey, event: str, by: str) -> None:
        """As `tell`, but nobody waits for the audit log."""
        self._note(key, event, by, {})
        self.soon(functools.partial(self._audit.note, event, owner=key.owner, session=key.session, by=by))

    def soon(self, write: Callable[..., None], *args: Any) -> None:
        """Do what nobody waits for, after everything that was to be done soon before."""
        with self._guard:
            if self._later is None:
                self._later = ThreadPoolExecutor(1, "sessions")
            self._later.submit(write, *args)

    def audit(self, key: SessionKey, event: str, by: str, **detail: Any) -> None:
        """Write an event into the audit log alone."""
        self._audit.note(event, owner=key.owner, session=key.session, by=by, detail=detail)

    def finish(self) -> None:
        """Wait for what was to be done soon."""
        with self._guard:
            later, self._later = self._later, None
        if later is not None:
            later.shutdown()

    def _note(self, key: SessionKey, event: str, by: str, detail: Mapping[str, Any]) -> None:
        reason = f": {detail['reason']}" if detail.get("reason") else ""
        draft = Draft(
            key,
            "event",
            f"session {event}{reason}",
            self._clock.now_ms(),
            data={"event": event, "by": by, **detail},
        )
        self._journal.note(draft)

    def _opened(self, key: SessionKey, by: str) -> Session:
        if (session := self.find(key)) is not None:
            return session
        fresh = Session(key, self._clock.now_ms())
        stored = self._store.open_session(fresh)
        if stored == fresh:
            self.tell(key, "created", by)
        return stored


def refuse_other_revision(session: Session, revision: int) -> None:
    """Raises RevisionConflict, which tells the current revision, where that is not the one meant."""
    if session.revision != revision:
        raise RevisionConflict(
            f"session {session.key.session!r} is at revision {session.revision}, not {revision}",
            "session_info shows what it is now; decide anew and give that revision",
        )
