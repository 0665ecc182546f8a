"""What has to be done for sessions now and then, by whichever server lives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import anyio
import anyio.to_thread

from mcp_tasks.errors import TasksError

__all__ = ["Errand", "run_errands"]

log = logging.getLogger(__name__)

Errand = Callable[[], None]

_FIRST_S = 1.0
_EVERY_S = 5.0


async def run_errands(errands: Sequence[Errand]) -> None:
    """Run each now and then, one after another, until cancelled. What fails is logged, and tried again.

    The first time is a moment after the start: who comes for one call only has left by then.
    """
    pause = _FIRST_S
    while True:
        await anyio.sleep(pause)
        pause = _EVERY_S
        for errand in errands:
            try:
                await anyio.to_thread.run_sync(errand)
            except TasksError as error:
                log.warning("%s has to wait: %s", errand.__qualname__, error)
            except Exception:
                log.exception("%s failed", errand.__qualname__)
