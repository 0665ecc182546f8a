"""Sessions as JSON-ready views: what has nothing to say is left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mcp_tasks.clock import rfc3339
from mcp_tasks.models import Closed, Connection, Hook, JournalFigures, Plan, Session, Share, StateName
from mcp_tasks.ports import Archive

__all__ = [
    "IDLE_MS",
    "Figures",
    "SessionStateName",
    "archive_summary",
    "session_summary",
    "session_view",
    "state_of",
]

IDLE_MS = 30 * 60_000
"""So long without a call, and without anything unfinished, a session is idle."""

SessionStateName = Literal["open", "idle", "closed"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a session beside its record.

    Attributes:
        journal_limit: The one that holds where the session has none of its own; 0 means no limit.
    """

    now: int
    active_at: int
    tasks: Mapping[StateName, int]
    busy: bool
    journal: JournalFigures
    journal_limit: int
    plans: Sequence[Plan] = ()
    connections: Sequence[Connection] = ()
    shares: Sequence[Share] = ()
    recent_commands: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


def state_of(session: Session, active_at: int, now: int, *, busy: bool) -> SessionStateName:
    """The state as clients see it. A session in which something is unfinished is never idle."""
    if isinstance(session.state, Closed):
        return "closed"
    if not busy and session.expires_at is not None and session.expires_at <= now:
        return "closed"  # whoever sweeps next writes it down
    return "open" if busy or now - active_at < IDLE_MS else "idle"


def session_view(session: Session, figures: Figures) -> dict[str, Any]:
    """The answer of session_info, update_session and end_session."""
    name, workspace = session.key.session, session.workspace
    state = state_of(session, figures.active_at, figures.now, busy=figures.busy)
    view: dict[str, Any] = {
        "session": name,
        "title": session.title,
        "state": state,
        "created_at": rfc3339(session.created_at),
        "active_at": rfc3339(figures.active_at),
        "idle_ms": max(0, figures.now - figures.active_at),
        "expires_at": _moment(session.expires_at),
        "revision": session.revision,
        "workspace": _filled(
            {
                "cwd": workspace.cwd,
                "shell": workspace.shell,
                "env": sorted(workspace.env),
                "preferences": dict(workspace.preferences),
            }
        ),
        "tasks": dict(figures.tasks),
        "journal": _journal(session, figures),
        "plans": [_plan(plan) for plan in figures.plans],
        "recent_commands": list(figures.recent_commands),
        "connections": [connection_view(connection) for connection in figures.connections],
        "shares": [share_view(share) for share in figures.shares],
        "hooks": [hook_view(hook) for hook in session.hooks],
        **figures.extra,
        "next": _next(name, state, figures),
    }
    if isinstance(session.state, Closed):
        view |= {"closed_at": rfc3339(session.state.at), "reason": session.state.reason}
    # Numbers that are 0 say something; what is empty says nothing.
    return {key: value for key, value in view.items() if not _is_empty(value)}


def session_summary(
    session: Session, active_at: int, now: int, tasks: Mapping[StateName, int], *, busy: bool
) -> dict[str, Any]:
    """A session in a list."""
    summary = {
        "session": session.key.session,
        "title": session.title,
        "state": state_of(session, active_at, now, busy=busy),
        "created_at": rfc3339(session.created_at),
        "active_at": rfc3339(active_at),
        "tasks": dict(tasks),
    }
    return _filled(summary)


def archive_summary(archive: Archive) -> dict[str, Any]:
    """An archived session in a list."""
    return _filled(
        {
            "session": archive.key.session,
            "title": archive.title,
            "state": "archived",
            "created_at": rfc3339(archive.created_at),
            "active_at": rfc3339(archive.active_at),
            "archive": archive.name,
            "archived_at": rfc3339(archive.archived_at),
            "problem": archive.problem,
        }
    )


def share_view(share: Share) -> dict[str, Any]:
    """A share without its token, which nobody has any more."""
    return _filled(
        {
            "share_id": share.share_id,
            "role": share.role,
            "created_at": rfc3339(share.created_at),
            "expires_at": _moment(share.expires_at),
        }
    )


def hook_view(hook: Hook) -> dict[str, Any]:
    """A hook without what it calls, which may hold secrets."""
    times = {"idle": ("idle_ms", hook.idle_ms), "deadline": ("before_ms", hook.before_ms)}
    return {
        "kind": hook.kind,
        "on": list(hook.on),
        **dict(times[event] for event in hook.on if event in times),
    }


def connection_view(connection: Connection) -> dict[str, Any]:
    """Who is or was attached."""
    return _filled(
        {
            "client": connection.client,
            "version": connection.version,
            "transport": connection.transport,
            "began_at": rfc3339(connection.began_at),
            "seen_at": rfc3339(connection.seen_at),
            "ended_at": _moment(connection.ended_at),
            "ended": connection.ended,
        }
    )


def _journal(session: Session, figures: Figures) -> dict[str, Any]:
    limit = figures.journal_limit if session.journal_limit is None else session.journal_limit
    journal = figures.journal
    view = {"live": journal.live, "folded": journal.folded, "limit": limit or None}
    return {
        **{name: value for name, value in view.items() if value is not None},
        **_filled({"newest_at": _moment(journal.newest_at), "sealed": session.seal_journal or None}),
    }


def _plan(plan: Plan) -> dict[str, Any]:
    return _filled({"plan_id": plan.key.plan_id, "name": plan.name, "created_at": rfc3339(plan.created_at)})


def _next(name: str, state: str, figures: Figures) -> str:
    if figures.busy:
        return f'list_tasks(session="{name}", state="active")'
    if state == "closed":
        return "read_journal or list_tasks shows what there was; run_command opens it again"
    return f'list_tasks(session="{name}")' if figures.tasks else f'run_command(session="{name}", command=…)'


def _moment(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)


def _filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if not _is_empty(value)}


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, (str, Collection)) and not value)
