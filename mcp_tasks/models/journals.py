"""What a journal holds: what was said and done in a session, message by message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mcp_tasks.models.sessions import SessionKey

__all__ = ["Connection", "Draft", "JournalFigures", "Message", "MessageRole", "Version"]

MessageRole: TypeAlias = Literal["user", "assistant", "system", "tool", "event", "summary"]
"""`tool`: a tool call; `event`: the end of a task, or something of the session; `summary`: see pruning."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A message before it has its place in the journal. `at` is in milliseconds since the epoch.

    Attributes:
        parent: Id of the message that it answers. Answers to one message make branches of a thread.
        data: Of an automatic entry: tool, arguments (redacted), duration_ms, result, …; any JSON.
        sealed: Whether text and data are to be unreadable at rest.
    """

    session: SessionKey
    role: MessageRole
    text: str
    at: int
    task_id: str | None = None
    parent: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    sealed: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """A text that a message had, and since when."""

    at: int
    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a journal.

    Attributes:
        message_id: Unguessable, like a task's id.
        seq: Its place in the journal of its session, from 1, without gaps at the time of writing.
        edited_at: Of the newest edit; None where there is none.
        sealed: Whether text and data are unreadable at rest; here they are readable.
        versions: The texts before the edits, oldest first. Only what gives or takes whole journals
            (`everything`, `restore`) has them; `Journal.versions` tells them of one message.
    """

    session: SessionKey
    message_id: str
    seq: int
    role: MessageRole
    text: str
    at: int
    task_id: str | None = None
    parent: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    edited_at: int | None = None
    sealed: bool = False
    versions: tuple[Version, ...] = ()


@dataclass(frozen=True, slots=True)
class JournalFigures:
    """Statistics of one journal, moments in ms since the epoch, None when empty.

    Attributes:
        live: Messages that can be read and found one by one; summaries are not counted.
        folded: Messages that stand behind a summary.
        oldest_at: Of the oldest message, folded or not.
        active_at: When the session was used last.
    """

    live: int
    folded: int
    oldest_at: int | None
    newest_at: int | None
    active_at: int | None


@dataclass(frozen=True, slots=True)
class Connection:
    """One client attached to a session.

    Attributes:
        ended: How it ended (`closed`, `lost`); None while it is there.
    """

    connection_id: str
    owner: str
    session: str | None
    client: str
    version: str
    transport: str
    began_at: int
    seen_at: int
    ended_at: int | None = None
    ended: str | None = None
