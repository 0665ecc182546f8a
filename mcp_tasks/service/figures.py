"""How much of everything there is, over all owners: what those who run a server watch."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mcp_tasks.errors import SessionNotFound, StoreUnavailable
from mcp_tasks.models import SessionKey
from mcp_tasks.service.desk import Desk

__all__ = ["ServiceFigures", "count", "is_well"]


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """One moment's figures.

    Attributes:
        sessions: By state as recorded: open, closed.
        tasks: By state as recorded.
        queued: Pending tasks that wait for a place and nothing else.
        messages: Live messages of all journals.
        free_bytes: Of the disk with the state directory; None where nothing is kept on one.
        problems: What was found broken, how many.
        cache: Of projects: hits, misses, evictions, invalidations.
        in_memory: Of what ends with the process; None where nothing does.
    """

    sessions: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    queued: int = 0
    messages: int = 0
    free_bytes: int | None = None
    problems: int = 0
    cache: dict[str, int] = field(default_factory=dict)
    in_memory: dict[str, Any] | None = None


def count(desk: Desk) -> ServiceFigures:
    """Count everything. Blocking, and some work where there are many sessions. Raises StoreUnavailable."""
    store = desk.store
    sessions: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    messages = 0
    desk.journal.flush()
    for session in store.sessions():
        sessions[session.state.kind] += 1
        tasks.update(store.counts(session.key))
        messages += desk.journal.figures(session.key).live
    in_memory = desk.in_memory()
    return ServiceFigures(
        sessions=sessions,
        tasks=tasks,
        queued=len(store.pending()),
        messages=messages,
        free_bytes=_free_bytes(desk) if store.durable else None,
        problems=len(store.problems()) + len(desk.journal.problems()),
        cache=dict(desk.projects.figures()),
        in_memory=None if in_memory is None else dict(in_memory),
    )


def is_well(desk: Desk) -> bool:
    """Whether the store can be read now. Blocking, and cheap."""
    try:
        desk.store.load_session(SessionKey("", "-"))
    except SessionNotFound:
        return True
    except StoreUnavailable:
        return False
    return True


def _free_bytes(desk: Desk) -> int | None:
    try:
        of_disk = os.statvfs(desk.store.slots.parent)
    except OSError:
        return None
    return of_disk.f_bavail * of_disk.f_frsize
