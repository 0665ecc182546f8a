"""What a session is: the durable workspace that an agent or a person comes back to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from mcp_tasks.models.hooks import Hook

__all__ = [
    "DEFAULT_SESSION",
    "SESSION_NAME",
    "Closed",
    "Open",
    "Plan",
    "PlanKey",
    "Role",
    "Session",
    "SessionKey",
    "SessionState",
    "Share",
    "Workspace",
]

DEFAULT_SESSION = "default"
SESSION_NAME = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._-]{1,128}", re.ASCII)

Role: TypeAlias = Literal["owner", "write", "read"]
"""What somebody may do in a session; each role may what the later ones may."""


@dataclass(frozen=True, slots=True, order=True)
class SessionKey:
    """Who owns a session and what it is called; the unit of isolation."""

    owner: str
    session: str


@dataclass(frozen=True, slots=True)
class Open:
    """Commands can be started."""

    kind: Literal["open"] = "open"


@dataclass(frozen=True, slots=True)
class Closed:
    """The work is over. All that is there can be read, and the next command opens the session again."""

    at: int
    reason: str
    kind: Literal["closed"] = "closed"


SessionState: TypeAlias = Open | Closed


@dataclass(frozen=True, slots=True)
class Workspace:
    """What commands of a session are given where a call says nothing else.

    Attributes:
        env: Sealed values by name (see `mcp_tasks.sealing`); never the values themselves.
        preferences: Of people and clients, any JSON; nothing here reads them.
    """

    cwd: str | None = None
    shell: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    preferences: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Share:
    """Lets whoever has the token into a session. `digest` is all that is kept of the token."""

    share_id: str
    role: Role
    digest: str = field(repr=False)
    created_at: int
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A durable workspace and what is known of it.

    `revision` counts the writes and is what compare-and-set compares.

    Attributes:
        expires_at: When it is closed by itself, unless something runs in it.
        journal_limit: Live messages of the journal; None means the configured limit.
        seal_journal: Whether the texts of the journal are sealed at rest.
        hooks: What is done for each task that is started in it from now on.
    """

    key: SessionKey
    created_at: int
    revision: int = 0
    title: str | None = None
    state: Annotated[SessionState, Field(discriminator="kind")] = Open()
    expires_at: int | None = None
    workspace: Workspace = Workspace()
    shares: tuple[Share, ...] = ()
    journal_limit: int | None = None
    seal_journal: bool = False
    hooks: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class PlanKey:
    """Names one plan."""

    owner: str
    session: str
    plan_id: str

    @property
    def session_key(self) -> SessionKey:
        """The session that the plan belongs to."""
        return SessionKey(self.owner, self.session)


@dataclass(frozen=True, slots=True)
class Plan:
    """Several tasks that were created at once. Registered after them, and never changed.

    Attributes:
        tasks: Their ids, in the order of the plan.
    """

    key: PlanKey
    created_at: int
    tasks: tuple[str, ...]
    name: str | None = None
    on_failure: Literal["stop", "continue"] = "stop"
