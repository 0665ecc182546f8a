"""The MCP clients that are known: their files, the shapes of their entries, how long they wait for a call."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import platformdirs

from mcp_tasks.errors import InvalidArgument, NotSupported

__all__ = ["CLIENTS", "SERVER", "Client", "find_client", "server_command"]

SERVER = "mcp-tasks"
_LIMITED_MS = 50_000
"""Longest wait under a client that gives up after 60 s, whatever it is told."""
_PATIENT_MS = 240_000
"""Longest wait under a client that waits for longer, or can be told to."""
_CALL_MS = 300_000
"""Time for one call, where the client's file has a field for it: the longest wait and some air."""

_CARRIED = ("MCP_TASKS_DIR", "MCP_TASKS_STORE", "MCP_TASKS_KEY_FILE", "MCP_TASKS_KEY_SOURCE")
_TOKEN = "MCP_TASKS_TOKEN"  # noqa: S105 - the name of a variable
_TOKEN_INPUT = "mcp-tasks-token"  # noqa: S105 - what VS Code asks for
_PATHS = ("MCP_TASKS_DIR", "MCP_TASKS_KEY_FILE")


def server_command() -> list[str]:
    """The command that starts this installation's server, from any folder and without a PATH."""
    script = Path(sys.executable).parent / ("mcp-tasks.exe" if os.name == "nt" else "mcp-tasks")
    if script.is_file():
        return [str(script), "serve"]
    return [sys.executable, "-m", "mcp_tasks", "serve"]


