"""How each MCP client is told of this server: its file, its shape, and how long it waits for a call.

The files belong to the user and to other programs. What is merged into one keeps everything else in
it, leaves a backup beside it, and replaces it in one step; a file that cannot be read as a whole is
left alone.
"""

from __future__ import annotations

import copy
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs

from mcp_tasks.errors import InvalidArgument

__all__ = ["CLIENTS", "Client", "Merged", "find_client", "merge_into", "server_command"]

SERVER = "mcp-tasks"
_LIMITED_MS = 50_000
"""Longest wait under a client that gives up after 60 s, whatever it is told."""
_PATIENT_MS = 240_000
"""Longest wait under a client that waits for longer, or can be told to."""
_CALL_MS = 300_000
"""Time for one call, where the client's file has a field for it: the longest wait and some air."""

_CARRIED = ("MCP_TASKS_DIR", "MCP_TASKS_STORE", "MCP_TASKS_KEY_FILE", "MCP_TASKS_KEY_SOURCE")
_PATHS = ("MCP_TASKS_DIR", "MCP_TASKS_KEY_FILE")
_BOM = "\ufeff"


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
        format: Of the file.
    """

    name: str
    title: str
    file: Callable[[], Path]
    section: str
    shape: Callable[[Sequence[str], Mapping[str, str]], dict[str, Any]]
    max_wait_ms: int
    format: Literal["json", "toml"] = "json"

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

    def snippet(self, entry: Mapping[str, Any]) -> str:
        """What stands in the client's file when nothing else does."""
        return _rendered(self, _merged(self, {} if self.format == "json" else _toml(""), entry), indent=2)

    def by_command(self, entry: Mapping[str, Any]) -> str | None:
        """The client's own command that adds the server, where it has one that takes all of this."""
        if self.name != "claude-code":
            return None
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
    ),
    Client("cursor", "Cursor", lambda: Path.home() / ".cursor/mcp.json", "mcpServers", _typed, _LIMITED_MS),
    Client("vscode", "VS Code", lambda: _config("Code", "User", "mcp.json"), "servers", _typed, _LIMITED_MS),
    Client("codex", "Codex", _codex_file, "mcp_servers", _codex, _PATIENT_MS, "toml"),
    Client(
        "gemini",
        "Gemini CLI",
        lambda: Path.home() / ".gemini/settings.json",
        "mcpServers",
        _gemini,
        _PATIENT_MS,
    ),
    Client("opencode", "opencode", _opencode_file, "mcp", _opencode, _LIMITED_MS),
)


@dataclass(frozen=True)
class Merged:
    """What became of a client's file.

    Attributes:
        backup: The file as it was; None where there was none, or where nothing had to change.
        changed: Whether the file had to be written.
    """

    path: Path
    backup: Path | None
    changed: bool


def find_client(name: str) -> Client:
    """The client of a name. Raises InvalidArgument, which names the known ones."""
    for client in CLIENTS:
        if client.name == name:
            return client
    raise InvalidArgument(
        f"unknown client {name!r}", f"known are {', '.join(client.name for client in CLIENTS)}"
    )


