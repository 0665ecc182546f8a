"""The one ASGI application: MCP, the HTTP API and what watches over them, behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from mcp_tasks.http.guard import Guard, GuardSettings
from mcp_tasks.http.mcp import McpRoutes
from mcp_tasks.server.mcp_server import ServerSettings
from mcp_tasks.service import Service

__all__ = ["ApplicationSettings", "build_application"]


class ApplicationSettings(ServerSettings, GuardSettings, Protocol):
    """What the application needs to know of the settings."""


def build_application(service: Service, settings: ApplicationSettings) -> ASGIApp:
    """Put the application together; its lifespan runs what serves MCP.

    The built-in token is made where there is none.

    Raises:
        InvalidArgument: A setting is wrong.
        StoreUnavailable: The token cannot be kept.
    """
    mcp = McpRoutes(service, settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with mcp.run():
            yield

    app = Starlette(routes=[*mcp.routes(), Route("/healthz", _health)], lifespan=lifespan)
    return Guard(app, settings)


async def _health(_: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})
