"""Native tasks over every transport, and what HTTP adds to them: headers, and servers that are killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from mcp_tasks.server.native_tasks import EXTENSION
from tests.http.server_process import TOKEN, HttpServer, running_server
from tests.server.native_client import TaskHandles, ask, run
from tests.server.test_stdio import ROOT, command_line
from tests.waiting import eventually

VERSION = "2026-07-28"
DECLARED: dict[str, Any] = {"extensions": {EXTENSION: {}}}


@asynccontextmanager
async def over_http(server: HttpServer) -> AsyncIterator[Client]:
    async with server.http() as http:
        connection = streamable_http_client(f"{server.base}/mcp", http_client=http)
        async with Client(connection, extensions=[TaskHandles()]) as client:
            yield client


@asynccontextmanager
async def over(transport: str, state: Path) -> AsyncIterator[Client]:
    if transport == "stdio":
        command, *arguments = command_line(state)
        environment = {**os.environ, "XDG_CONFIG_HOME": str(state.parent)}
        process = StdioServerParameters(command=command, args=arguments, env=environment, cwd=ROOT)
        async with Client(process, extensions=[TaskHandles()]) as client:
            yield client
        return
    with running_server(state, transport=transport) as server:
        if transport == "http":
            async with over_http(server) as client:
                yield client
            return
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with Client(
            sse_client(f"{server.base}/sse", headers=headers), extensions=[TaskHandles()]
        ) as client:
            yield client


@pytest.mark.parametrize("transport", ["stdio", "http", "sse"])
async def test_a_task_is_started_looked_at_and_cancelled_over_any_transport(
    tmp_path: Path, transport: str
) -> None:
    with anyio.fail_after(60):
        async with over(transport, tmp_path / "state") as client:
            handle = await run(client, "sleep 600")
            task = await ask(client, "tasks/get", taskId=handle["taskId"])
            assert (task["status"], task["ttlMs"]) == ("working", None)
            await ask(client, "tasks/cancel", taskId=handle["taskId"])
            assert (await ask(client, "tasks/get", taskId=handle["taskId"]))["status"] == "cancelled"


async def test_a_handle_outlives_the_server_that_gave_it(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with anyio.fail_after(60):
        with running_server(tmp_path / "state") as server:
            async with over_http(server) as client:
                handle = await run(client, f"until [ -e {go} ]; do sleep 0.02; done; echo over")
            server.end(signal.SIGKILL)
        with running_server(tmp_path / "state") as server:
            async with over_http(server) as client:
                assert (await ask(client, "tasks/get", taskId=handle["taskId"]))["status"] == "working"
                go.touch()

                async def over_now() -> dict[str, Any] | None:
                    task = await ask(client, "tasks/get", taskId=handle["taskId"])
                    return task if task["status"] == "completed" else None

                task = await eventually(over_now, "the task is completed")
    assert task is not None
    assert task["result"]["structuredContent"]["stdout"] == "over\n"


class ByHand:
    """Sends requests of 2026-07-28 whose headers and capabilities are the test's own."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def __call__(
        self,
        method: str,
        params: dict[str, Any],
        name: str | None,
        capabilities: dict[str, Any] = DECLARED,
    ) -> tuple[int, dict[str, Any]]:
        meta = {
            types.PROTOCOL_VERSION_META_KEY: VERSION,
            types.CLIENT_CAPABILITIES_META_KEY: capabilities,
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
        headers = {
            "Accept": "application/json, text/event-stream",
            "Mcp-Protocol-Version": VERSION,
            "Mcp-Method": method,
            **({} if name is None else {"Mcp-Name": name}),
        }
        response = await self._http.post("/mcp", json=body, headers=headers)
        said = response.text
        if response.headers["content-type"].startswith("text/event-stream"):
            said = next(line for line in said.splitlines() if line.startswith("data: {"))[6:]
        answer: dict[str, Any] = json.loads(said)
        return response.status_code, answer


async def test_it_is_declared_with_each_request_and_routed_by_a_header_that_names_the_task(
    tmp_path: Path,
) -> None:
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        async with server.http() as http:
            send = ByHand(http)
            call = {"name": "run_command", "arguments": {"command": "sleep 600"}}
            _, plain = await send("tools/call", call, "run_command", {})
            assert plain["result"]["resultType"] == "complete"
            _, handle = await send("tools/call", call, "run_command")
            assert (handle["result"]["resultType"], handle["result"]["ttlMs"]) == ("task", None)
            named = {"taskId": handle["result"]["taskId"]}

            _, task = await send("tasks/get", named, named["taskId"])
            assert (task["result"]["status"], task["result"]["ttlMs"]) == ("working", None)
            status, refused = await send("tasks/get", named, named["taskId"], {})
            assert (status, refused["error"]["code"]) == (400, types.MISSING_REQUIRED_CLIENT_CAPABILITY)
            for name in (None, plain["result"]["structuredContent"]["task_id"]):
                status, refused = await send("tasks/cancel", named, name)
                assert (status, refused["error"]["code"]) == (400, types.HEADER_MISMATCH)
                assert ("is missing" in refused["error"]["message"]) == (name is None)

            for task_id in (named["taskId"], plain["result"]["structuredContent"]["task_id"]):
                _, done = await send("tasks/cancel", {"taskId": task_id}, task_id)
                assert done["result"]["resultType"] == "complete"
