"""One connection of a client: how many there may be, and when one that only takes up room is cut.

uvicorn waits without end for a client that sends half a request or does not read its answer. Both cost
a descriptor and memory, so both are bounded here, beneath every route.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, ClassVar, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from mcp_tasks.api.problems import problem
from mcp_tasks.http.gathering import GatheringTransport

__all__ = ["Connection"]

_LOOKS: Final = 6
"""How often it is looked whether a client reads, within the time that it has."""

_PROBLEM: Final = json.dumps(problem(503, "too many connections", "close those that are not used")).encode()
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(_PROBLEM), _PROBLEM)
)

_log = logging.getLogger(__name__)


class Connection(H11Protocol):
    """See uvicorn's own protocol. `limit_concurrency` of its configuration limits connections alone.

    Attributes:
        stall_s: A client that has not read a byte of what is ready for it for so long is cut.
        silence_s: A client that leaves a request half sent for so long, or sends none, is cut.
    """

    stall_s: ClassVar[float] = 30.0
    silence_s: ClassVar[float] = 30.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._most = self.limit_concurrency
        # uvicorn would count what is running too, and answer 503 to connections that it has let in.
        self.limit_concurrency = None
        self._refused = False
        self._unsent: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Let the client in, or tell it that there are too many."""
        if self._most is not None and len(self.connections) >= self._most:
            self._refused = True
            _log.warning("refused a connection: %d are open", self._most)
            transport.write(_FULL)
            transport.close()
            return
        super().connection_made(GatheringTransport(transport, self.loop))
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._stop_waiting()
        if self._unread is not None:
            self._unread.cancel()
        if not self._refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        if self._refused:
            return
        super().data_received(data)
        if self.conn.their_state is h11.SEND_BODY:
            self._stop_waiting()
            self._await_request()  # the body comes in parts, and this was one
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._await_request()  # the headers have their time as a whole
        else:
            self._stop_waiting()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered."""
        super().pause_writing()
        if self._unread is None:
            size = self.transport.get_write_buffer_size()
            self._unread = self.loop.call_later(self.stall_s / _LOOKS, self._look, size, 1)

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def _look(self, before: int, looks: int) -> None:
        size = self.transport.get_write_buffer_size()
        if size < before:
            looks = 0
        elif looks >= _LOOKS:
            self._cut(f"it has not read for {self.stall_s:.0f} s")
            return
        self._unread = self.loop.call_later(self.stall_s / _LOOKS, self._look, size, looks + 1)

    def _await_request(self) -> None:
        if self._unsent is None:
            self._unsent = self.loop.call_later(self.silence_s, self._is_silent)

    def _stop_waiting(self) -> None:
        if self._unsent is not None:
            self._unsent.cancel()
            self._unsent = None

    def _is_silent(self) -> None:
        self._unsent = None
        if self.flow.read_paused:  # it is us who do not read
            self._await_request()
        else:
            self._cut(f"it has sent no whole request for {self.silence_s:.0f} s", logging.DEBUG)

    def _cut(self, why: str, level: int = logging.INFO) -> None:
        """End the connection at once: what is ready for the client would never be read."""
        _log.log(level, "cut a connection: %s", why)
        self.transport.abort()
