"""The contracts of what keeps secrets unreadable and of what remembers who did what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Audit", "Sealer"]


class Sealer(Protocol):
    """Encrypts texts at rest. The key lies outside of the store."""

    def seal(self, text: str) -> str:
        """The text, encrypted and authenticated, as one line that names its key. Raises StoreUnavailable."""
        ...

    def unseal(self, sealed: str) -> str:
        """What was sealed. Raises StoreUnavailable when the key is missing or the text was changed."""
        ...

    def renewed(self, sealed: str) -> str | None:
        """The same text, sealed with the newest key; None where it has that key. Raises as `unseal` does."""
        ...


class Audit(Protocol):
    """An append-only record of what changed whose sessions."""

    def note(
        self,
        action: str,
        *,
        owner: str,
        session: str | None = None,
        by: str,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Add one entry, durably. A failure is logged and never raised."""
        ...

    def read(self, *, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        """The newest entries, newest first: at, action, owner, session, by, detail."""
        ...
