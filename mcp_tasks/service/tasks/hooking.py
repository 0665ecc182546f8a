"""Hooks as they are asked for, made into what may be kept."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence

from mcp_tasks.errors import NotSupported
from mcp_tasks.models import DEFAULT_BEFORE_MS, DEFAULT_IDLE_MS, Hook
from mcp_tasks.ports import Sealer
from mcp_tasks.requests import TaskHook

__all__ = ["sealed_hooks"]


def sealed_hooks(asked: Sequence[TaskHook], sealer: Sealer) -> tuple[Hook, ...]:
    """Hooks as they may be kept: URLs and commands are sealed.

    Raises:
        NotSupported: There is no desktop here.
        StoreUnavailable: There is no key to seal with.
    """
    return tuple(_sealed(number, hook, sealer) for number, hook in enumerate(asked, 1))


def _sealed(number: int, asked: TaskHook, sealer: Sealer) -> Hook:
    target = asked.webhook if asked.command is None else asked.command
    if target is None and shutil.which("osascript" if sys.platform == "darwin" else "notify-send") is None:
        raise NotSupported(
            f"hooks[{number}]: there is no program here that shows notifications",
            "install notify-send (libnotify), or give a command or a webhook",
        )
    return Hook(
        asked.kind,
        asked.events,
        None if target is None else sealer.seal(json.dumps(target)),
        DEFAULT_IDLE_MS if asked.idle_ms is None else asked.idle_ms,
        DEFAULT_BEFORE_MS if asked.before_ms is None else asked.before_ms,
    )
