"""MCP over HTTP: Streamable HTTP at `/mcp`, the older SSE at `/sse`, from one server object."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from mcp_tasks.http.principals import principal_of
from mcp_tasks.server.callers import Context, Identity
from mcp_tasks.server.mcp_server import ServerSettings, build_server
from mcp_tasks.service import Service

__all__ = ["McpRoutes"]

_MESSAGES: Final = "/messages/"


class McpRoutes:
    """The routes of MCP. Host and Origin have been checked, and who it is, before they are asked."""

    def __init__(self, service: Service, settings: ServerSettings) -> None:
        self._server: Server[Any] = build_server(service, settings, _identify)
        self._sessions = StreamableHTTPSessionManager(self._server)
        self._sse = SseServerTransport(_MESSAGES)

    def run(self) -> AbstractAsyncContextManager[None]:
        """Serve for as long as the block lasts."""
        return self._sessions.run()

    def routes(self) -> list[BaseRoute]:
        """The routes, for the application."""
        return [
            Route("/mcp", StreamableHTTPASGIApp(self._sessions)),
            Route("/sse", _Sse(self._server, self._sse), methods=["GET"]),
            Mount(_MESSAGES, self._sse.handle_post_message),
        ]


class _Sse:
    def __init__(self, server: Server[Any], transport: SseServerTransport) -> None:
        self._server = server
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._transport.connect_sse(scope, receive, send) as (incoming, outgoing):
            await self._server.run(incoming, outgoing, self._server.create_initialization_options())
        await Response()(scope, receive, send)


def _identify(context: Context) -> Identity:
    scope = {} if context.request is None else context.request.scope
    principal = principal_of(scope.get("user"))
    return Identity(principal.owner, principal.role)