def _plain(command: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    return {"command": command[0], "args": list(command[1:]), "env": dict(env)}


def _typed(command: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    return {"type": "stdio", **_plain(command, env)}


def _claude_code(command: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    return {**_typed(command, env), "timeout": _CALL_MS}


def _gemini(command: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    return {**_plain(command, env), "timeout": _CALL_MS}


def _codex(command: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    fields = _plain(command, {})
    del fields["env"]
    return {**fields, "startup_timeout_sec": 30, "tool_timeout_sec": _CALL_MS // 1000, "env": dict(env)}


def _opencode(command: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    # The shape of version 1, which version 2 reads as well.
    return {
        "type": "local",
        "command": list(command),
        "environment": dict(env),
        "enabled": True,
        "timeout": _CALL_MS,
    }


def _remote(kind: str | None, key: str, token: str) -> Callable[[str], dict[str, Any]]:
    """Entries of the usual shape: `key` has the URL, `token` is how the client writes the value of one."""

    def shape(url: str) -> dict[str, Any]:
        typed = {} if kind is None else {"type": kind}
        return {**typed, key: url, "headers": {"Authorization": f"Bearer {token}"}}

    return shape


def _remote_codex(url: str) -> dict[str, Any]:
    return {"url": url, "bearer_token_env_var": _TOKEN, "startup_timeout_sec": 30}


def _remote_opencode(url: str) -> dict[str, Any]:
    # Without `oauth: false` a server that asks for a token is taken for one that wants a login.
    return {**_remote("remote", "url", f"{{env:{_TOKEN}}}")(url), "enabled": True, "oauth": False}


def _config(folder: str, *rest: str) -> Path:
    return platformdirs.user_config_path(folder, appauthor=False, roaming=True).joinpath(*rest)


def _codex_file() -> Path:
    return Path(os.environ.get("CODEX_HOME") or Path.home() / ".codex") / "config.toml"


def _opencode_file() -> Path:
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "opencode"
    commented = folder / "opencode.jsonc"
    return commented if commented.is_file() else folder / "opencode.json"


@dataclass(frozen=True)
class Client:
    """A program that uses MCP servers.

    Attributes:
        name: As given to `config`.
        title: As people know it.
        file: The file that is written, computed when it is asked for.
        section: Key of the table of servers in that file.
        shape: Makes the entry of this server from command and environment.
        max_wait_ms: Longest wait of one call that the client bears.
        remote: Makes the entry of a server elsewhere from its URL; None where there is no such entry.
        remote_sse: The same for one at the older SSE; None where the client's file has no word for it.
        format: Of the file.
        inputs: What the client asks its user for, for a server elsewhere.
    """

    name: str
    title: str
    file: Callable[[], Path]
    section: str
    shape: Callable[[Sequence[str], Mapping[str, str]], dict[str, Any]]
    max_wait_ms: int
    remote: Callable[[str], dict[str, Any]] | None = None
    remote_sse: Callable[[str], dict[str, Any]] | None = None
    format: Literal["json", "toml"] = "json"
    inputs: tuple[Mapping[str, Any], ...] = ()

    def entry(self, command: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
        """The entry of this server.

        Args:
            command: Absolute path and arguments.
            environ: The present environment. A client that is not started from a shell does not
                have it, so what says where the state and its key are kept goes into the entry.
        """
        env = {name: environ[name] for name in _CARRIED if environ.get(name)}
        for name in _PATHS:
            if name in env:  # the client starts the server in whatever folder
                env[name] = os.path.abspath(os.path.expanduser(env[name]))
        return self.shape(command, {**env, "MCP_TASKS_MAX_WAIT_MS": str(self.max_wait_ms)})

    def remote_entry(self, url: str) -> dict[str, Any]:
        """The entry of a server that listens at `url`, with the token taken from where the client keeps it.

        Args:
            url: Absolute. Without a path it is the one of MCP over Streamable HTTP; `/sse` at its end is the
                older transport, which files name differently.

        Raises:
            NotSupported: The client's file has no servers elsewhere, or none at SSE.
        """
        if self.remote is None:
            raise NotSupported(
                f"{self.title} takes only servers that it starts itself from its file",
                f"let it start one (config {self.name}): on this machine it has the same tasks",
            )
        parts = urlsplit(url)
        if parts.path in ("", "/"):
            return self.remote(parts._replace(path="/mcp").geturl())
        if not parts.path.rstrip("/").endswith("/sse"):
            return self.remote(url)
        if self.remote_sse is None:
            raise NotSupported(
                f"{self.title}'s file has no servers at the older SSE",
                "give the URL that ends in /mcp: the same server listens there",
            )
        return self.remote_sse(url)

    def by_command(self, entry: Mapping[str, Any]) -> str | None:
        """The client's own command that adds the server, where it has one that takes all of this."""
        if self.name != "claude-code" or "url" in entry:
            return None  # what stands for a variable is put in from .mcp.json alone
        return f"claude mcp add-json --scope user {SERVER} {shlex.quote(json.dumps(entry))}"


CLIENTS: tuple[Client, ...] = (
    Client(
        "claude-desktop",
        "Claude Desktop",
        lambda: _config("Claude", "claude_desktop_config.json"),
        "mcpServers",
        _plain,
        _LIMITED_MS,
    ),
    Client(
        "claude-code",
        "Claude Code",
        lambda: Path.cwd() / ".mcp.json",
        "mcpServers",
        _claude_code,
        _PATIENT_MS,
        _remote("http", "url", f"${{{_TOKEN}}}"),
        _remote("sse", "url", f"${{{_TOKEN}}}"),
    ),
    Client(
        "cursor",
        "Cursor",
        lambda: Path.home() / ".cursor/mcp.json",
        "mcpServers",
        _typed,
        _LIMITED_MS,
        _remote(None, "url", f"${{env:{_TOKEN}}}"),
        _remote(None, "url", f"${{env:{_TOKEN}}}"),  # it tries both transports
    ),
    Client(
        "vscode",
        "VS Code",
        lambda: _config("Code", "User", "mcp.json"),
        "servers",
        _typed,
        _LIMITED_MS,
        _remote("http", "url", f"${{input:{_TOKEN_INPUT}}}"),
        _remote("sse", "url", f"${{input:{_TOKEN_INPUT}}}"),
        inputs=(
            {
                "type": "promptString",
                "id": _TOKEN_INPUT,
                "description": "Token of the mcp-tasks server (mcp-tasks token)",
                "password": True,
            },
        ),
    ),
    Client("codex", "Codex", _codex_file, "mcp_servers", _codex, _PATIENT_MS, _remote_codex, format="toml"),
    Client(
        "gemini",
        "Gemini CLI",
        lambda: Path.home() / ".gemini/settings.json",
        "mcpServers",
        _gemini,
        _PATIENT_MS,
        _remote(None, "httpUrl", f"${_TOKEN}"),
        _remote(None, "url", f"${_TOKEN}"),
    ),
    Client("opencode", "opencode", _opencode_file, "mcp", _opencode, _LIMITED_MS, _remote_opencode),
)


def find_client(name: str) -> Client:
    """The client of a name. Raises InvalidArgument, which names the known ones."""
    for client in CLIENTS:
        if client.name == name:
            return client
    raise InvalidArgument(
        f"unknown client {name!r}", f"known are {', '.join(client.name for client in CLIENTS)}"
    )