def merge_into(path: Path, client: Client, entry: Mapping[str, Any]) -> Merged:
    """Put the entry into the client's file; nothing else in it changes, and doing it again does nothing.

    Raises:
        InvalidArgument: The file cannot be read as what it should be, so it was left alone.
        OSError: The file cannot be written; it is as it was.
    """
    path = Path(os.path.realpath(path))  # a link into a folder of dotfiles stays a link
    try:
        before: bytes | None = path.read_bytes()
    except FileNotFoundError:
        before = None
    after = _text_with(path, client, entry, before)
    if after == before:
        return Merged(path, None, changed=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    backup = _back_up(path) if before is not None else None
    _replace(path, after, before)
    return Merged(path, backup, changed=True)


def _text_with(path: Path, client: Client, entry: Mapping[str, Any], before: bytes | None) -> bytes:
    try:
        text = (before or b"").decode()
    except UnicodeDecodeError:
        raise _refused(path, "is not UTF-8") from None
    newline = "\r\n" if "\r\n" in text else "\n"
    plain = text.removeprefix(_BOM).replace("\r\n", "\n")
    document = _toml(plain, path) if client.format == "toml" else _json(plain, path)
    try:
        merged = _merged(client, document, entry)
    except (TypeError, ValueError):
        # ValueError: a TOML table that is written inline takes no table into itself.
        raise _refused(path, f"has something else than an open table as {client.section}") from None
    if client.format == "json" and before is not None and merged == document:
        return before
    rendered = _rendered(client, merged, _indent_of(plain))
    return ((_BOM if text.startswith(_BOM) else "") + rendered.replace("\n", newline)).encode()


def _refused(path: Path, reason: str) -> InvalidArgument:
    return InvalidArgument(f"{path} {reason}, so it was left as it is", "add the entry by hand")


def _json(text: str, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key is there twice")
        return dict(pairs)

    if not text.strip():
        return {}
    try:
        document = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _refused(path, f"is not plain JSON ({error}; comments are not)") from None
    if not isinstance(document, dict):
        raise _refused(path, "holds something else than an object")
    return document


def _toml(text: str, path: Path | None = None) -> Any:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise _refused(path or Path("config.toml"), f"is not valid TOML ({error})") from None


def _merged(client: Client, document: Any, entry: Mapping[str, Any]) -> Any:
    """A document with the entry in it. Raises TypeError where a table is something else.

    A TOML document is changed in place, so that it keeps its comments.
    """
    entry = _kept(document, client.section, entry)
    if client.format == "toml":
        import tomlkit

        document.setdefault(client.section, tomlkit.table(is_super_table=True))
        _put(document, {client.section: {SERVER: entry}}, tomlkit.table)
        return document
    document = copy.deepcopy(document)
    servers = document.get(client.section)
    nested = servers.get("servers") if isinstance(servers, dict) else None
    if client.name == "opencode" and isinstance(nested, dict) and "type" not in nested:
        # A file of version 2, which keeps the servers one level further down.
        native = {key: value for key, value in entry.items() if key != "enabled"}
        native["timeout"] = {"request": entry["timeout"]}
        _put(document, {client.section: {"servers": {SERVER: native}}}, dict)
    else:
        _put(document, {client.section: {SERVER: entry}}, dict)
    return document


def _kept(document: Any, section: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry, with the flags that somebody has put behind `serve` in the one that is there."""
    servers = document.get(section)
    there = servers.get(SERVER) if isinstance(servers, Mapping) else None
    kept = dict(entry)
    if not isinstance(there, Mapping):
        return kept
    for name in ("args", "command"):
        ours, theirs = kept.get(name), there.get(name)
        if isinstance(ours, list) and isinstance(theirs, list) and "serve" in theirs:
            kept[name] = [*ours, *theirs[theirs.index("serve") + 1 :]]
    return kept


def _put(target: Any, values: Mapping[str, Any], table: Callable[[], Any]) -> None:
    """Set values in nested tables; what is there beside them stays."""
    if not isinstance(target, dict):
        raise TypeError
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = target.get(key)
            new = table() if inner is None else inner
            _put(new, value, table)
            if inner is None:
                target[key] = new
        elif target.get(key) != value:
            target[key] = value


def _rendered(client: Client, document: Any, indent: int | str) -> str:
    if client.format == "toml":
        import tomlkit

        return tomlkit.dumps(document)
    return json.dumps(document, indent=indent, ensure_ascii=False) + "\n"


def _indent_of(text: str) -> int | str:
    for line in text.splitlines()[1:]:
        if line.strip():
            return line[: len(line) - len(line.lstrip())] or 2
    return 2


def _back_up(path: Path) -> Path:
    number = 0
    while True:
        backup = path.with_name(f"{path.name}.bak{number or ''}")
        try:
            os.close(os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            number += 1
            continue
        shutil.copy2(path, backup)
        return backup


def _replace(path: Path, content: bytes, before: bytes | None) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if before is None:
            os.chmod(temporary, 0o644)
        else:
            shutil.copymode(path, temporary)
            if path.read_bytes() != before:
                raise InvalidArgument(f"{path} was changed by another program meanwhile", "try again")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if os.name != "nt":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
