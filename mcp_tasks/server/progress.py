"""Telling a client that waits for an answer how that goes, so that it does not give up."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import anyio

__all__ = ["ProgressReports"]

_LONGEST_S: Final = 7.0
"""The interface promises a report every 10 s; a wait reports more often by itself."""

_Send: TypeAlias = Callable[[float, float | None, str | None], Awaitable[None]]


class ProgressReports:
    """The reports of one call: those of its waits, and one whenever there has been none for a while.

    The protocol wants each report to be higher than the last one (2025-11-25, basic/utilities/progress).

    Args:
        send: Sends one to the client: how far, of what, a sentence.
    """

    def __init__(self, send: _Send) -> None:
        self._send = send
        self._began = self._last = time.monotonic()
        self._told = -1
        self._of = 0
        self._message = "still at work"

    async def __call__(self, waited_ms: int, of_ms: int, message: str) -> None:
        """Report what a wait tells of itself, unless more has been reported before."""
        self._of, self._message = of_ms, message
        if waited_ms > self._told:
            await self._report(waited_ms)

    @asynccontextmanager
    async def kept_up(self, longest_s: float | None = None) -> AsyncIterator[None]:
        """Report for as long as the block lasts, also where several short waits or none are made in it."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_up, _LONGEST_S if longest_s is None else longest_s)
            yield
            group.cancel_scope.cancel()

    async def _keep_up(self, longest_s: float) -> None:
        while True:
            await anyio.sleep(max(0.0, self._last + longest_s - time.monotonic()))
            if time.monotonic() >= self._last + longest_s:
                elapsed_ms = int((time.monotonic() - self._began) * 1000)
                await self._report(max(elapsed_ms, self._told + 1))

    async def _report(self, value: int) -> None:
        self._told, self._last = value, time.monotonic()
        await self._send(value, max(self._of, value), self._message)
