"""The sessions of clients of 2025-11-25: so many, and each with what it was sent."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, Final

import anyio
from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from mcp_tasks.http.event_store import EventRoom, SessionEvents
from mcp_tasks.http.sse import ANY_BODY

__all__ = ["McpSessions"]

_MOST: Final = 4_000
"""Each takes 40 KiB."""

_COME_BACK_MS: Final = 1_000
"""When a client is to come back after its stream has broken."""

_log = logging.getLogger(__name__)


class McpSessions(StreamableHTTPSessionManager):
    """The SDK's sessions of 2025-11-25, each with events of its own, and its entry for 2026-07-28.

    Many clients open a session for each call and leave it behind. So one that there is no room for is not
    refused, as the SDK has it: the one that was idle the longest ends, of the same client where he has one.
    A client whose session has ended is told 404, and opens another as the specification has it.

    Args:
        server: Serves them.
        left: Called with the id of a session that is over.
        most: So many there may be.
    """

    def __init__(self, server: Server[Any], left: Callable[[str], None], *, most: int = _MOST) -> None:
        super().__init__(
            server, max_request_body_size=ANY_BODY, max_sessions=most, retry_interval=_COME_BACK_MS
        )
        self._left = left
        self._most = most
        self._room = EventRoom()
        self._events: dict[str, SessionEvents] = {}

    def _admit_session(self, requestor: AuthorizationContext | None) -> StreamableHTTPServerTransport | None:
        if len(self._server_instances) >= self._most:
            self._end_the_idlest(requestor)
        self.event_store = events = SessionEvents(self._room)  # the SDK gives it to the session that it makes
        transport = super()._admit_session(requestor)
        if transport is not None and transport.mcp_session_id is not None:
            self._events[transport.mcp_session_id] = events
        return transport

    async def _discard_session(self, session_id: str, transport: StreamableHTTPServerTransport) -> None:
        if events := self._events.pop(session_id, None):
            events.end()
            self._left(session_id)
        await super()._discard_session(session_id, transport)

    def _end_the_idlest(self, requestor: AuthorizationContext | None) -> None:
        idle: list[tuple[bool, float, str, anyio.CancelScope]] = []
        for session_id, transport in self._server_instances.items():
            scope = transport.idle_scope
            if scope is not None and scope.deadline < math.inf:  # nothing of it is being answered
                is_anothers = self._session_owners.get(session_id) != requestor
                idle.append((is_anothers, scope.deadline, session_id, scope))
        if not idle:
            return
        _, _, session_id, scope = min(idle, key=lambda each: each[:2])
        _log.info("there are %d sessions of MCP: the one that was idle the longest ends", self._most)
        scope.cancel()  # as if it had been idle for too long
        del self._server_instances[session_id]
        self._session_owners.pop(session_id, None)
