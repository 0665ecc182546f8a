from __future__ import annotations

import json
import os
import stat
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.clients import CLIENTS, Client, find_client, merge_into, merging, server_command, snippet
from mcp_tasks.errors import InvalidArgument, NotSupported

COMMAND = ["/opt/mcp-tasks", "serve"]
JSON_CLIENTS = [client for client in CLIENTS if client.format == "json"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, in which the current folder is a project."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.delenv("CODEX_HOME", raising=False)
    return tmp_path


def read(client: Client, path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    document = tomllib.loads(text) if client.format == "toml" else json.loads(text)
    assert isinstance(document, dict)
    return document


@pytest.mark.skipif(sys.platform != "linux", reason="the paths are those of Linux")
@pytest.mark.parametrize(
    ("name", "file", "section"),
    [
        ("claude-desktop", ".config/Claude/claude_desktop_config.json", "mcpServers"),
        ("claude-code", "project/.mcp.json", "mcpServers"),
        ("cursor", ".cursor/mcp.json", "mcpServers"),
        ("vscode", ".config/Code/User/mcp.json", "servers"),
        ("codex", ".codex/config.toml", "mcp_servers"),
        ("gemini", ".gemini/settings.json", "mcpServers"),
        ("opencode", ".config/opencode/opencode.json", "mcp"),
    ],
)
def test_each_client_has_its_own_file_and_section(name: str, file: str, section: str, home: Path) -> None:
    client = find_client(name)
    entry = client.entry(COMMAND, {})

    merged = merge_into(client.file(), client, entry)

    assert merged.path == home / file
    assert merged.changed
    assert merged.backup is None
    assert read(client, merged.path) == {section: {"mcp-tasks": entry}}


def test_the_entry_of_each_client_has_its_shape_and_its_patience() -> None:
    entries = {client.name: client.entry(COMMAND, {}) for client in CLIENTS}

    for name, entry in entries.items():
        if name != "opencode":
            assert (entry["command"], entry["args"]) == ("/opt/mcp-tasks", ["serve"])
    assert {name: entry.get("env", entry.get("environment")) for name, entry in entries.items()} == {
        name: {"MCP_TASKS_MAX_WAIT_MS": wait}
        for name, wait in {
            "claude-desktop": "50000",
            "claude-code": "240000",
            "cursor": "50000",
            "vscode": "50000",
            "codex": "240000",
            "gemini": "240000",
            "opencode": "50000",
        }.items()
    }
    assert entries["claude-code"]["timeout"] == 300_000
    assert entries["codex"]["tool_timeout_sec"] == 300
    assert entries["gemini"]["timeout"] == 300_000
    assert entries["opencode"]["command"] == COMMAND
    assert entries["opencode"]["type"] == "local"
    assert entries["vscode"]["type"] == "stdio"


def test_where_the_state_is_kept_goes_into_the_entry_and_nothing_else_of_the_environment() -> None:
    environ = {
        "MCP_TASKS_DIR": "/state",
        "MCP_TASKS_TOKEN": "secret",
        "MCP_TASKS_SESSION": "s",
        "PATH": "/bin",
    }

    entry = find_client("cursor").entry(COMMAND, environ)

    assert entry["env"] == {"MCP_TASKS_DIR": "/state", "MCP_TASKS_MAX_WAIT_MS": "50000"}


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_snippet_is_what_the_file_of_a_new_user_would_hold(client: Client) -> None:
    entry = client.entry(COMMAND, {})

    merged = merge_into(client.file(), client, entry)

    assert merged.path.read_text() == snippet(client, entry)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_doing_it_again_changes_nothing_and_leaves_no_backup(client: Client) -> None:
    entry = client.entry(COMMAND, {})
    first = merge_into(client.file(), client, entry)
    content = first.path.read_bytes()

    second = merge_into(client.file(), client, entry)

    assert (second.changed, second.backup) == (False, None)
    assert first.path.read_bytes() == content
    assert len(list(first.path.parent.iterdir())) == 1


@pytest.mark.parametrize("client", JSON_CLIENTS, ids=lambda client: client.name)
def test_everything_else_in_a_json_file_is_kept_and_backed_up(client: Client) -> None:
    path = client.file()
    path.parent.mkdir(parents=True, exist_ok=True)
    other = {"z": [1, 2.5, None, "äöü"], client.section: {"other": {"command": "x"}}, "a": {"b": {}}}
    original = json.dumps(other, indent="\t", ensure_ascii=False)
    path.write_text(original, encoding="utf-8")
    path.chmod(0o640)
    entry = client.entry(COMMAND, {})

    merged = merge_into(path, client, entry)

    document = read(client, path)
    assert list(document) == ["z", client.section, "a"]
    assert document[client.section].pop("mcp-tasks") == entry
    assert document == other
    assert '\n\t"z"' in path.read_text(encoding="utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert merged.backup is not None
    assert merged.backup.read_text(encoding="utf-8") == original


def test_everything_else_in_a_toml_file_is_kept_with_its_comments() -> None:
    client = find_client("codex")
    path = client.file()
    path.parent.mkdir()
    original = (
        '# mine\nmodel = "x"   # best\n\n[mcp_servers.other]\ncommand = "y"\n\n[profiles.fast]\na = 1\n'
    )
    path.write_text(original)

    merged = merge_into(path, client, client.entry(COMMAND, {}))

    text = path.read_text()
    for line in original.splitlines():
        assert line in text
    document = read(client, path)
    assert document["mcp_servers"]["mcp-tasks"] == client.entry(COMMAND, {})
    assert document["mcp_servers"]["other"] == {"command": "y"}
    assert document["profiles"] == {"fast": {"a": 1}}
    assert merged.backup is not None
    assert merged.backup.read_text() == original


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_what_the_user_added_to_the_entry_stays(client: Client) -> None:
    entry = client.entry(COMMAND, {})
    environment = "environment" if client.name == "opencode" else "env"
    mine = {**entry, "mine": True, environment: {"MCP_TASKS_SESSION": "s", "MCP_TASKS_MAX_WAIT_MS": "1"}}
    merge_into(client.file(), client, mine)

    merged = merge_into(client.file(), client, entry)

    found = read(client, merged.path)[client.section]["mcp-tasks"]
    assert found["mine"] is True
    assert found[environment] == {
        "MCP_TASKS_SESSION": "s",
        "MCP_TASKS_MAX_WAIT_MS": str(client.max_wait_ms),
    }


def test_the_flags_that_the_user_put_behind_serve_stay(home: Path) -> None:
    client = find_client("cursor")
    file = client.file()
    file.parent.mkdir(parents=True, exist_ok=True)
    theirs = {"command": "/opt/x", "args": ["serve", "--dir", "/data"]}
    file.write_text(json.dumps({"mcpServers": {"mcp-tasks": theirs}}))
    merge_into(file, client, client.entry(COMMAND, {}))
    entry = json.loads(file.read_text())["mcpServers"]["mcp-tasks"]
    assert entry["command"] != "/opt/x"
    assert entry["args"][-3:] == ["serve", "--dir", "/data"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cursor", b'{\n  // mine\n  "mcpServers": {}\n}'),
        ("cursor", b'{"mcpServers": {},}'),
        ("cursor", b'{"a": 1, "a": 2}'),
        ("cursor", b"[]"),
        ("cursor", b'{"mcpServers": []}'),
        ("cursor", b'{"mcpServers": {"mcp-tasks": 1}}'),
        ("cursor", b'{"a": "\xff"}'),
        ("cursor", b"[" * 100_000),
        ("codex", b"a = = 1"),
        ("codex", b"mcp_servers = 1"),
        ("codex", b"[mcp_servers]\nmcp-tasks = 1"),
    ],
)
def test_a_file_that_cannot_be_merged_into_is_left_alone(name: str, content: bytes) -> None:
    client = find_client(name)
    path = client.file()
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(InvalidArgument, match="left as it is"):
        merge_into(path, client, client.entry(COMMAND, {}))

    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_an_empty_file_counts_as_one_without_settings() -> None:
    client = find_client("gemini")
    client.file().parent.mkdir()
    client.file().write_text("\n")

    merge_into(client.file(), client, client.entry(COMMAND, {}))

    assert "mcp-tasks" in read(client, client.file())["mcpServers"]


def test_line_ends_and_byte_order_mark_stay_as_they_are() -> None:
    client = find_client("cursor")
    client.file().parent.mkdir()
    client.file().write_bytes(b'\xef\xbb\xbf{\r\n  "a": 1\r\n}\r\n')

    merge_into(client.file(), client, client.entry(COMMAND, {}))

    content = client.file().read_bytes()
    assert content.startswith(b'\xef\xbb\xbf{\r\n  "a": 1,\r\n')
    assert content.count(b"\n") == content.count(b"\r\n")


def test_a_link_to_a_file_elsewhere_stays_a_link(home: Path) -> None:
    client = find_client("cursor")
    target = home / "dotfiles.json"
    target.write_text("{}")
    client.file().parent.mkdir()
    client.file().symlink_to(target)

    merge_into(client.file(), client, client.entry(COMMAND, {}))

    assert client.file().is_symlink()
    assert "mcp-tasks" in target.read_text()


def test_a_backup_is_never_overwritten() -> None:
    client = find_client("cursor")
    client.file().parent.mkdir()
    for number in range(3):
        client.file().write_text(json.dumps({"number": number}))
        merge_into(client.file(), client, client.entry(COMMAND, {}))

    backups = [
        json.loads((client.file().parent / f"mcp.json.bak{end}").read_text()) for end in ("", "1", "2")
    ]
    assert backups == [{"number": 0}, {"number": 1}, {"number": 2}]


def test_a_file_that_another_program_changed_meanwhile_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    client = find_client("cursor")
    client.file().parent.mkdir()
    client.file().write_text("{}")
    back_up = merging._back_up

    def back_up_slowly(path: Path) -> Path:
        backup = back_up(path)
        path.write_text('{"new": 1}')
        return backup

    monkeypatch.setattr(merging, "_back_up", back_up_slowly)

    with pytest.raises(InvalidArgument, match="meanwhile"):
        merge_into(client.file(), client, client.entry(COMMAND, {}))

    assert client.file().read_text() == '{"new": 1}'
    assert sorted(os.listdir(client.file().parent)) == ["mcp.json", "mcp.json.bak"]


def test_opencode_with_servers_one_level_down_gets_the_newer_shape() -> None:
    client = find_client("opencode")
    client.file().parent.mkdir(parents=True)
    client.file().write_text('{"mcp": {"servers": {"other": {"type": "local", "command": ["x"]}}}}')

    merge_into(client.file(), client, client.entry(COMMAND, {}))

    servers = read(client, client.file())["mcp"]["servers"]
    assert set(servers) == {"other", "mcp-tasks"}
    assert servers["mcp-tasks"]["timeout"] == {"request": 300_000}
    assert "enabled" not in servers["mcp-tasks"]


def test_opencode_with_a_commented_file_uses_that_one() -> None:
    client = find_client("opencode")
    commented = client.file().with_name("opencode.jsonc")
    commented.parent.mkdir(parents=True)
    commented.write_text("{}")

    assert client.file() == commented


def test_codex_may_have_its_home_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEX_HOME", str(tmp_path / "codex"))

    assert find_client("codex").file() == tmp_path / "codex" / "config.toml"


def test_claude_code_has_a_command_of_its_own() -> None:
    client = find_client("claude-code")
    entry = client.entry(["/it's here/mcp-tasks", "serve"], {})

    command = client.by_command(entry)

    assert command is not None
    assert command.startswith("claude mcp add-json --scope user mcp-tasks '{")
    assert find_client("cursor").by_command({}) is None


def test_an_unknown_client_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(InvalidArgument, match="netscape") as refused:
        find_client("netscape")

    assert "claude-desktop" in refused.value.hint


def test_the_server_is_started_by_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert server_command() == [str(tmp_path / "python"), "-m", "mcp_tasks", "serve"]

    (tmp_path / "mcp-tasks").write_text("")
    assert server_command() == [str(tmp_path / "mcp-tasks"), "serve"]


def test_an_entry_says_where_state_and_key_are_from_any_folder(home: Path) -> None:
    environ = {"MCP_TASKS_DIR": "state", "MCP_TASKS_KEY_FILE": "~/key", "MCP_TASKS_KEY": "hunter2 hunter2"}
    entry = find_client("cursor").entry(COMMAND, environ)

    assert entry["env"] == {
        "MCP_TASKS_DIR": str(home / "project" / "state"),
        "MCP_TASKS_KEY_FILE": str(home / "key"),
        "MCP_TASKS_MAX_WAIT_MS": "50000",
    }


URL = "http://127.0.0.1:8377/mcp"
REMOTE_CLIENTS = [client for client in CLIENTS if client.remote is not None]


@pytest.mark.parametrize("client", REMOTE_CLIENTS, ids=lambda client: client.name)
def test_an_entry_of_a_server_elsewhere_names_where_the_token_is_and_never_the_token(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_TASKS_TOKEN", "hunter2hunter2hunter2")

    merged = merge_into(client.file(), client, client.remote_entry(URL))

    text = merged.path.read_text()
    assert URL in text
    assert "hunter2" not in text
    assert "MCP_TASKS_TOKEN" in text or "mcp-tasks-token" in text


@pytest.mark.parametrize("client", REMOTE_CLIENTS, ids=lambda client: client.name)
def test_an_entry_may_change_from_a_started_server_to_one_elsewhere_and_back(client: Client) -> None:
    started, elsewhere = client.entry(COMMAND, {}), client.remote_entry(URL)
    found = []
    for entry in (started, elsewhere, started):
        merged = merge_into(client.file(), client, entry)
        found.append(read(client, merged.path)[client.section]["mcp-tasks"])

    assert found == [started, elsewhere, started]


def test_vs_code_asks_for_the_token_once() -> None:
    client = find_client("vscode")
    client.file().parent.mkdir(parents=True)
    client.file().write_text('{"inputs": [{"id": "other", "type": "promptString"}]}')

    for _ in range(2):
        merge_into(client.file(), client, client.remote_entry(URL))

    assert [each["id"] for each in read(client, client.file())["inputs"]] == ["other", "mcp-tasks-token"]


@pytest.mark.parametrize("client", REMOTE_CLIENTS, ids=lambda client: client.name)
@pytest.mark.parametrize("url", ["http://127.0.0.1:8377", "http://127.0.0.1:8377/"])
def test_a_url_without_a_path_is_that_of_mcp(client: Client, url: str) -> None:
    assert client.remote_entry(url) == client.remote_entry(URL)


def test_a_url_with_a_path_of_its_own_is_written_as_it_is() -> None:
    assert find_client("cursor").remote_entry("https://x/tasks/?a=b")["url"] == "https://x/tasks/?a=b"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("claude-code", {"type": "sse", "url": "https://x/sse"}),
        ("vscode", {"type": "sse", "url": "https://x/sse"}),
        ("cursor", {"url": "https://x/sse"}),
        ("gemini", {"url": "https://x/sse"}),
    ],
)
def test_an_address_of_sse_is_written_as_the_client_names_it(name: str, written: dict[str, Any]) -> None:
    entry = find_client(name).remote_entry("https://x/sse")

    assert entry.pop("headers")["Authorization"].startswith("Bearer $")
    assert entry == written


@pytest.mark.parametrize("name", ["codex", "opencode"])
def test_a_client_without_sse_is_given_the_other_address(name: str) -> None:
    with pytest.raises(NotSupported, match="SSE") as refused:
        find_client(name).remote_entry("https://x/sse")

    assert "/mcp" in refused.value.hint


def test_an_entry_may_change_from_one_transport_to_the_other_and_back() -> None:
    client = find_client("gemini")
    entries = [client.remote_entry(url) for url in (URL, "https://x/sse", URL)]
    found = []
    for entry in entries:
        merged = merge_into(client.file(), client, entry)
        found.append(read(client, merged.path)[client.section]["mcp-tasks"])

    assert found == entries


def test_claude_desktop_is_told_to_start_a_server_of_its_own() -> None:
    with pytest.raises(NotSupported, match="itself") as refused:
        find_client("claude-desktop").remote_entry(URL)

    assert "config claude-desktop" in refused.value.hint
