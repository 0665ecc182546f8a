"""The contract of what keeps journals, activity and connections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

from mcp_tasks.models import Connection, Draft, JournalFigures, Message, MessageRole, SessionKey, Version

__all__ = ["Entry", "Journal"]

Entry: TypeAlias = Draft | Callable[[], Draft | None]
"""What is noted: an entry, or what makes one later, in another thread; None where there is nothing."""


class Journal(Protocol):
    """Keeps what was said and done in sessions. Safe for many threads and many processes.

    A method that writes returns when the write would survive a power cut, `note` and `touch` excepted.
    Each may raise StoreUnavailable, which means that the write did not happen.

    Messages are live or folded: `prune` takes the oldest ones out of the live ones and leaves a message
    of the role `summary` in their place. `read`, `thread` and `branch` know of folded ones when told to
    look there, and leave the summaries out then; the others know live ones only.
    """

    def append(self, drafts: Sequence[Draft]) -> list[Message]:
        """Add messages, all or none, in this order. Raises MessageNotFound for an unknown parent."""
        ...

    def note(self, entry: Entry) -> None:
        """Add an automatic entry soon, together with others, without waiting; never raises.

        What is noted survives the end of this process, but for a moment no power cut. Where more is
        noted than can be written, the newest entries are left out and counted in `problems`.
        """
        ...

    def flush(self) -> None:
        """Wait until what was noted is written, or could not be."""
        ...

    def read(
        self,
        session: SessionKey,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
        role: MessageRole | None = None,
        task_id: str | None = None,
        folded: bool = False,
    ) -> list[Message]:
        """A page of messages; `before` and `after` are sequence numbers, exclusive."""
        ...

    def load(self, session: SessionKey, message_id: str) -> Message:
        """One live message. Raises MessageNotFound."""
        ...

    def thread(self, session: SessionKey, message_id: str, *, folded: bool = False) -> list[Message]:
        """The whole tree that a message belongs to, in order. Raises MessageNotFound."""
        ...

    def branch(self, session: SessionKey, message_id: str, *, folded: bool = False) -> list[Message]:
        """The messages from the first of its thread down to this one. Raises MessageNotFound."""
        ...

    def edit(self, session: SessionKey, message_id: str, text: str, at: int) -> Message:
        """Give a message another text and keep the old one. Raises MessageNotFound."""
        ...

    def versions(self, session: SessionKey, message_id: str) -> list[Version]:
        """Each text that a message has had, oldest first, the present one last. Raises MessageNotFound."""
        ...

    def search(
        self, session: SessionKey, text: str, *, limit: int = 50, before: int | None = None
    ) -> list[Message]:
        """Live messages with all these words, newest first."""
        ...

    def prune(self, session: SessionKey, keep: int) -> int:
        """Fold the oldest messages until at most `keep` are live; returns how many were folded.

        What is folded is kept, compressed, behind a `summary` message that stands in its place.
        """
        ...

    def everything(self, session: SessionKey) -> Iterator[Message]:
        """Every message with its versions, folded ones too, oldest first, lazily; no summaries."""
        ...

    def restore(self, session: SessionKey, messages: Iterable[Message]) -> int:
        """Take messages over, all or none (import, migration); returns how many.

        Id, moments and versions stay. One whose id is there already is skipped. A sequence number
        stays where it comes after all that are there; otherwise the next one is given.
        """
        ...

    def delete(self, session: SessionKey, *, upto: int | None = None) -> int:
        """Forget the journal of a session and who was connected; returns how many messages went.

        With `upto` messages whose sequence numbers come after it stay, and then so does the rest.
        """
        ...

    def reseal(self, renewed: Callable[[str], str | None]) -> tuple[int, int]:
        """Seal all texts anew that need it, in many small writes; what is done stays done.

        Args:
            renewed: The sealed text with another key; None where it has that key already. It raises
                StoreUnavailable for what cannot be unsealed, which then stays as it is.

        Returns:
            How many messages were changed, and how many could not be.
        """
        ...

    def figures(self, session: SessionKey) -> JournalFigures:
        """Statistics of a journal; zeros for a session that has none."""
        ...

    def touch(self, session: SessionKey, at: int) -> None:
        """Note that a session is being used; soon, and not durably. Never raises."""
        ...

    def active_at(self, sessions: Sequence[SessionKey]) -> Mapping[SessionKey, int]:
        """When sessions were used last; those that never were are left out."""
        ...

    def connect(self, connection: Connection) -> None:
        """Note who attached, or that it was seen again or has ended (same id)."""
        ...

    def connections(self, owner: str, session: str | None = None, *, limit: int = 20) -> list[Connection]:
        """The newest connections of an owner, or of one session of his, newest first."""
        ...

    def verify(self) -> Iterator[str]:
        """Look at everything; one sentence for each thing that is wrong. Nothing is made or changed.

        A file that is broken as a whole is set aside, as with any reading.
        """
        ...

    def problems(self) -> list[str]:
        """What was found broken since it was opened, one sentence each."""
        ...

    def close(self) -> None:
        """Write what was noted, and give back what is held."""
        ...
