"""Serve our server, extended for the suite, on a free port: `python -m tests.conformance.serve DIRECTORY`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio

from mcp_tasks.app import open_service
from mcp_tasks.http import mcp as routes
from mcp_tasks.http.serving import serve_http
from mcp_tasks.server.mcp_server import build_server
from mcp_tasks.settings import Settings
from tests.conformance.fixture import extend


def _build(*args: Any) -> Any:
    return extend(build_server(*args))


async def _serve(directory: Path) -> None:
    settings = Settings(
        dir=directory, port=0, no_token=True, tools="full", requests_per_second=0, min_free_bytes=0
    )
    # There is no way to have tools of somebody else in a server, so this reaches into where it is built.
    with patch.object(routes, "build_server", _build):
        async with open_service(settings) as service:
            await serve_http(service, settings, "/mcp")


if __name__ == "__main__":
    anyio.run(_serve, Path(sys.argv[1]))
