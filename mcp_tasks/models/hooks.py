"""What is to be told to somebody who cannot be pushed to, when something happens to a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Hook", "HookEvent", "HookKind"]

HookKind: TypeAlias = Literal["command", "webhook", "desktop"]
HookEvent: TypeAlias = Literal["end", "idle", "deadline"]
"""The task is final; it has printed nothing for `idle_ms`; its time-out is `before_ms` away."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One thing to be done when something happens; off unless somebody has set it.

    Attributes:
        command: Of a `command`: a line for the shell, or program and arguments. It is given what happened
            as JSON on its stdin, and in variables of the environment.
        url: Of a `webhook`: http or https, to which what happened is posted as JSON.
        on: What it is done for.
        idle_ms: Silence after which `idle` is told, once for each silence.
        before_ms: Before the end of `timeout_ms`, when `deadline` is told.
    """

    kind: HookKind
    command: str | tuple[str, ...] | None = None
    url: str | None = None
    on: tuple[HookEvent, ...] = ("end",)
    idle_ms: int = 300_000
    before_ms: int = 60_000
