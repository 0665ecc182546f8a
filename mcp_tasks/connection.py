"""A connection to a server as any MCP client has it: the SDK's own client over stdio, nothing else.

The demonstration and the measurements use the server only through this, so that what they show is
what a client sees.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import psutil
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError
from mcp_types import REQUEST_TIMEOUT

__all__ = ["CallTimedOut", "Connection", "ToolRefused", "connect", "serve_command", "surroundings"]


class ToolRefused(Exception):
    """The server answered with a tool error. `code` is the stable one of the interface."""

    def __init__(self, tool: str, code: str, text: str) -> None:
        super().__init__(f"{tool}: {text}")
        self.code = code


class CallTimedOut(Exception):
    """This client gave up waiting for an answer; the server may still be at it."""


@dataclass(frozen=True)
class Connection:
    """An open connection and the process at its other end.

    Attributes:
        client: The SDK's client, connected.
        pid: Process id of the server.
    """

    client: Client
    pid: int

    async def call(self, tool: str, patience_s: float | None = None, **arguments: Any) -> dict[str, Any]:
        """Call a tool and return its structured content.

        Args:
            tool: Name of the tool.
            patience_s: Seconds after which this client gives up; None waits without end.
            arguments: As the tool's schema has them.

        Raises:
            CallTimedOut: The patience is over.
            ToolRefused: The answer is a tool error.
            MCPError: The connection has ended, or the protocol was violated.
        """
        try:
            answer = await self.client.call_tool(tool, arguments, read_timeout_seconds=patience_s)
        except MCPError as error:
            if error.code == REQUEST_TIMEOUT:
                raise CallTimedOut(f"{tool} was not answered within {patience_s} s") from error
            raise
        content: dict[str, Any] = answer.structured_content or {}
        if answer.is_error:
            text = " ".join(part.text for part in answer.content if part.type == "text")
            raise ToolRefused(tool, str(content.get("code", "")), text)
        return content


def serve_command(directory: Path, *options: str) -> list[str]:
    """The argument vector of a server of this project on a state directory."""
    module = [sys.executable, "-m", "mcp_tasks"]
    return [*module, "serve", "--transport", "stdio", "--store", "json", "--dir", str(directory), *options]


def surroundings(settings: Path) -> dict[str, str]:
    """Environment of a server that no settings file of the user reaches.

    Args:
        settings: A folder that stands in for the user's configuration directory.
    """
    passed_on = {name: os.environ[name] for name in ("PYTHONPATH", "TMPDIR") if name in os.environ}
    return {**passed_on, "XDG_CONFIG_HOME": str(settings)}


@asynccontextmanager
async def connect(
    command: Sequence[str], env: Mapping[str, str], *, mode: str = "auto", errors: TextIO | None = None
) -> AsyncIterator[Connection]:
    """Start a server as a child process and connect to it; end it as MCP clients do.

    Args:
        command: Argument vector of the server.
        env: Added to the few variables that the SDK passes on.
        mode: Protocol era, as `mcp.Client` takes it.
        errors: Where the server's stderr goes; None means the one that this process was started with.
    """
    parameters = StdioServerParameters(command=command[0], args=list(command[1:]), env=dict(env))
    log = errors or sys.__stderr__ or sys.stderr
    before = {child.pid for child in psutil.Process().children()}
    try:
        async with Client(stdio_client(parameters, errlog=log), mode=mode) as client:
            yield Connection(client, _server_pid(command, before))
    except BaseExceptionGroup as group:
        raise _sole(group) from None


def _sole(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What the body raised: the SDK's task groups wrap it, once for each of their layers."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _server_pid(command: Sequence[str], before: set[int]) -> int:
    # The SDK's client does not tell the pid. The server is the child that came new with this very
    # command line; the oldest of them, because whatever it has forked since came after it.
    found = [
        (child.create_time(), child.pid)
        for child in psutil.Process().children()
        if child.pid not in before and child.cmdline()[1:] == list(command[1:])
    ]
    if not found:
        raise ProcessLookupError(f"no child process runs {' '.join(command)}")
    return min(found)[1]
