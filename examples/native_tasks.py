"""Call a tool that takes long as if it were short: native tasks of MCP, with the MCP SDK for Python.

    mcp-tasks serve --transport http          # says where it listens; `mcp-tasks token` shows the token, once
    MCP_TASKS_URL=http://127.0.0.1:8377/mcp MCP_TASKS_TOKEN=… python native_tasks.py

The server answers a command that goes on with a handle, because this client declares the extension. What
waits for the end stands in the extension, so that whoever calls the tool need not know of it.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any, Literal

import anyio
import httpx2
import mcp_types as types
from mcp import Client
from mcp.client import ClaimContext, ClientExtension, ResultClaim
from mcp.client.streamable_http import streamable_http_client


class Handle(types.Result):
    """What a call is answered with whose command goes on (CreateTaskResult)."""

    result_type: Literal["task"] = "task"
    task_id: str


class GetTask(types.Request[dict[str, Any], str]):
    """`tasks/get`."""

    method: str = "tasks/get"
    params: dict[str, Any]
    name_param = "taskId"  # what the header Mcp-Name repeats


class Task(types.Result):
    """What it is answered with."""

    status: str
    status_message: str = ""
    poll_interval_ms: int = 1_000
    result: types.CallToolResult | None = None


class NativeTasks(ClientExtension):
    """Declares the extension, and makes the result of a handle."""

    identifier = "io.modelcontextprotocol/tasks"

    def claims(self) -> Sequence[ResultClaim[Any]]:
        """The one kind of result that the extension adds."""
        return (ResultClaim(result_type="task", model=Handle, resolve=self._finish),)

    async def _finish(self, handle: Handle, context: ClaimContext) -> types.CallToolResult:
        told = ""
        while True:
            request = GetTask(params={"taskId": handle.task_id})
            task = await context.session.send_request(request, Task)
            if task.status_message != told:
                told = task.status_message
                print(f"{task.status}: {told}", file=sys.stderr)
            if task.result is not None:
                return task.result
            if task.status != "working":
                raise SystemExit(f"the task is {task.status}: {told}")
            await anyio.sleep(task.poll_interval_ms / 1_000)


async def main(url: str, token: str) -> None:
    """Run something that takes longer than its answer is waited for, and show what came of it."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        try:
            answered = await http.get(url.removesuffix("/mcp") + "/api")  # is it there, does it let us in
        except httpx2.HTTPError as error:
            raise SystemExit(f"{url}: {error}") from None
        if answered.status_code != 200:
            raise SystemExit(f"HTTP {answered.status_code}: {answered.text}")
        await show(Client(streamable_http_client(url, http_client=http), extensions=[NativeTasks()]))


async def show(connection: Client) -> None:
    """Do it with a client that is not connected yet."""
    async with connection as client:
        arguments = {"command": "echo begun; sleep 4; echo done; exit 3", "session": "native-tasks"}
        answer = await client.call_tool("run_command", arguments)
        view = answer.structured_content or {}
        if answer.is_error:
            raise SystemExit(f"{view['code']}: {view['message']}. {view['hint']}")
        print(f"{view['state']}, exit code {view['exit_code']}: {view['stdout']!r}")


if __name__ == "__main__":
    if not (os.environ.get("MCP_TASKS_URL") and os.environ.get("MCP_TASKS_TOKEN")):
        raise SystemExit("set MCP_TASKS_URL and MCP_TASKS_TOKEN")
    anyio.run(main, os.environ["MCP_TASKS_URL"], os.environ["MCP_TASKS_TOKEN"])
