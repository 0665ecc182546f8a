"""The steward: starts what waits when no server lives, and goes away when nothing is left that may wait.

It is the same service as any server's, without a transport. It watches what others wait for, sleeps until
the next moment has come, and hears by its bell of what is new.
"""

from __future__ import annotations

import os
import time

import anyio

from mcp_tasks.app import open_outbox, open_service, open_store
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.handover import open_bell, open_lock, silence, take_lock
from mcp_tasks.parking import needs_somebody
from mcp_tasks.service import Service
from mcp_tasks.settings import Settings

__all__ = ["main"]

_LOOK_S = 0.2
_PATIENCE_S = 60.0


def main(lock: int) -> None:
    """Start what waits until nothing does.

    Args:
        lock: Descriptor of the steward's lock, which is held.
    """
    os.set_inheritable(lock, False)  # noqa: FBT003 - the name of the function says what it is
    anyio.run(_serve, Settings(), lock)


async def _serve(settings: Settings, lock: int) -> None:
    while True:
        try:
            await _see_everything_off(settings)
        finally:
            os.close(lock)
        # Whoever registered a task while the lock was held relied on this steward.
        if not await _is_needed(settings):
            return
        lock = open_lock(settings.dir)
        if not take_lock(lock):
            os.close(lock)
            return


async def _see_everything_off(settings: Settings) -> None:
    while await _is_needed(settings):
        try:
            async with open_service(settings, is_steward=True) as service:
                await _stand_in(settings, service)
        except* StoreUnavailable:
            await anyio.sleep(_LOOK_S)


async def _stand_in(settings: Settings, service: Service) -> None:
    """Be there until nothing waits."""
    try:
        bell = open_bell(settings.dir)
    except OSError:
        # Without a bell, what is new is found by the sweep.
        await service.until_nothing_waits()
        return
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_listen, bell, service)
            # What came before there was a bell was not heard.
            service.look_around()
            await service.until_nothing_waits()
            group.cancel_scope.cancel()
    finally:
        os.close(bell)


async def _listen(bell: int, service: Service) -> None:
    while True:
        await anyio.wait_readable(bell)
        silence(bell)
        service.look_around()


async def _is_needed(settings: Settings) -> bool:
    """Wait until it can be said. A store that is gone or stays unreadable is left to the next server."""
    deadline = time.monotonic() + _PATIENCE_S
    while settings.dir.is_dir() and time.monotonic() < deadline:
        try:
            store = open_store(settings)
            try:
                return needs_somebody(store) or bool(open_outbox(settings).listing())
            finally:
                store.close()
        except StoreUnavailable:
            await anyio.sleep(_LOOK_S)
    return False
