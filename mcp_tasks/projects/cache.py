"""Looks at projects, kept for a while, so that asking again costs next to nothing."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from mcp_tasks.projects.folders import is_fresh
from mcp_tasks.projects.looks import Kept, Looks, dump
from mcp_tasks.projects.project import Project

__all__ = ["Found", "ProjectCache"]

TTL_MS = 5 * 60_000
_MOST_ENTRIES = 64
_MOST_BYTES = 4 << 20
_UNMEASURED = 4_096
_COUNTED = ("hits", "misses", "evictions", "invalidations")


@dataclass(frozen=True, slots=True)
class Found:
    """A project, and how it came to be known.

    Attributes:
        at: When it was looked at, in milliseconds since the epoch.
        cached: Nobody had to look again.
        before: What was told of it the last time.
        before_at: When that was looked at.
    """

    project: Project
    at: int
    cached: bool
    before: Project | None
    before_at: int


class ProjectCache:
    """The looks of one process, each valid until something of it changes or its time is over.

    Safe for many threads; they never look at one folder at the same time. What is pushed out of
    memory, and what an earlier process had found, may still be in `looks`.

    Args:
        looks: Where looks outlive the process; None where they do not.
        now_ms: The wall clock.
        ttl_ms: For how long a look is taken for true at most, since not everything can be checked.
        most_entries: Folders that are remembered.
        most_bytes: Of memory that they take, about.

    Attributes:
        changes: Counts up whenever something else is remembered, so that `folders` may be different.
    """

    def __init__(
        self,
        looks: Looks | None,
        now_ms: Callable[[], int],
        *,
        ttl_ms: int = TTL_MS,
        most_entries: int = _MOST_ENTRIES,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._looks = looks
        self._now_ms = now_ms
        self._ttl_ms = ttl_ms
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._entries: OrderedDict[str, tuple[Kept, int]] = OrderedDict()
        self._bytes = 0
        self._counts = dict.fromkeys(_COUNTED, 0)
        self.changes = 0
        self._guard = threading.Lock()
        self._turns: dict[str, tuple[threading.Lock, int]] = {}

    def look(self, cwd: str, *, refresh: bool = False, tell: bool = True) -> Found:
        """What is known of the project that a folder belongs to. Blocking.

        Args:
            cwd: An existing folder.
            refresh: Look again, though nothing seems to have changed.
            tell: Somebody is told, so that the next one hears what has changed since.
        """
        cwd = os.path.realpath(cwd)
        with self._turn(cwd):
            known = self._known(cwd)
            if known is not None and not refresh and self._is_valid(known):
                kept, cached = known, True
            else:
                from mcp_tasks.projects.discovery import discover  # costs start-up time

                now = self._now_ms()
                kept, cached = Kept(discover(cwd), now), False
                if known is not None:
                    kept = replace(kept, told=known.told, told_at=known.told_at)
            self._count("hits" if cached else "misses")
            found = Found(kept.project, kept.at, cached, kept.told, kept.told_at)
            if tell:
                kept = replace(kept, told=kept.project, told_at=kept.at)
            self._remember(cwd, kept, known)
        return found

    def recheck(self, paths: Iterable[str]) -> int:
        """Forget what is no longer true; returns how many looks that were.

        Args:
            paths: What has changed, absolute.
        """
        folders = {os.path.dirname(path) for path in paths}
        with self._guard:
            touched = [
                (cwd, kept) for cwd, (kept, _) in self._entries.items() if folders & _folders(kept.project)
            ]
        gone = [cwd for cwd, kept in touched if not is_fresh(kept.project)]
        for cwd in gone:
            self._forget(cwd, "invalidations")
        return len(gone)

    def folders(self) -> frozenset[str]:
        """The folders in which a change may mean that a look is no longer true."""
        with self._guard:
            return frozenset(
                folder for kept, _ in self._entries.values() for folder in _folders(kept.project)
            )

    def figures(self) -> dict[str, int]:
        """Hits, misses, evictions and invalidations of this process, entries and their bytes, in memory."""
        with self._guard:
            return {**self._counts, "entries": len(self._entries), "bytes": self._bytes}

    def totals(self) -> dict[str, int]:
        """The counts of this process and of all that have ended, and what is kept in files."""
        totals = self.figures()
        if self._looks is not None:
            for name, number in self._looks.figures().items():
                if name in _COUNTED:
                    totals[name] += number
            totals["kept"], totals["kept_bytes"] = self._looks.size()
        return totals

    def clear(self) -> int:
        """Forget everything, kept looks and figures too; returns how many looks went."""
        with self._guard:
            entries = len(self._entries)
            self._entries.clear()
            self._bytes = 0
            self._counts = dict.fromkeys(_COUNTED, 0)
        return max(entries, 0 if self._looks is None else self._looks.forget())

    def close(self) -> None:
        """Add this process's counts to those that are kept."""
        if self._looks is not None:
            with self._guard:
                counts, self._counts = self._counts, dict.fromkeys(_COUNTED, 0)
            self._looks.add_figures(counts)

    @contextmanager
    def _turn(self, cwd: str) -> Iterator[None]:
        with self._guard:
            lock, waiting = self._turns.get(cwd, (threading.Lock(), 0))
            self._turns[cwd] = lock, waiting + 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, waiting = self._turns.pop(cwd)
                if waiting > 1:
                    self._turns[cwd] = lock, waiting - 1

    def _known(self, cwd: str) -> Kept | None:
        with self._guard:
            entry = self._entries.get(cwd)
            if entry is not None:
                self._entries.move_to_end(cwd)
                return entry[0]
        return None if self._looks is None else self._looks.load(cwd)

    def _is_valid(self, kept: Kept) -> bool:
        if not 0 <= self._now_ms() - kept.at < self._ttl_ms:
            return False
        if is_fresh(kept.project):
            return True
        self._count("invalidations")
        return False

    def _remember(self, cwd: str, kept: Kept, known: Kept | None) -> None:
        size = (len(dump(kept)) or _UNMEASURED) if kept is not known else 0
        with self._guard:
            entry = self._entries.pop(cwd, None)
            self._bytes -= entry[1] if entry is not None else 0
            self.changes += entry is None or entry[0].project is not kept.project
            self._entries[cwd] = kept, size or (entry[1] if entry is not None else 0)
            self._bytes += self._entries[cwd][1]
            while self._entries and (
                len(self._entries) > self._most_entries or self._bytes > self._most_bytes
            ):
                _, (_, freed) = self._entries.popitem(last=False)
                self._bytes -= freed
                self._counts["evictions"] += 1
        if self._looks is not None and kept != known:
            self._looks.save(cwd, kept)

    def _forget(self, cwd: str, why: str) -> None:
        with self._guard:
            entry = self._entries.pop(cwd, None)
            if entry is not None:
                self.changes += 1
                self._bytes -= entry[1]
                self._counts[why] += 1

    def _count(self, what: str) -> None:
        with self._guard:
            self._counts[what] += 1


def _folders(project: Project) -> frozenset[str]:
    return frozenset(
        place
        for path, stamp in project.stamps
        for place in ((path, os.path.dirname(path)) if stamp is not None else (os.path.dirname(path),))
    )
