"""The floor of every call: a server of the same SDK over the same transport, with tools that do nothing."""

from __future__ import annotations

import base64
import os
from typing import Any

from mcp.server.mcpserver import MCPServer

__all__ = ["main"]

LARGEST_PAGE = 262_144


def main() -> None:
    """Serve over stdio until stdin ends."""
    server = MCPServer("floor")
    page = os.urandom(LARGEST_PAGE)

    @server.tool()
    async def nothing(task_id: str) -> dict[str, Any]:
        return {"task_id": task_id}

    @server.tool()
    async def page_of_base64(limit: int) -> dict[str, Any]:
        return {"stdout": base64.b64encode(page[:limit]).decode()}

    server.run("stdio")


if __name__ == "__main__":
    main()
