"""Which clients are served over HTTP, as sessions show them among their connections.

A client of 2025-11-25 has an MCP session, one over SSE a stream. Since 2026-07-28 a client is nothing but
its requests: whoever calls himself the same and comes with the same credential is one client, until he
has been silent for a while.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.to_thread

from mcp_tasks.service import Attendance

__all__ = ["Attendances"]

_MOST: Final = 1_000
_IDLE_S: Final = 1_800.0
"""After so long without a call a client counts as gone, as the SDK has it for its sessions."""

_SWEEP_S: Final = 30.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Present:
    attendance: Attendance
    seen_at: float


class Attendances:
    """The clients that are there.

    Args:
        attend: Makes the attendance of one that has come over a transport.
        most: So many are known; of more, those that were silent the longest count as gone.
        idle_s: How long a client may be silent.
    """

    def __init__(
        self, attend: Callable[[str], Attendance], *, most: int = _MOST, idle_s: float = _IDLE_S
    ) -> None:
        self._attend = attend
        self._most = most
        self._idle_s = idle_s
        self._present: OrderedDict[tuple[str, ...], _Present] = OrderedDict()
        self._gone: list[Attendance] = []

    def of(self, transport: str, *who: str) -> Attendance:
        """The attendance of a client, who is here now."""
        key = (transport, *who)
        present = self._present.get(key)
        if present is None:
            present = self._present[key] = _Present(self._attend(transport), 0.0)
            while len(self._present) > self._most:
                _, oldest = self._present.popitem(last=False)
                self._gone.append(oldest.attendance)
        present.seen_at = time.monotonic()
        self._present.move_to_end(key)
        return present.attendance

    def left(self, transport: str, *who: str) -> None:
        """A client has gone; it is written down with the next sweep."""
        if present := self._present.pop((transport, *who), None):
            self._gone.append(present.attendance)

    async def sweep_now_and_then(self) -> None:
        """Write down who has gone, until cancelled."""
        while True:
            await anyio.sleep(_SWEEP_S)
            await self.sweep()

    async def sweep(self) -> None:
        """Write down who has gone, and who has been silent for too long."""
        horizon = time.monotonic() - self._idle_s
        while self._present and next(iter(self._present.values())).seen_at < horizon:
            _, silent = self._present.popitem(last=False)
            self._gone.append(silent.attendance)
        gone, self._gone = self._gone, []
        if gone:
            await anyio.to_thread.run_sync(_close, gone)

    async def close(self) -> None:
        """The server ends, so everybody has gone."""
        self._gone += [present.attendance for present in self._present.values()]
        self._present.clear()
        await self.sweep()


def _close(attendances: list[Attendance]) -> None:
    for attendance in attendances:
        attendance.close()
