"""Listen, say where, serve until a signal, and end while commands live on."""

from __future__ import annotations

import logging
import socket
import sys
from typing import Protocol

import uvicorn

from mcp_tasks.http.application import build_application
from mcp_tasks.server.log import log_to_stderr
from mcp_tasks.server.mcp_server import ServerSettings
from mcp_tasks.service import Service

__all__ = ["HttpSettings", "serve_http"]

_log = logging.getLogger(__name__)


class HttpSettings(ServerSettings, Protocol):
    """What serving over HTTP needs to know of the settings."""

    @property
    def host(self) -> str:
        """Address to listen at."""
        ...

    @property
    def port(self) -> int:
        """Port to listen at; 0 takes a free one."""
        ...


async def serve_http(service: Service, settings: HttpSettings, path: str, token: str) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        service: Stays open; who opened it closes it.
        settings: Where to listen, and what the MCP server needs.
        path: What the line that says where to find it names: `/mcp` or `/sse`.
        token: The bearer token.
    """
    log_to_stderr()
    listener = socket.create_server((settings.host, settings.port))
    host, port = listener.getsockname()[:2]
    config = uvicorn.Config(
        build_application(service, settings, token), log_config=None, access_log=False, server_header=False
    )
    server = uvicorn.Server(config)
    sys.stderr.write(f"listening on http://{host}:{port}{path}\n")
    sys.stderr.flush()
    await server.serve(sockets=[listener])
