"""How much there is of everything in a place."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcp_tasks.clock import rfc3339
from mcp_tasks.models import Session
from mcp_tasks.ports import Archives
from mcp_tasks.transfer.places import Place

__all__ = ["figures"]

_JOURNAL = "journal.db"
_STATES = ("pending", "running", "completed", "failed", "cancelled", "lost")


def figures(
    place: Place, archives: Archives, state_of: Callable[[Session, int, bool], str]
) -> dict[str, Any]:
    """Sessions by state, tasks by state, messages, bytes, ages; JSON-ready.

    Args:
        place: What is looked at.
        archives: Its archives.
        state_of: The state of a session, from when it was used last and whether something is unfinished.

    Raises:
        StoreUnavailable: The store or the disk refuses.
    """
    sessions = place.store.sessions()
    active = place.journal.active_at([session.key for session in sessions])
    busy = {key.session_key for key in place.store.unfinished()}
    states: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    messages: Counter[str] = Counter()
    for session in sessions:
        used = active.get(session.key, session.created_at)
        states[state_of(session, used, session.key in busy)] += 1
        tasks.update({str(name): count for name, count in place.store.counts(session.key).items()})
        journal = place.journal.figures(session.key)
        messages.update(live=journal.live, folded=journal.folded)
    away = archives.all()
    kinds = _bytes_by_kind(place.root)
    oldest = min((session.created_at for session in sessions), default=None)
    newest = max((active.get(s.key, s.created_at) for s in sessions), default=None)
    return {
        "dir": os.fspath(place.root),
        "store": place.adapter,
        "sessions": {
            "all": len(sessions) + len(away),
            **{name: states[name] for name in ("open", "idle", "closed")},
            "archived": len(away),
        },
        "tasks": {"all": tasks.total(), **{name: tasks[name] for name in _STATES}},
        "messages": {"live": messages["live"], "folded": messages["folded"]},
        "bytes": {"all": sum(kinds.values()), **kinds},
        "oldest_at": rfc3339(oldest) if oldest is not None else None,
        "newest_at": rfc3339(newest) if newest is not None else None,
    }


def _bytes_by_kind(root: Path) -> dict[str, int]:
    """Bytes on the disk: what the blocks take, so that holes cost nothing."""
    found = dict.fromkeys(("records", "output", "journal", "archives", "quarantine"), 0)
    for folder, _, names in os.walk(root):
        parts = Path(folder).relative_to(root).parts
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                found[_kind(parts, name)] += min(status.st_size, status.st_blocks * 512)
    return found


def _kind(parts: tuple[str, ...], name: str) -> str:
    if not parts:
        return "journal" if name.startswith(_JOURNAL) else "records"
    if parts[0] == "archive":
        return "archives"
    if parts[0] == "quarantine":
        return "quarantine"
    return "output" if parts[0] == "sessions" and len(parts) > 3 and parts[3] == "runs" else "records"
