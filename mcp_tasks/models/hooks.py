"""What is to be told to somebody who cannot be pushed to, when something happens to a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["DEFAULT_BEFORE_MS", "DEFAULT_IDLE_MS", "Hook", "HookEvent", "HookKind"]

HookKind: TypeAlias = Literal["command", "webhook", "desktop"]
HookEvent: TypeAlias = Literal["end", "idle", "deadline"]
"""The task is final; it has printed nothing for `idle_ms`; its time-out is `before_ms` away."""

DEFAULT_IDLE_MS = 300_000
DEFAULT_BEFORE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Hook:
    """One thing to be done when something happens to a task; off unless somebody has set it.

    Attributes:
        kind: `command` runs one, `webhook` posts to a URL, `desktop` shows a notification.
        on: What it is done for.
        target: The command or the URL as JSON, sealed (see `mcp_tasks.sealing`), never in clear: both may
            hold secrets. None for `desktop`, which needs none.
        idle_ms: Silence after which `idle` is told, once for each silence.
        before_ms: Before the end of `timeout_ms`, when `deadline` is told.
    """

    kind: HookKind
    on: tuple[HookEvent, ...] = ("end",)
    target: str | None = field(default=None, repr=False)
    idle_ms: int = DEFAULT_IDLE_MS
    before_ms: int = DEFAULT_BEFORE_MS
