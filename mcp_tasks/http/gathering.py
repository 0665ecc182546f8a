"""What is written in one turn of the event loop leaves in one piece.

uvicorn writes the head of an answer and its body one after the other. Each would be a packet of its own,
for each of which the client wakes up: that costs both sides more than putting the two together.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

__all__ = ["GatheringTransport"]

_AT_ONCE: Final = 65_536
"""Bytes that wait for nothing: who writes without end must find out when the client does not read."""


class GatheringTransport(asyncio.Transport):
    """A transport over another one.

    Args:
        transport: What everything is passed on to.
        loop: Whose turns they are.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._gathered: list[bytes | bytearray | memoryview] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write with the next turn; at once where it is much."""
        if not data:
            return
        self._gathered.append(data)
        self._size += len(data)
        if self._size >= _AT_ONCE:
            self._pass_on()
        elif len(self._gathered) == 1:
            self._loop.call_soon(self._pass_on)

    def get_write_buffer_size(self) -> int:
        """Bytes that have not left, here or further on."""
        return self._size + self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close it when everything has left."""
        self._pass_on()
        self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        self._forget()
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is being closed."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Take nothing more for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on taking."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the other one has it."""
        return self._transport.get_extra_info(name, default)

    def _pass_on(self) -> None:
        if self._gathered and not self._transport.is_closing():
            self._transport.write(b"".join(self._gathered))
        self._forget()

    def _forget(self) -> None:
        self._gathered.clear()
        self._size = 0
