"""The one ASGI application: MCP, the HTTP API and what watches over them, behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from mcp_tasks.http.guard import Guard
from mcp_tasks.http.mcp import McpRoutes
from mcp_tasks.http.principals import Principal
from mcp_tasks.server.mcp_server import ServerSettings
from mcp_tasks.service import Service

__all__ = ["build_application"]


def build_application(service: Service, settings: ServerSettings, token: str) -> ASGIApp:
    """Put the application together; its lifespan runs what serves MCP."""
    mcp = McpRoutes(service, settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with mcp.run():
            yield

    app = Starlette(routes=[*mcp.routes(), Route("/healthz", _health)], lifespan=lifespan)
    return Guard(app, token, Principal(settings.owner))


async def _health(_: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})
