"""A real server over HTTP, as a process of its own, and clients of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from tests.waiting import wait_until

__all__ = ["TOKEN", "HttpServer", "answer", "running_server"]

TOKEN = "a-token-that-is-long-enough-for-everybody"

_START_SECONDS = 30.0
_END_SECONDS = 10.0


@dataclass(frozen=True)
class HttpServer:
    """A server that listens.

    Attributes:
        where: What its line said: a URL, or `unix:PATH`.
        log: Its stderr.
    """

    process: subprocess.Popen[bytes]
    where: str
    log: Path

    @property
    def base(self) -> str:
        """The URL without a path."""
        return "http://localhost" if self.where.startswith("unix:") else self.where.rpartition("/")[0]

    @property
    def port(self) -> int:
        return int(self.base.rpartition(":")[2])

    def http(self, **headers: str) -> httpx2.AsyncClient:
        """A plain HTTP client with the token."""
        path = self.where.removeprefix("unix:")
        transport = httpx2.AsyncHTTPTransport(uds=path) if path != self.where else None
        return httpx2.AsyncClient(
            base_url=self.base,
            headers={"Authorization": f"Bearer {TOKEN}", **headers},
            timeout=30,
            transport=transport,
        )

    @asynccontextmanager
    async def mcp(self, mode: str = "auto", transport: str = "http", **options: Any) -> AsyncIterator[Client]:
        """The SDK's client over `http` or `sse`, with further options of its own."""
        if transport == "sse":
            headers = {"Authorization": f"Bearer {TOKEN}"}
            connection = sse_client(f"{self.base}/sse", headers=headers)
            async with Client(connection, mode=mode, **options) as client:
                yield client
            return
        async with self.http() as http:
            streams = streamable_http_client(f"{self.base}/mcp", http_client=http)
            async with Client(streams, mode=mode, **options) as client:
                yield client

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it, and return its exit code."""
        self.process.send_signal(how)
        return self.process.wait(_END_SECONDS)

    async def ended(self) -> int:
        """Wait until it has ended by itself."""
        return await anyio.to_thread.run_sync(lambda: self.process.wait(_END_SECONDS))


@contextmanager
def running_server(
    state: Path, *options: str, transport: str = "http", wrapper: tuple[str, ...] = (), **env: str
) -> Iterator[HttpServer]:
    """A server on a state directory, ready to be asked; it is ended with the block.

    Args:
        state: The state directory.
        options: Added to `serve`; a free port is taken unless they say otherwise.
        transport: `http` or `sse`.
        wrapper: A program that runs the server, with its arguments.
        env: Added to its environment; MCP_TASKS_TOKEN is `TOKEN` unless given.
    """
    command = [
        *wrapper, sys.executable, "-m", "mcp_tasks", "serve", "--transport", transport, "--port", "0",
        "--dir", str(state), *options,
    ]  # fmt: skip
    log = state.parent / f"{state.name}.log"
    with log.open("ab") as stderr:
        began = stderr.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            env={
                **os.environ,
                "XDG_CONFIG_HOME": str(state.parent),
                "MCP_TASKS_TOKEN": TOKEN,
                "MCP_TASKS_MIN_FREE_BYTES": "0",
                **env,
            },
        )
    try:
        said = wait_until(lambda: _announced(log, began, process), "the server listens", _START_SECONDS)
        yield HttpServer(process, said or "", log)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _announced(log: Path, began: int, process: subprocess.Popen[bytes]) -> str | None:
    said = log.read_bytes()[began:].decode()
    assert process.poll() is None, said
    found = [line for line in said.splitlines(keepends=True) if line.startswith("listening on ")]
    return found[0].split()[-1] if found and found[0].endswith("\n") else None


async def answer(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool answers; it must be no error."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.structured_content
    view: dict[str, Any] = result.structured_content
    return view
