"""Hooks as they are asked for, made into what may be kept, and armed before a task is registered."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mcp_tasks.errors import NotSupported
from mcp_tasks.models import DEFAULT_BEFORE_MS, DEFAULT_IDLE_MS, Hook, TaskKey
from mcp_tasks.ports import Hooks, Sealer
from mcp_tasks.requests import TaskHook

__all__ = ["armed", "sealed_hooks"]


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


@contextmanager
def armed(hooks: Hooks, keys: Sequence[TaskKey], wanted: Sequence[Hook]) -> Iterator[None]:
    """Arm hooks for tasks that are registered in the block; where it raises, none of them was.

    Raises:
        StoreUnavailable: They cannot be kept.
    """
    begun: list[TaskKey] = []
    try:
        if wanted:
            for key in keys:
                begun.append(key)
                hooks.arm(key, wanted)
        yield
    except BaseException:
        for key in begun:
            hooks.disarm(key)
        raise
