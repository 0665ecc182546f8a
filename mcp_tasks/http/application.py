"""The one ASGI application: MCP, the HTTP API and what watches over them, behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route

from mcp_tasks.http.api.routes import build_api, tell_ways, unrouted
from mcp_tasks.http.ending import Ending
from mcp_tasks.http.guard import Guard, GuardSettings
from mcp_tasks.http.health import Health
from mcp_tasks.http.mcp import McpRoutes
from mcp_tasks.http.metrics import Metrics
from mcp_tasks.server.mcp_server import ServerSettings
from mcp_tasks.service import Service

__all__ = ["ApplicationSettings", "build_application"]


class ApplicationSettings(ServerSettings, GuardSettings, Protocol):
    """What the application needs to know of the settings."""


def build_application(service: Service, settings: ApplicationSettings) -> Ending:
    """Put the application together; its lifespan runs what serves MCP.

    The built-in token is made where there is none.

    Raises:
        InvalidArgument: A setting is wrong.
        StoreUnavailable: The token cannot be kept.
    """
    mcp, metrics = McpRoutes(service, settings), Metrics(service, settings.owner)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with mcp.run():
            yield

    routes = [
        *mcp.routes(),
        Route("/api", tell_ways),  # a mount has no answer to its own name
        Mount("/api", build_api(service, settings, metrics.observe)),
        Route("/healthz", Health(service).answer),
        Route("/metrics", metrics.answer),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: unrouted})
    return Ending(metrics.counting(Guard(app, settings, service.admitted)), mcp.end)
