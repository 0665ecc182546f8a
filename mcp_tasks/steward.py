"""The steward: starts pending tasks when no server lives, and goes away when none is left.

It is the same service as any server's, without a transport.
"""

from __future__ import annotations

import os
import time

import anyio

from mcp_tasks.app import open_service, open_store
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.handover import open_lock, take_lock
from mcp_tasks.settings import Settings

__all__ = ["main"]

_LOOK_S = 0.2
_PATIENCE_S = 60.0


def main(lock: int) -> None:
    """Start pending tasks until there are none.

    Args:
        lock: Descriptor of the steward's lock, which is held.
    """
    os.set_inheritable(lock, False)  # noqa: FBT003 - the name of the function says what it is
    anyio.run(_serve, Settings(), lock)


async def _serve(settings: Settings, lock: int) -> None:
    while True:
        try:
            await _see_pending_off(settings)
        finally:
            os.close(lock)
        # Whoever registered a task while the lock was held relied on this steward.
        if not await _is_anything_pending(settings):
            return
        lock = open_lock(settings.dir)
        if not take_lock(lock):
            os.close(lock)
            return


async def _see_pending_off(settings: Settings) -> None:
    while await _is_anything_pending(settings):
        try:
            async with open_service(settings) as service:
                while True:
                    while service.has_pending():  # noqa: ASYNC110 - what changes is in other processes
                        await anyio.sleep(_LOOK_S)
                    # A server that died while it claimed one leaves a task that is pending again.
                    await service.settle()
                    if not service.has_pending():
                        break
        except* StoreUnavailable:
            await anyio.sleep(_LOOK_S)


async def _is_anything_pending(settings: Settings) -> bool:
    """Wait until it can be said. A store that is gone or stays unreadable is left to the next server."""
    deadline = time.monotonic() + _PATIENCE_S
    while settings.dir.is_dir() and time.monotonic() < deadline:
        try:
            store = open_store(settings)
            try:
                return bool(store.pending())
            finally:
                store.close()
        except StoreUnavailable:
            await anyio.sleep(_LOOK_S)
    return False
