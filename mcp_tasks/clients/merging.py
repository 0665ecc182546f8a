"""Putting this server into a client's own file.

The files belong to the user and to other programs. What is merged into one keeps everything else in
it, leaves a backup beside it, and replaces it in one step; a file that cannot be read as a whole is
left alone.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp_tasks.clients.known import SERVER, Client
from mcp_tasks.errors import InvalidArgument

__all__ = ["Merged", "merge_into", "snippet"]

_BOM = "\ufeff"
_STARTED = frozenset({"command", "args", "env", "environment", "startup_timeout_sec", "tool_timeout_sec"})
_ADDRESSES = frozenset({"url", "httpUrl"})
_REMOTE = frozenset({*_ADDRESSES, "headers", "bearer_token_env_var", "oauth"})


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


def snippet(client: Client, entry: Mapping[str, Any]) -> str:
    """What stands in the client's file when nothing else does."""
    return _rendered(client, _merged(client, {} if client.format == "json" else _toml(""), entry), indent=2)


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
    document = document if client.format == "toml" else copy.deepcopy(document)
    _forget_other_kind(document, client.section, entry)
    if client.format == "toml":
        import tomlkit

        document.setdefault(client.section, tomlkit.table(is_super_table=True))
        _put(document, {client.section: {SERVER: entry}}, tomlkit.table)
        return document
    servers = document.get(client.section)
    nested = servers.get("servers") if isinstance(servers, dict) else None
    if client.name == "opencode" and isinstance(nested, dict) and "type" not in nested:
        # A file of version 2, which keeps the servers one level further down.
        native = {key: value for key, value in entry.items() if key != "enabled"}
        if "timeout" in entry:
            native["timeout"] = {"request": entry["timeout"]}
        _put(document, {client.section: {"servers": {SERVER: native}}}, dict)
    else:
        _put(document, {client.section: {SERVER: entry}}, dict)
    if client.inputs and "url" in entry:
        there = document.setdefault("inputs", [])
        known = {each.get("id") for each in there if isinstance(each, Mapping)}
        there.extend(dict(each) for each in client.inputs if each["id"] not in known)
    return document


def _forget_other_kind(document: Any, section: str, entry: Mapping[str, Any]) -> None:
    """Take out of the entry that is there what only a server has that is reached in another way."""
    servers = document.get(section)
    there = servers.get(SERVER) if isinstance(servers, dict) else None
    if not isinstance(there, dict):
        return
    other = _STARTED if _REMOTE & entry.keys() else _REMOTE
    if other & there.keys():
        for key in [key for key in there if key in other or key in ("type", "timeout")]:
            del there[key]
    if _REMOTE & entry.keys():  # Gemini has one key for each transport
        for key in (_ADDRESSES & there.keys()) - entry.keys():
            del there[key]


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
