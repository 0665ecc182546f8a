"""The end of sessions: asked for, gracefully or not, for good, or because their time is over."""

from __future__ import annotations

import logging
import time

import anyio.lowlevel

from mcp_tasks.clock import Clock
from mcp_tasks.errors import (
    RevisionConflict,
    SessionNotFound,
    StoreUnavailable,
    TaskNotFinished,
    TaskNotFound,
)
from mcp_tasks.models import Closed, Session, SessionKey, TaskKey
from mcp_tasks.ports import Store
from mcp_tasks.redaction import redact_text
from mcp_tasks.requests import CancelTask, EndSession
from mcp_tasks.service.access import Caller
from mcp_tasks.service.desk import Desk, View, clamp
from mcp_tasks.service.sessions.records import SessionRecords
from mcp_tasks.service.sessions.sessions import Sessions
from mcp_tasks.service.tasks.ending import Ending
from mcp_tasks.waiting import Condition

__all__ = ["Expiry", "SessionEnds"]

log = logging.getLogger(__name__)

_AT_ONCE = 500
_NAMED = 5
_LIST_MS = 30_000


class SessionEnds:
    """end_session, and what removes a session for good."""

    def __init__(self, desk: Desk, ending: Ending, sessions: Sessions) -> None:
        self._desk = desk
        self._ending = ending
        self._sessions = sessions

    async def end_session(self, caller: Caller, request: EndSession) -> View:
        """Close a session once nothing in it is pending or running.

        Raises:
            SessionNotFound: There is none.
            TaskNotFinished: Something has not ended within the wait; names it. The session is as it was.
        """
        desk, key = self._desk, caller.session_key
        if request.force or request.archive:
            desk.require(caller, "owner")
        desk.records.load(key)
        wait_ms, _ = clamp(caller, caller.max_wait_ms if request.wait_ms is None else request.wait_ms)
        deadline = time.monotonic() + wait_ms / 1000
        cancelled: list[str] = []
        while True:
            if request.force:
                cancelled += await self._cancel_everything(caller)
            else:
                await self._wait_for_everything(caller, deadline)
            async with desk.turns.of(key):
                if await desk.blocking(self._close, caller, request):
                    break
            # Somebody has started something in this very moment.
            if not request.force and time.monotonic() >= deadline:
                raise TaskNotFinished(
                    _named(await desk.blocking(self._unfinished, key), "not ended"),
                    "force: true cancels what runs; a longer wait_ms waits for it",
                )
        extra = {"cancelled": cancelled} if cancelled else {}
        if request.archive:
            return await desk.blocking(self._archive, caller, extra)
        return await desk.blocking(lambda: self._sessions.info(caller, **extra))

    async def delete_session(self, caller: Caller, *, force: bool = False) -> View:
        """Remove a session for good, with tasks, output, plans and journal.

        Raises:
            SessionNotFound: There is none.
            TaskNotFinished: Something in it is pending or running, and it is not to be forced.
        """
        desk = self._desk
        desk.require(caller, "owner")
        desk.records.load(caller.session_key)
        cancelled = await self._cancel_everything(caller, lingering=True) if force else []
        async with desk.turns.of(caller.session_key):
            return {
                **await desk.blocking(self._delete, caller),
                **({"cancelled": cancelled} if cancelled else {}),
            }

    def _delete(self, caller: Caller) -> View:
        desk, key = self._desk, caller.session_key
        self._settle(key)
        if alive := self._lingering(key):
            raise TaskNotFinished(
                _named(alive, "processes running in the background"), "force: true ends them first"
            )
        self._keep_ends(key)
        freed = desk.store.delete_session(key)
        desk.journal.flush()  # or what was noted just before would come after
        messages = desk.journal.delete(key)
        desk.records.audit(key, "deleted", caller.by, freed_bytes=freed, messages=messages)
        return {"deleted": key.session, "freed_bytes": freed, "messages": messages}

    def _archive(self, caller: Caller, extra: View) -> View:
        view = self._sessions.info(caller, **extra)
        self._keep_ends(caller.session_key)
        archive = self._desk.archives.archive(caller.session_key, at=self._desk.clock.now_ms())
        self._desk.records.audit(caller.session_key, "archived", caller.by, archive=archive.name)
        return {**view, "state": "archived", "archive": archive.name}

    def _keep_ends(self, key: SessionKey) -> None:
        """Who wrote an end down may have been killed before it was kept for the hooks of its task."""
        if not self._desk.hooks.waiting():
            return  # for nearly every session, and there may be many tasks
        for task in self._desk.store.tasks(key):
            if task.is_final:
                self._desk.hooks.ended(task)

    def _unfinished(self, key: SessionKey) -> list[TaskKey]:
        return [
            each for each in self._desk.store.unfinished() if each.session_key == key and self._is_open(each)
        ]

    def _is_open(self, key: TaskKey) -> bool:
        try:
            return not self._desk.reconciler.look(key).task.is_final
        except TaskNotFound:
            return False

    def _lingering(self, key: SessionKey) -> list[TaskKey]:
        """The tasks that are over and have left processes in the background."""
        desk = self._desk
        return [
            each.key for each in desk.store.tasks(key) if each.is_final and desk.presenter.left_alive(each)
        ]

    async def _wait_for_everything(self, caller: Caller, deadline: float) -> None:
        """Return when nothing is unfinished, or the time is over."""
        while keys := await self._desk.blocking(self._unfinished, caller.session_key):
            left_ms = int((deadline - time.monotonic()) * 1000)
            if left_ms <= 0:
                return
            try:
                await self._desk.waiting.until(keys[0], Condition(), left_ms, caller.progress)
            except TaskNotFound:
                continue

    async def _cancel_everything(self, caller: Caller, *, lingering: bool = False) -> list[str]:
        keys = await self._desk.blocking(self._unfinished, caller.session_key)
        if lingering:
            keys += await self._desk.blocking(self._lingering, caller.session_key)
        ids = [key.task_id for key in keys]
        for start in range(0, len(ids), _AT_ONCE):
            try:
                await self._ending.cancel_task(
                    caller, CancelTask(task_ids=tuple(ids[start : start + _AT_ONCE]))
                )
            except TaskNotFound:
                # One was cleared meanwhile; whatever is left is seen below.
                await anyio.lowlevel.checkpoint()
        if left := await self._desk.blocking(self._unfinished, caller.session_key):
            still = [key for key in left if key.task_id in set(ids)]
            if still:
                raise TaskNotFinished(
                    _named(still, "not ended though it was asked for"),
                    "poll_task names the processes that are still alive",
                )
        return ids

    def _settle(self, key: SessionKey) -> None:
        """Write down the ends that are known, so that the store sees what is final."""
        for each in self._desk.store.unfinished():
            if each.session_key == key:
                try:
                    self._desk.reconciler.settle(each)
                except TaskNotFound:
                    continue

    def _close(self, caller: Caller, request: EndSession) -> bool:
        """Close the session unless something is unfinished; False where it is."""
        desk, key = self._desk, caller.session_key
        if self._unfinished(key):
            return False
        while True:
            try:
                reason = redact_text(request.reason or "ended", desk.workspaces.secret_values(key))
                desk.records.close(desk.records.load(key), reason, caller.by)
                break
            except RevisionConflict:
                continue
        if self._unfinished(key):
            # Whoever started it saw the session open; now it is again.
            desk.records.reopen(key, caller.by)
            return False
        return True


