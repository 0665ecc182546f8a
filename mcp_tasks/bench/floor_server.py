"""The floor of every call: a server of the same SDK over the same transport, with tools that do nothing."""

from __future__ import annotations

import base64
import os
import socket
import sys
from typing import Any

from mcp.server.mcpserver import MCPServer

__all__ = ["main"]

LARGEST_PAGE = 262_144


def main() -> None:
    """Serve over stdio until stdin ends, or with `http` as argument over HTTP until a signal."""
    server = MCPServer("floor")
    page = os.urandom(LARGEST_PAGE)

    @server.tool()
    async def nothing(task_id: str) -> dict[str, Any]:
        return {"task_id": task_id}

    @server.tool()
    async def page_of_base64(limit: int) -> dict[str, Any]:
        return {"stdout": base64.b64encode(page[:limit]).decode()}

    if sys.argv[1:] == ["http"]:
        _serve_over_http(server)
    else:
        server.run("stdio")


def _serve_over_http(server: MCPServer) -> None:
    import uvicorn

    # The protocol is named, or asyncio does not take it for TCP and leaves Nagle's algorithm on.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    sys.stderr.write(f"listening on http://127.0.0.1:{listener.getsockname()[1]}/mcp\n")
    sys.stderr.flush()
    config = uvicorn.Config(server.streamable_http_app(), log_config=None, access_log=False, ws="none")
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
