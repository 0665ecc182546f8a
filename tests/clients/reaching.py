"""How a client gets to a server: by starting one, or over HTTP or SSE with the token of one that listens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.clients.install import Clients
from tests.waiting import wait_until

__all__ = ["ROOT", "TOKEN", "Kind", "Way", "listening", "surroundings", "way_to"]

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-these-tests-0123456789-abcdefghijklmnop"

Kind = Literal["stdio", "http", "sse"]


@dataclass(frozen=True)
class Way:
    """The way to a server.

    Attributes:
        kind: The transport.
        state: The state directory of the server.
        origin: Where it listens, like `http://127.0.0.1:1234`; empty on stdio, where each client
            starts one of its own.
        token: The bearer token.
    """

    kind: Kind
    state: Path
    origin: str = ""
    token: str = TOKEN

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "mcp_tasks", "serve", "--store", "json", "--dir", str(self.state)]

    @property
    def url(self) -> str:
        return self.origin + {"http": "/mcp", "sse": "/sse", "stdio": ""}[self.kind]

    @property
    def words(self) -> list[str]:
        """As the scripts of these tests take it. The token is in the environment."""
        return [self.kind, *(self.command if self.kind == "stdio" else [self.url])]

    def entry(self, **http: str) -> dict[str, Any]:
        """An entry in a file of `mcpServers`; `http` replaces what stands there for Streamable HTTP."""
        if self.kind == "stdio":
            command, *args = self.command
            return {"type": "stdio", "command": command, "args": args, "cwd": str(ROOT)}
        kind = {"http": "http", "sse": "sse", **http}[self.kind]
        return {"type": kind, "url": self.url, "headers": {"Authorization": f"Bearer {self.token}"}}


@contextmanager
def listening(state: Path) -> Iterator[str]:
    """Run a server that listens, and give its origin."""
    log = state.with_name(f"{state.name}.log")
    argv = [sys.executable, "-m", "mcp_tasks", "serve", "--transport", "http", "--port", "0"]
    argv += ["--store", "json", "--dir", str(state)]
    env = {**os.environ, "MCP_TASKS_TOKEN": TOKEN}
    with log.open("wb") as errors:
        server = subprocess.Popen(argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stderr=errors)

    def origin() -> str | None:
        assert server.poll() is None, log.read_text()
        found = re.search(r"^listening on (http://[^/\s]+)", log.read_text(), re.MULTILINE)
        return found and found[1]

    try:
        yield wait_until(origin, "the server listens", 30) or ""
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
            raise


@contextmanager
def way_to(state: Path, kind: Kind) -> Iterator[Way]:
    """A server to be reached in a way; on stdio there is none yet."""
    if kind == "stdio":
        yield Way("stdio", state)
        return
    with listening(state) as origin:
        yield Way(kind, state, origin)


def surroundings(clients: Clients, way: Way | None = None) -> dict[str, str]:
    """The environment in which the clients find Node, this package, and the token of the server."""
    path = f"{Path(clients.node).parent}{os.pathsep}{os.environ['PATH']}"
    found = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    found |= {"MCP_TASKS_NODE_DIR": str(clients.modules), "MCP_INSPECTOR_SECRET_STORE": "memory"}
    if way is not None and way.kind != "stdio":
        found["MCP_TASKS_TOKEN"] = way.token
    return found
