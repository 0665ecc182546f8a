"""The steward: starts pending tasks when no server lives, and goes away when none is left.

It is the same service as any server's, without a transport.
"""

from __future__ import annotations

import os
import time

import anyio

from mcp_tasks.app import open_service, open_store
from mcp_tasks.handover import open_lock, take_lock
from mcp_tasks.settings import Settings

__all__ = ["main"]

_LOOK_S = 0.2
_RIVALS_S = 1.0


def main() -> None:
    """Start pending tasks until there are none."""
    anyio.run(_serve, Settings())


async def _serve(settings: Settings) -> None:
    while True:
        lock = open_lock(settings.dir)
        try:
            if not await _become_steward(lock):
                return
            async with open_service(settings) as service:
                while service.has_pending():  # noqa: ASYNC110 - what changes is in other processes
                    await anyio.sleep(_LOOK_S)
        finally:
            os.close(lock)
        # Whoever registered a task while the lock was held relied on this steward.
        if not open_store(settings).pending():
            return


async def _become_steward(lock: int) -> bool:
    """Take the lock, which one who only asks whether there is a steward holds for a moment."""
    deadline = time.monotonic() + _RIVALS_S
    while not take_lock(lock):
        if time.monotonic() >= deadline:
            return False
        await anyio.sleep(_LOOK_S / 10)
    return True
