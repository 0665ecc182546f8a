"""Archives that are opened with their first use: most servers and commands put nothing away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_tasks.models import SessionKey, Task, TaskKey
from mcp_tasks.ports import Archive, Journal, Sealer, Store

if TYPE_CHECKING:
    from mcp_tasks.archives.folder import SessionArchives

__all__ = ["LateArchives"]


class LateArchives:
    """Implements `ports.Archives` with `SessionArchives`, made at first use, of the same arguments."""

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
        self._parts = root, store, journal
        self._rules = settle, left_alive, sealer
        self._made: SessionArchives | None = None
        self._guard = threading.Lock()

    def _archives(self) -> SessionArchives:
        from mcp_tasks.archives.folder import SessionArchives

        with self._guard:
            if self._made is None:
                settle, left_alive, sealer = self._rules
                self._made = SessionArchives(
                    *self._parts, settle=settle, left_alive=left_alive, sealer=sealer
                )
            return self._made

    def archive(self, session: SessionKey, *, at: int) -> Archive:
        """See `ports.Archives`."""
        return self._archives().archive(session, at=at)

    def all(self, owner: str | None = None) -> list[Archive]:
        """See `ports.Archives`."""
        return self._archives().all(owner)

    def find(self, owner: str, name: str) -> Archive:
        """See `ports.Archives`."""
        return self._archives().find(owner, name)

    def restore(
        self, owner: str, name: str, *, at: int, into: str | None = None, keep: bool = False
    ) -> SessionKey:
        """See `ports.Archives`."""
        return self._archives().restore(owner, name, at=at, into=into, keep=keep)

    def remove(self, owner: str, name: str) -> int:
        """See `ports.Archives`."""
        return self._archives().remove(owner, name)

    def recover(self) -> list[str]:
        """See `SessionArchives`."""
        return self._archives().recover()
