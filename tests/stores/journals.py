"""What the tests of journals have in common."""

from __future__ import annotations

import base64
from collections.abc import Iterable

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import Draft, Message, MessageRole, SessionKey

KEY = SessionKey("ada", "work")
OTHER = SessionKey("ada", "play")
AT = 1_700_000_000_000


class Scrambler:
    """Makes texts unreadable enough for a test, until it loses its key."""

    lost = False

    def seal(self, text: str) -> str:
        return "sealed:" + base64.b85encode(text.encode()).decode()

    def unseal(self, sealed: str) -> str:
        if self.lost:
            raise StoreUnavailable("the key is not here")
        return base64.b85decode(sealed.removeprefix("sealed:")).decode()

    def renewed(self, sealed: str) -> str | None:
        self.unseal(sealed)
        return None


def draft(
    text: str,
    at: int = AT,
    *,
    session: SessionKey = KEY,
    role: MessageRole = "user",
    task_id: str | None = None,
    parent: str | None = None,
    sealed: bool = False,
) -> Draft:
    return Draft(session, role, text, at, task_id, parent, sealed=sealed)


def drafts(count: int, *, session: SessionKey = KEY, sealed: bool = False) -> list[Draft]:
    return [draft(f"message {n}", AT + n, session=session, sealed=sealed) for n in range(count)]


def texts(messages: Iterable[Message]) -> list[str]:
    return [message.text for message in messages]
