"""The contract of what tells whether a server process is still there."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Presence"]


class Presence(Protocol):
    """Knows which servers of a store live, whatever ended the others. Blocking, safe for many threads."""

    def begin(self) -> str:
        """Show that this server is here; returns its id, the same each time. Raises StoreUnavailable."""
        ...

    def is_here(self, server_id: str) -> bool:
        """Whether that server still lives. One that cannot be looked at counts as living."""
        ...

    def gone(self) -> list[str]:
        """The servers that have died without saying so and that nobody has forgotten yet."""
        ...

    def forget(self, server_id: str) -> None:
        """Remove what is left of a server that has died. Never raises."""
        ...

    def end(self) -> None:
        """This server goes in good order. Never raises."""
        ...