class Expiry:
    """Closes the sessions whose time is over, as long as nothing in them is unfinished. Blocking.

    Whether a session is due is looked up at most twice a minute, and at the moments that are known.
    """

    def __init__(self, store: Store, records: SessionRecords, clock: Clock) -> None:
        self._store = store
        self._records = records
        self._clock = clock
        self._listed_at = -_LIST_MS
        self._next_due: int | None = None

    def close_due(self) -> None:
        """Close what is due now. Raises StoreUnavailable."""
        now, mono = self._clock.now_ms(), self._clock.mono_ms()
        if mono - self._listed_at < _LIST_MS and (self._next_due is None or now < self._next_due):
            return
        sessions = [session for session in self._store.sessions() if _can_expire(session)]
        self._listed_at = mono
        busy = {key.session_key for key in self._store.unfinished()}
        moments = [s.expires_at for s in sessions if s.expires_at is not None and s.expires_at > now]
        for session in sessions:
            if session.expires_at is not None and session.expires_at <= now and session.key not in busy:
                self._close(session)
        self._next_due = min(moments, default=None)

    def _close(self, session: Session) -> None:
        try:
            self._records.close(session, "its time is over", "expiry", "expired")
            if any(key.session_key == session.key for key in self._store.unfinished()):
                self._records.reopen(session.key, "expiry")
        except (RevisionConflict, SessionNotFound):
            return  # it has just been extended, used or deleted: the next sweep sees what it is
        except StoreUnavailable as error:
            log.warning("a session whose time is over could not be closed: %s", error)


def _can_expire(session: Session) -> bool:
    return session.expires_at is not None and not isinstance(session.state, Closed)


def _named(keys: list[TaskKey], what: str) -> str:
    ids = ", ".join(key.task_id for key in keys[:_NAMED])
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"{len(keys)} {'task has' if len(keys) == 1 else 'tasks have'} {what}: {ids}{more}"
