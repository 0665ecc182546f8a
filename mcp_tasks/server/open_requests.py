"""What one client has asked and not been told yet, where all of it goes over one stream."""

from __future__ import annotations

from typing import Final

import anyio
import mcp_types as types

from mcp_tasks.server.frames import request_key

__all__ = ["MOST_OPEN", "OpenRequests"]

MOST_OPEN: Final = 1_000
"""Of one client; then nothing more is taken of it until something is answered."""


class OpenRequests:
    """The requests whose answer the client waits for."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._changed = anyio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def asked(self, message: types.JSONRPCMessage) -> None:
        """Take note of what the client has sent."""
        if isinstance(message, types.JSONRPCRequest):
            if message.method != "subscriptions/listen":  # nobody waits for the end of that
                self._open.add(request_key(message.id))
        elif isinstance(message, types.JSONRPCNotification) and message.method == "notifications/cancelled":
            self._close((message.params or {}).get("requestId"))  # it is never answered

    def told(self, message: types.JSONRPCMessage) -> None:
        """Take note of what the client has been sent."""
        if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
            self._close(message.id)

    async def change(self) -> None:
        """Wait until something has been answered."""
        await self._changed.wait()

    def _close(self, request_id: object) -> None:
        self._open.discard(request_key(request_id))
        self._changed.set()
        self._changed = anyio.Event()
