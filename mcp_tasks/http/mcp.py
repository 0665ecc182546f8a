"""MCP over HTTP: Streamable HTTP at `/mcp`, the older SSE at `/sse`, from one server object."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from mcp_tasks.http.attendances import Attendances
from mcp_tasks.http.bodies import Uncrowded
from mcp_tasks.http.mcp_sessions import McpSessions
from mcp_tasks.http.principals import principal_of
from mcp_tasks.http.sse import MESSAGES, SseRoutes, stream_id
from mcp_tasks.server.callers import Context, Identity, client_of
from mcp_tasks.server.mcp_server import ServerSettings, build_server
from mcp_tasks.service import Attendance, Service

__all__ = ["McpRoutes", "McpSettings"]


class McpSettings(ServerSettings, Protocol):
    """What MCP over HTTP needs to know of the settings."""

    @property
    def owner(self) -> str:
        """Who runs the server."""
        ...


class McpRoutes:
    """The routes of MCP. Host and Origin have been checked, and who it is, before they are asked."""

    def __init__(self, service: Service, settings: McpSettings) -> None:
        self._owner = settings.owner
        self._attendances = Attendances(service.attend)
        self._server = build_server(service, settings, self._identify)
        self._sessions = McpSessions(
            self._server, lambda session_id: self._attendances.left("http", session_id)
        )
        self._sse = SseRoutes(self._server, lambda session_id: self._attendances.left("sse", session_id))

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Serve for as long as the block lasts."""
        try:
            async with self._sessions.run(), anyio.create_task_group() as group:
                group.start_soon(self._attendances.sweep_now_and_then)
                yield
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._attendances.close()

    def routes(self) -> list[BaseRoute]:
        """The routes, for the application."""
        return [
            Route("/mcp", Uncrowded(StreamableHTTPASGIApp(self._sessions))),
            *self._sse.routes(),
        ]

    def end(self) -> None:
        """End the streams of those who listen, over /sse when they have what they asked for."""
        self._server.subscriptions.end()
        self._sse.end()

    def _identify(self, context: Context) -> Identity:
        request: Request | None = context.request
        principal = principal_of(None if request is None else request.scope.get("user"))
        attendance = None if request is None else self._attendance(request, principal.owner, context)
        at_home = principal.owner == self._owner
        return Identity(principal.owner, principal.role, attendance, principal.share, at_home)

    def _attendance(self, request: Request, owner: str, context: Context) -> Attendance:
        if request.scope["path"].startswith(MESSAGES):
            return self._attendances.of("sse", stream_id(request))
        if session_id := request.headers.get(MCP_SESSION_ID_HEADER):
            return self._attendances.of("http", session_id)
        client = client_of(context)
        return self._attendances.of("http", owner, client.name, client.version)
