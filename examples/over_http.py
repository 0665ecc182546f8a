"""Start a command on a server that listens, leave, and come back for its result: with the MCP SDK for Python.

    mcp-tasks serve --transport http          # says where it listens; `mcp-tasks token` shows the token, once
    MCP_TASKS_URL=http://127.0.0.1:8377/mcp MCP_TASKS_TOKEN=… python over_http.py

Run it twice: the first run starts the command and leaves at once, the second waits for its end.
"""

import os
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main() -> None:
    """Start the command, or wait for the one that was started before."""
    headers = {"Authorization": f"Bearer {os.environ['MCP_TASKS_TOKEN']}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(os.environ["MCP_TASKS_URL"], http_client=http)) as client,
    ):

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            answer = await client.call_tool(tool, {"session": "over-http", **arguments})
            content = answer.structured_content or {}
            if answer.is_error:
                raise SystemExit(f"{content['code']}: {content['message']}. {content['hint']}")
            return content

        # The key makes it the same task however often this line runs.
        task = await call("run_command", command="sleep 3; echo done; exit 3", key="slow", wait_ms=0)
        if not task.get("reused"):
            print(f"started {task['task_id']}; run me again")
            return
        while task["state"] in {"pending", "running"}:
            task = await call("poll_task", task_id=task["task_id"], wait_ms=20_000)
        print(f"{task['state']}, exit code {task['exit_code']}: {task['stdout']}", end="")
        await call("clear_task", task_id=task["task_id"])


anyio.run(main)
