"""MCP over HTTP: Streamable HTTP at `/mcp`, the older SSE at `/sse`, from one server object."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qs

import anyio
from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER, EventStore
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Message, Receive, Scope, Send

from mcp_tasks.http.attendances import Attendances
from mcp_tasks.http.event_store import EventRoom, SessionEvents
from mcp_tasks.http.principals import principal_of
from mcp_tasks.server.callers import Context, Identity, client_of
from mcp_tasks.server.mcp_server import ServerSettings, build_server
from mcp_tasks.service import Attendance, Service

__all__ = ["McpRoutes"]

_MESSAGES: Final = "/messages/"
_SESSION_ID: Final = "session_id"


class McpRoutes:
    """The routes of MCP. Host and Origin have been checked, and who it is, before they are asked."""

    def __init__(self, service: Service, settings: ServerSettings) -> None:
        self._attendances = Attendances(service.attend)
        self._server: Server[Any] = build_server(service, settings, self._identify)
        self._sessions = _Sessions(self._server)
        self._sse = SseServerTransport(_MESSAGES)

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
            Route("/mcp", _Streamable(self._sessions, self._attendances)),
            Route("/sse", _Sse(self._server, self._sse, self._attendances), methods=["GET"]),
            Mount(_MESSAGES, self._sse.handle_post_message),
        ]

    def _identify(self, context: Context) -> Identity:
        request: Request | None = context.request
        principal = principal_of(None if request is None else request.scope.get("user"))
        attendance = None if request is None else self._attendance(request, principal.owner, context)
        return Identity(principal.owner, principal.role, attendance)

    def _attendance(self, request: Request, owner: str, context: Context) -> Attendance:
        if request.url.path.startswith(_MESSAGES):
            return self._attendances.of("sse", request.query_params.get(_SESSION_ID, ""))
        if session_id := request.headers.get(MCP_SESSION_ID_HEADER):
            return self._attendances.of("http", session_id)
        client = client_of(context)
        return self._attendances.of("http", owner, client.name, client.version)


class _Sessions(StreamableHTTPSessionManager):
    """The SDK's sessions of 2025-11-25, each with events of its own, and its entry for 2026-07-28."""

    def __init__(self, server: Server[Any]) -> None:
        self._room = EventRoom()
        super().__init__(server)

    @property
    def event_store(self) -> EventStore | None:
        """The events of a new session: the SDK reads this once for each that it opens."""
        return SessionEvents(self._room)

    @event_store.setter
    def event_store(self, shared: EventStore | None) -> None:
        """The SDK sets the one that it would share."""


class _Streamable:
    def __init__(self, sessions: _Sessions, attendances: Attendances) -> None:
        self._app = StreamableHTTPASGIApp(sessions)
        self._attendances = attendances

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "DELETE":
            await self._app(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                session_id = Request(scope).headers.get(MCP_SESSION_ID_HEADER, "")
                self._attendances.left("http", session_id)
            await send(message)

        await self._app(scope, receive, watched)


class _Sse:
    def __init__(self, server: Server[Any], transport: SseServerTransport, attendances: Attendances) -> None:
        self._server = server
        self._transport = transport
        self._attendances = attendances

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session_id = ""

        async def watched(message: Message) -> None:
            # The SDK tells the id of the stream to its client alone, in the first event.
            nonlocal session_id
            if not session_id and message["type"] == "http.response.body":
                _, _, query = message.get("body", b"").partition(b"?")
                session_id = parse_qs(query.split()[0].decode() if query else "").get(_SESSION_ID, [""])[0]
            await send(message)

        try:
            async with self._transport.connect_sse(scope, receive, watched) as (incoming, outgoing):
                await self._server.run(incoming, outgoing, self._server.create_initialization_options())
        finally:
            self._attendances.left("sse", session_id)
