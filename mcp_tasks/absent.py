"""A stand-in for a journal where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mcp_tasks.errors import MessageNotFound, StoreUnavailable
from mcp_tasks.models import Connection, Draft, JournalFigures, Message, SessionKey

__all__ = ["NoJournal"]


class NoJournal:
    def append(self, drafts: Sequence[Draft]) -> list[Message]:
        raise StoreUnavailable("there is no journal")

    def note(self, entry: Any) -> None:
        return

    def flush(self) -> None:
        return

    def read(self, session: SessionKey, **_: Any) -> list[Message]:
        return []

    def load(self, session: SessionKey, message_id: str) -> Message:
        raise MessageNotFound(message_id)

    def thread(self, session: SessionKey, message_id: str, **_: Any) -> list[Message]:
        raise MessageNotFound(message_id)

    branch = thread

    def edit(self, session: SessionKey, message_id: str, text: str, at: int) -> Message:
        raise MessageNotFound(message_id)

    def versions(self, session: SessionKey, message_id: str) -> Any:
        raise MessageNotFound(message_id)

    def search(
        self, session: SessionKey, text: str, *, limit: int = 50, before: int | None = None
    ) -> list[Message]:
        return []

    def prune(self, session: SessionKey, keep: int) -> int:
        return 0

    def everything(self, session: SessionKey) -> Iterator[Message]:
        return iter(())

    def restore(self, session: SessionKey, messages: Iterator[Message]) -> int:
        return 0

    def delete(self, session: SessionKey) -> int:
        return 0

    def reseal(self, renewed: Any) -> tuple[int, int]:
        return 0, 0

    def figures(self, session: SessionKey) -> JournalFigures:
        return JournalFigures(0, 0, None, None, None)

    def touch(self, session: SessionKey, at: int) -> None:
        return

    def active_at(self, sessions: Sequence[SessionKey]) -> Mapping[SessionKey, int]:
        return {}

    def connect(self, connection: Connection) -> None:
        return

    def connections(self, owner: str, session: str | None = None, *, limit: int = 20) -> list[Connection]:
        return []

    def problems(self) -> list[str]:
        return []

    def close(self) -> None:
        return
