"""The contract of what puts sessions away, compressed, and brings them back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from mcp_tasks.models import SessionKey

__all__ = ["Archive", "Archives"]


@dataclass(frozen=True, slots=True)
class Archive:
    """One archived session, as its listing tells. Moments in ms since the epoch.

    Attributes:
        name: `<session>~<archived_at>`, unique among the archives of an owner.
        active_at: When the session was last used before it was put away.
        files: Files of output and exit records.
        output_bytes: Of these files, uncompressed.
        bytes: Of the archive itself.
        sha256: Of the archive itself, in hexadecimal.
        problem: What is wrong with it, as far as can be told without opening it; None for nothing.
    """

    name: str
    key: SessionKey
    archived_at: int
    created_at: int
    active_at: int
    tasks: int = 0
    plans: int = 0
    messages: int = 0
    files: int = 0
    output_bytes: int = 0
    bytes: int = 0
    sha256: str = field(default="", repr=False)
    title: str | None = None
    problem: str | None = None


class Archives(Protocol):
    """Keeps archived sessions of any store. Blocking; safe for many threads and many processes.

    Each method may raise StoreUnavailable, and StoreBusy when another process archives for long.
    """

    def archive(self, session: SessionKey, *, at: int) -> Archive:
        """Put a session away: archive it completely and durably, then remove it from the store.

        Killed in between, the session is still there, or is removed by the next cleanup; it is never
        in neither place.

        Raises:
            SessionNotFound: There is no such session.
            TaskNotFinished: Something in it is pending or running, or was started meanwhile, or left
                processes in the background. Nothing has changed.
        """
        ...

    def all(self, owner: str | None = None) -> list[Archive]:
        """The archives of one owner, or of all, newest first; none is opened."""
        ...

    def find(self, owner: str, name: str) -> Archive:
        """The archive of this name, or the newest of the session of this name. Raises SessionNotFound."""
        ...

    def restore(
        self, owner: str, name: str, *, at: int, into: str | None = None, keep: bool = False
    ) -> SessionKey:
        """Bring a session back into the store, checked, and remove its archive.

        Args:
            owner: Whose archive.
            name: As `find` takes it.
            at: Now; counts as its newest activity.
            into: Name of the session that it becomes; None for the one that it had.
            keep: Leave the archive where it is.

        Raises:
            SessionNotFound: There is no such archive.
            InvalidArgument: There is a session of that name, or its tasks are in the store already.
            StoreUnavailable: The archive is damaged; it is left as it is, and nothing was restored.
        """
        ...

    def remove(self, owner: str, name: str) -> int:
        """Remove an archive for good; returns the bytes freed. Raises SessionNotFound."""
        ...
