"""A client on FastMCP: `python fastmcp_client.py stdio COMMAND...` or `… http|sse URL`.

It runs in the Python environment that has FastMCP, takes the token from MCP_TASKS_TOKEN, uses the tools as an
application does, and prints what it got as one JSON object.
"""

import json
import os
import sys
from typing import Any

import anyio
from fastmcp import Client
from fastmcp.client.transports import ClientTransport, SSETransport, StdioTransport, StreamableHttpTransport


def transport(kind: str, target: str, *args: str) -> ClientTransport:
    """The way to the server."""
    if kind == "stdio":
        return StdioTransport(target, list(args), env=dict(os.environ), keep_alive=False)
    shape = StreamableHttpTransport if kind == "http" else SSETransport
    return shape(target, auth=os.environ["MCP_TASKS_TOKEN"])


async def use(words: list[str]) -> dict[str, Any]:
    """Start in one connection, come back in another."""
    seen: dict[str, Any] = {}
    slow = {"command": "sleep 1; echo late; exit 3", "wait_ms": 0}
    async with Client(transport(*words)) as client:
        seen["tools"] = [tool.name for tool in await client.list_tools()]
        started = await client.call_tool("run_command", slow)
        seen["started"] = started.structured_content
        task = {"task_id": seen["started"]["task_id"]}
    async with Client(transport(*words)) as client:
        polled = await client.call_tool("poll_task", {**task, "wait_ms": 20_000})
        seen["polled"] = polled.structured_content
        seen["result"] = (await client.call_tool("get_result", task)).structured_content
        left = await client.call_tool("run_command", {"command": "sleep 300", "wait_ms": 0})
        other = {"task_id": left.structured_content["task_id"]}
        refused = await client.call_tool("clear_task", other, raise_on_error=False)
        seen["refused"] = {"is_error": refused.is_error, **refused.structured_content}
        seen["cancelled"] = (await client.call_tool("cancel_task", other)).structured_content
        cleared = await client.call_tool("clear_task", {"all_finished": True})
        seen["cleared"] = cleared.structured_content
    return seen


if __name__ == "__main__":
    sys.stdout.write(json.dumps(anyio.run(use, sys.argv[1:])))
