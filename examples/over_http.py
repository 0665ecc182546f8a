"""Start a command on a server that listens, leave, and come back for its result: with the MCP SDK for Python.

    mcp-tasks serve --transport http          # says where it listens; `mcp-tasks token` shows the token, once
    MCP_TASKS_URL=http://127.0.0.1:8377/mcp MCP_TASKS_TOKEN=… python over_http.py

Run it twice: the first run starts the command and leaves at once, the second waits for its end.
"""

import os
import sys
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client


class Refused(Exception):
    """A tool has answered with an error."""


async def work(client: Client) -> None:
    """Start the command, or wait for the one that was started before."""

    async def call(tool: str, **arguments: Any) -> dict[str, Any]:
        answer = await client.call_tool(tool, {"session": "over-http", **arguments})
        content = answer.structured_content or {}
        if answer.is_error:
            raise Refused(f"{content['code']}: {content['message']}. {content['hint']}")
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


async def main(url: str, token: str) -> str | None:
    """Do it, and return what went wrong, if anything did."""
    wrong: str | None = None
    said: list[str] = []

    async def note(answer: httpx2.Response) -> None:
        if answer.status_code in {401, 403, 421, 429, 503}:  # the SDK tells only that there was an error
            said.append(f"HTTP {answer.status_code}: {(await answer.aread()).decode()}")

    headers, hooks = {"Authorization": f"Bearer {token}"}, {"response": [note]}
    try:
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60, event_hooks=hooks) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            await work(client)
    except* (Refused, MCPError, httpx2.HTTPError) as failed:  # a group, because connections are tasks
        why: BaseException = failed
        while isinstance(why, BaseExceptionGroup):
            why = why.exceptions[0]
        wrong = said[-1] if said else str(why)
    return wrong


missing = [name for name in ("MCP_TASKS_URL", "MCP_TASKS_TOKEN") if not os.environ.get(name)]
if missing:
    sys.exit(f"set {' and '.join(missing)}, as the first lines of this file show")
sys.exit(anyio.run(main, os.environ["MCP_TASKS_URL"], os.environ["MCP_TASKS_TOKEN"]))
