"""All archives of a state directory.

In one place or the other, never in none: an archive is whole and durable before its session is removed,
and a session is whole before its archive is. One process at a time puts away or brings back (a lock),
so whatever looks half done to its next holder was left by one that was killed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mcp_tasks.archives.leaving import Leaving
from mcp_tasks.archives.returning import Returning
from mcp_tasks.archives.shelf import RESTORING, Shelf
from mcp_tasks.errors import TasksError
from mcp_tasks.models import SessionKey, Task, TaskKey
from mcp_tasks.ports import Archive, Journal, Sealer, Store
from mcp_tasks.stores.disk.locks import ProcessLock

__all__ = ["SessionArchives"]

_LOCK_S = 10.0

log = logging.getLogger(__name__)


class SessionArchives:
    """Implements `ports.Archives` in the folder `archive` of a state directory.

    Args:
        root: The state directory.
        store: Where sessions come from and go back to.
        journal: The same for their journals.
        settle: Brings the record of a task up to what is true, and returns it.
        left_alive: Whether anything of a task that is over still runs.
        sealer: For journals that are sealed; without one they cannot be archived.
    """

    def __init__(
        self,
        root: Path,
        store: Store,
        journal: Journal,
        *,
        settle: Callable[[TaskKey], Task],
        left_alive: Callable[[Task], bool],
        sealer: Sealer | None = None,
    ) -> None:
        self._shelf = Shelf(root / "archive")
        self._leaving = Leaving(
            self._shelf, store, journal, settle=settle, left_alive=left_alive, sealer=sealer
        )
        self._returning = Returning(self._shelf, store, journal, sealer=sealer)
        self._lock = ProcessLock(os.fspath(root / "archive.lock"), _LOCK_S)

    def archive(self, session: SessionKey, *, at: int) -> Archive:
        """See `ports.Archives`."""
        with self._lock.held():
            return self._leaving.put_away(session, at)

    def all(self, owner: str | None = None) -> list[Archive]:
        """See `ports.Archives`."""
        found = [archive for _, archive, _ in self._shelf.listed(owner)]
        return sorted(found, key=lambda archive: (archive.archived_at, archive.name), reverse=True)

    def find(self, owner: str, name: str) -> Archive:
        """See `ports.Archives`."""
        return self._shelf.found(owner, name)[1]

    def restore(
        self, owner: str, name: str, *, at: int, into: str | None = None, keep: bool = False
    ) -> SessionKey:
        """See `ports.Archives`."""
        with self._lock.held():
            return self._returning.bring_back(owner, name, at=at, into=into, keep=keep)

    def remove(self, owner: str, name: str) -> int:
        """See `ports.Archives`."""
        with self._lock.held():
            stem, archive = self._shelf.found(owner, name)
            self._shelf.discard(stem)
            return archive.bytes

    def check(self) -> Iterator[str]:
        """Read every archive; one sentence for each that is damaged. Raises StoreUnavailable."""
        yield from self._shelf.check()

    def recover(self) -> list[str]:
        """Finish or undo what killed processes left half done; one sentence for each."""
        done: list[str] = []
        if not os.path.isdir(self._shelf.folder):
            return done
        with self._lock.held():
            for stem, archive, stage in self._shelf.listed(None):
                try:
                    if os.path.lexists(f"{stem}{RESTORING}"):
                        done.append(f"{archive.name}: {self._returning.settle(stem, archive)}")
                        continue
                    if stage == "leaving" and archive.problem is None:
                        done.append(self._leaving.finish(stem, archive))
                    elif stage == "unlabelled" and self._leaving.is_in_store(stem, archive):
                        self._shelf.discard(stem)
                        done.append(f"{archive.name}: its session is still there")
                except TasksError as error:
                    log.warning("an archive that was left half done stays so for now: %s", error)
            for owner in self._shelf.owners(None):
                for name in os.listdir(self._shelf.folder / owner):
                    if name.startswith(".") and name.endswith((".part", ".tmp")):
                        os.unlink(self._shelf.folder / owner / name)
        return done
