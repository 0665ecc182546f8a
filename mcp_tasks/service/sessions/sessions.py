"""Sessions as things of their own: what there is to know of one, changing it, listing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mcp_tasks.errors import InvalidArgument, StoreUnavailable, TasksError
from mcp_tasks.models import Session, SessionKey, StateName
from mcp_tasks.requests import ListSessions, SessionInfo, UpdateSession
from mcp_tasks.service.access import Caller, live_shares
from mcp_tasks.service.desk import Desk, View
from mcp_tasks.service.sessions.edits import SessionEdit
from mcp_tasks.service.sessions.records import refuse_other_revision
from mcp_tasks.service.sessions.views import (
    Figures,
    archive_summary,
    session_summary,
    session_view,
    share_view,
    state_of,
)

__all__ = ["Sessions", "active_at"]

_PLANS = 20
_CONNECTIONS = 10
_COMMANDS = 10
_LOOKED_AT = 100
_CURSOR = "~"

T = TypeVar("T")


class Sessions:
    """session_info, update_session, list_sessions."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def session_info(self, caller: Caller, _request: SessionInfo) -> View:
        """Everything about one session. Raises SessionNotFound; reading makes none."""
        return await self._desk.blocking(self.info, caller)

    async def update_session(self, caller: Caller, request: UpdateSession) -> View:
        """Change a session, or make it. Raises RevisionConflict, PolicyDenied."""
        if request.share is not None or request.revoke is not None or request.hooks is not None:
            self._desk.require(caller, "owner")
        async with self._desk.turns.of(caller.session_key):
            return await self._desk.blocking(self._update, caller, request)

    async def list_sessions(self, caller: Caller, request: ListSessions) -> View:
        """The sessions of the caller, the one used last first; through a share, the shared one."""
        return await self._desk.blocking(self._list, caller, request)

    async def all_sessions(self) -> View:
        """The sessions of every owner of the store."""
        return await self._desk.blocking(self._all)

    def info(self, caller: Caller, **extra: Any) -> View:
        """The view of the caller's session, with `extra` beside it. Blocking. Raises SessionNotFound."""
        desk, key = self._desk, caller.session_key
        session = desk.records.load(key)
        now = desk.clock.now_ms()
        counts, busy = self._counts(key)
        if caller.role == "owner" and (in_memory := desk.in_memory()) is not None:
            extra["in_memory"] = dict(in_memory)
        figures = Figures(
            now=now,
            active_at=active_at(desk, [session])[key],
            tasks=counts,
            busy=busy,
            journal=desk.journal.figures(key),
            journal_limit=desk.journal_limit,
            plans=[plan for _, plan in zip(range(_PLANS), desk.store.plans(key), strict=False)],
            connections=desk.connections.of(key, _CONNECTIONS),
            shares=live_shares(session, now) if caller.role == "owner" else (),
            recent_commands=self._recent_commands(key),
            extra=extra,
        )
        return session_view(session, figures)

    def _recent_commands(self, key: SessionKey) -> list[str]:
        """The newest distinct commands, as the records show them: secrets redacted."""
        found: dict[str, None] = {}
        for _, task in zip(range(_LOOKED_AT), self._desk.store.tasks(key), strict=False):
            found.setdefault(task.spec.command)
            if len(found) == _COMMANDS:
                break
        return list(found)

    def _counts(self, key: SessionKey) -> tuple[dict[StateName, int], bool]:
        """How many tasks are in each state now, and whether any of them is not final."""
        counts = dict(self._desk.store.counts(key))
        busy = False
        for task_key in self._desk.store.unfinished():
            if task_key.session_key != key:
                continue
            try:
                recorded = self._desk.store.load(task_key)
                task = self._desk.reconciler.look_at(recorded).task
            except TasksError:
                continue  # cleared in this moment, or not to be read now: as recorded
            busy = busy or not task.is_final
            if task.state_name != recorded.state_name:
                counts[recorded.state_name] = counts.get(recorded.state_name, 1) - 1
                counts[task.state_name] = counts.get(task.state_name, 0) + 1
        return {state: count for state, count in counts.items() if count > 0}, busy

    def _update(self, caller: Caller, request: UpdateSession) -> View:
        desk, key = self._desk, caller.session_key
        now = desk.clock.now_ms()
        edit = SessionEdit(request, key, desk.workspaces, now)
        # Whatever is wrong is found before a session is made for it.
        edit(self._checked(key, request.revision, now))
        session = desk.records.change(key, edit, caller.by, request.revision)
        self._tell(caller, request, session, edit)
        desk.records.used(key)
        if edit.made is None:
            return self.info(caller)
        share, token = edit.made
        return self.info(caller, share={**share_view(share), "token": token})

    def _checked(self, key: SessionKey, revision: int | None, now: int) -> Session:
        """The session as it is or would be made. Raises RevisionConflict where it is at another revision."""
        session = self._desk.records.find(key) or Session(key, now)
        if revision is not None:
            refuse_other_revision(session, revision)
        return session

    def _tell(self, caller: Caller, request: UpdateSession, session: Session, edit: SessionEdit) -> None:
        records, key, by = self._desk.records, caller.session_key, caller.by
        if request.expires_in_ms is not None:
            records.tell(key, "extended", by, expires_at=session.expires_at)
        if request.revoke is not None:
            records.tell(key, "revoked", by, share_id=request.revoke)
        if edit.made is not None:
            share, _ = edit.made
            records.tell(
                key, "shared", by, share_id=share.share_id, role=share.role, expires_at=share.expires_at
            )
        if edit.named:
            records.audit(key, "updated", by, fields=edit.named)

    def _list(self, caller: Caller, request: ListSessions) -> View:
        if request.state == "archived":
            return self._list_archived(caller, request)
        desk, now = self._desk, self._desk.clock.now_ms()
        if caller.via is None:
            sessions = desk.store.sessions(caller.owner)
        else:
            sessions = [desk.records.load(caller.session_key)]
        busy = {key.session_key for key in desk.store.unfinished()}
        active = active_at(desk, sessions)
        sessions.sort(key=lambda session: (-active[session.key], session.key))
        counts: dict[str, int] = {}
        meant: list[Session] = []
        for session in sessions:
            state = state_of(session, active[session.key], now, busy=session.key in busy)
            counts[state] = counts.get(state, 0) + 1
            if request.state in (None, state):
                meant.append(session)
        meant = _after(meant, request.cursor, lambda session: (active[session.key], session.key.session))
        shown = meant[: request.limit]
        answer: View = {
            "sessions": [
                session_summary(
                    session,
                    active[session.key],
                    now,
                    self._counts(session.key)[0] if session.key in busy else desk.store.counts(session.key),
                    busy=session.key in busy,
                )
                for session in shown
            ],
            "counts": counts,
        }
        if len(meant) > len(shown):
            last = shown[-1].key
            answer["next_cursor"] = f"{active[last]}{_CURSOR}{last.session}"
        return answer

    def _list_archived(self, caller: Caller, request: ListSessions) -> View:
        """The archives of the caller, by their last use; a share opens none."""
        archives = self._desk.archives.all(caller.owner) if caller.via is None else []
        archives.sort(key=lambda archive: (-archive.active_at, archive.name))
        meant = _after(archives, request.cursor, lambda archive: (archive.active_at, archive.name))
        shown = meant[: request.limit]
        answer: View = {
            "sessions": [archive_summary(archive) for archive in shown],
            "counts": {"archived": len(archives)} if archives else {},
        }
        if len(meant) > len(shown):
            answer["next_cursor"] = f"{shown[-1].active_at}{_CURSOR}{shown[-1].name}"
        return answer

    def _all(self) -> View:
        desk, now = self._desk, self._desk.clock.now_ms()
        sessions = desk.store.sessions()
        busy = {key.session_key for key in desk.store.unfinished()}
        active = active_at(desk, sessions)
        return {
            "sessions": [
                {
                    "owner": session.key.owner,
                    **session_summary(
                        session,
                        active[session.key],
                        now,
                        desk.store.counts(session.key),
                        busy=session.key in busy,
                    ),
                    "shares": len(live_shares(session, now)),
                }
                for session in sorted(sessions, key=lambda session: session.key)
            ]
        }


def active_at(desk: Desk, sessions: list[Session]) -> dict[SessionKey, int]:
    """When sessions were used last; one of which nothing is noted, when it was made."""
    try:
        noted = desk.journal.active_at([session.key for session in sessions])
    except StoreUnavailable:
        noted = {}
    return {session.key: max(session.created_at, noted.get(session.key, 0)) for session in sessions}


def _after(listed: list[T], cursor: str | None, place_of: Callable[[T], tuple[int, str]]) -> list[T]:
    """What comes after a cursor in the order of a listing: by last use, then by name."""
    if cursor is None:
        return listed
    moment, separator, name = cursor.partition(_CURSOR)
    if not separator or not (moment.isascii() and moment.isdigit() and len(moment) < 20):
        raise InvalidArgument("cursor is not one of list_sessions", "give the next_cursor of the last answer")
    place = (-int(moment), name)
    return [each for each in listed if (-place_of(each)[0], place_of(each)[1]) > place]
