"""Secrets of many kinds go through a real server; afterwards every byte that it keeps is looked at."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.server.test_connection import INITIALIZE, call
from tests.server.test_stdio import ROOT

_SALT = "q7Zx"


def _key_block() -> str:
    lines = "\n".join(f"{_SALT}KeyLine{number}abcdefghijklmnop" for number in range(3))
    return "-----BEGIN OPENSSH " + f"PRIVATE KEY-----\n{lines}\n-----END OPENSSH " + "PRIVATE KEY-----"


PLANTED = {
    "in a command": f"{_SALT}-command",
    "marked in env": f"{_SALT}-marked env",
    "in env, by name": f"{_SALT}-named-env",
    "in stdin": f"{_SALT}-stdin",
    "in a label": "ghp_" + f"{_SALT}Label" * 5,
    "typed into a task": f"{_SALT}-typed",
    "in a URL": f"{_SALT}-url",
    "in the workspace": f"{_SALT}-workspace",
    "in a message": "sk-ant-api03-" + f"{_SALT}Message" * 4,
    "in a plan": f"{_SALT}-plan-step",
    "in a header": f"{_SALT}-header-value",
    "in a private key": f"{_SALT}KeyLine1abcdefghijklmnop",
    "in an error": "glpat-" + f"{_SALT}Error" * 4,
    "marked, in an error": f"{_SALT}-marked error",
    "in the input of what waits": f"{_SALT}-parked",
    "in the name of a plan": "npm_" + f"{_SALT}Plan" * 5,
    "in the reason of an end": "xoxb-" + f"{_SALT}-1234567890-reason",
    "in a preference": f"{_SALT}-preference",
    "in a key": "ghp_" + f"{_SALT}Key" * 6,
    "marked, in a key": f"{_SALT}-marked key",
    "in an id": "AIza" + f"{_SALT}Id" * 6,
    "in the id of a plan": "eyJ" + f"{_SALT}hbGci.{_SALT}Plan.{_SALT}signed",
    "in a folder": f"{_SALT}-folder",
    "in a shell": "ghp_" + f"{_SALT}Shell" * 5,
}


class Server:
    """A server on stdio, and all that it has said."""

    def __init__(self, folder: Path, store: str) -> None:
        self.said: list[bytes] = []
        self._log = (folder / "log").open("ab")
        self._process = subprocess.Popen(
            (
                *(sys.executable, "-m", "mcp_tasks", "serve", "--tools", "full", "--store", store),
                *("--dir", str(folder / "state"), "--key-file", str(folder / "key"), "--max-running", "2"),
            ),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._numbers = iter(range(1, 1_000))
        self._send(INITIALIZE, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        self._answer_to(0)

    def _send(self, *messages: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        for message in messages:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def _answer_to(self, number: int) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line)
            message: dict[str, Any] = json.loads(line)
            if message.get("id") == number:
                return message
        raise AssertionError("the server ended")

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._send(call(number, tool, **arguments))
        result: dict[str, Any] = self._answer_to(number)["result"]
        view: dict[str, Any] = result["structuredContent"]
        assert result["isError"] == ("code" in view), view
        return view

    def close(self) -> None:
        """End it as a client does, and wait until it is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self.said += self._process.stdout.readlines()
        assert self._process.wait(30) == 0
        self._process.stdout.close()
        self._log.close()


@pytest.fixture(params=["json", "sqlite"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_no_secret_is_kept_or_told_but_what_a_command_itself_printed(tmp_path: Path, store: str) -> None:
    printed = f"{_SALT}-printed"
    server = Server(tmp_path, store)
    try:
        _plant(server, tmp_path / "state", printed)
        for tool, arguments in (
            ("list_tasks", {"limit": 100}),
            ("session_info", {}),
            ("list_sessions", {}),
            ("plan_progress", {}),
            ("read_journal", {"limit": 200}),
            ("search_journal", {"text": "deploy"}),
            ("export_session", {"format": "json"}),
        ):
            assert "code" not in server.call(tool, **arguments), tool
        tasks = server.call("list_tasks", limit=100)["tasks"]
        assert {task["state"] for task in tasks} <= {"completed", "failed"}
        for task in tasks:
            server.call("get_result", task_id=task["task_id"])
        ended = server.call("end_session", reason=f"given up: {PLANTED['in the reason of an end']}")
        assert ended["state"] == "closed"
    finally:
        server.close()
    # Another server looks at the same, and so opens every database anew.
    again = Server(tmp_path, store)
    try:
        again.call("read_journal", limit=200)
        again.call("list_tasks")
    finally:
        again.close()

    kept = dict(_everything(tmp_path / "state"))
    assert len(kept) > 10
    for kind, secret in PLANTED.items():
        for spelling in _spellings(secret):
            assert [line for line in server.said + again.said if spelling in line] == [], kind
            assert spelling not in (tmp_path / "log").read_bytes(), f"the secret {kind} is in the log"
            found = [name for name, content in kept.items() if spelling in content]
            assert found == [], f"the secret {kind} is kept in {found}"
    holders = {name for name, content in kept.items() if printed.encode() in content}
    assert holders
    assert all(Path(name).name == "stdout" for name in holders)


def _plant(server: Server, state: Path, printed: str) -> None:
    key = _key_block()
    server.call(
        "update_session",
        title="a project",
        env={"PLAIN": PLANTED["in the workspace"], "SERVICE_TOKEN": f"{PLANTED['in the workspace']}-2"},
        preferences={"registry": {"password": PLANTED["in a preference"]}},
    )
    held = server.call(
        "run_command", command="true", delay_ms=1_500, wait_ms=0, after=[], retries=1, label="held"
    )
    waiting = server.call(
        "run_command",
        command="cat > /dev/null; exit 1",
        stdin=PLANTED["in the input of what waits"],
        env={"CODE": PLANTED["marked in env"]},
        secrets=["CODE"],
        retries=1,
        delay_ms=500,
        wait_ms=0,
    )
    assert {held["state"], waiting["state"]} == {"pending"}
    # What is to be started later is on the disk by now, for whoever starts it, and sealed.
    parked = list(state.glob(f"**/{waiting['task_id']}*/launch"))
    assert parked
    assert all(b"sealed1." in path.read_bytes() for path in parked)
    assert [name for name, content in _everything(state) if _SALT.encode() in content] == []
    for arguments in (
        {"command": f"true --password {PLANTED['in a command']}"},
        {"command": ["true", f"API_KEY={PLANTED['in a command']}"]},
        {
            "command": f"true '{PLANTED['marked in env']}'",
            "env": {"CODE": PLANTED["marked in env"]},
            "secrets": ["CODE"],
            "label": f"deploy {PLANTED['marked in env']}",
        },
        {"command": f"true {PLANTED['in env, by name']}", "env": {"DB_PASSWORD": PLANTED["in env, by name"]}},
        {"command": "cat > /dev/null", "stdin": PLANTED["in stdin"]},
        {"command": "true", "label": f"deploy {PLANTED['in a label']}"},
        {"command": f"true https://me:{PLANTED['in a URL']}@example.org/r.git"},
        {"command": f"true -H 'Authorization: Bearer {PLANTED['in a header']}'"},
        {"command": f"true '{key}'"},
        {"command": ["true", key]},
        {"command": ["printenv", "SHOWN"], "env": {"SHOWN": printed}, "secrets": ["SHOWN"]},
        {"command": 'test -n "$PLAIN$SERVICE_TOKEN"'},
        {"command": f"true {PLANTED['in the workspace']}-2"},
    ):
        view = server.call("run_command", wait_ms=20_000, **arguments)
        assert view["state"] == "completed", (arguments, view)
    _type(server)
    _err(server)
    _name(server)
    _say(server, key)
    for task in (held, waiting):
        server.call("poll_task", task_id=task["task_id"], until="exit", wait_ms=20_000)


def _type(server: Server) -> None:
    task_id = server.call("run_command", command='read line; test -n "$line"', interactive=True, wait_ms=0)[
        "task_id"
    ]
    server.call("send_input", task_id=task_id, text=PLANTED["typed into a task"], enter=True, secret=True)
    assert server.call("poll_task", task_id=task_id, until="exit", wait_ms=20_000)["state"] == "completed"


def _err(server: Server) -> None:
    secret, marked = PLANTED["in an error"], PLANTED["marked, in an error"]
    for arguments in (
        {"command": "true", "cwd": f"/no/{secret}"},
        {"command": "true", "cwd": f"/no/{marked}", "env": {"CODE": marked}, "secrets": ["CODE"]},
        {"command": "true", "secrets": [marked, secret], "env": {"CODE": marked}},
        {"command": "true", "wait_ms": secret},
        {"command": "true", secret: 1},
        {"command": "true", "until": "pattern", "pattern": f"({secret}"},
    ):
        assert server.call("run_command", **arguments)["code"] == "invalid_argument", arguments
    missing = server.call("run_command", command=[f"/no/{secret}", "--token", marked], wait_ms=20_000)
    assert missing["outcome"] == "spawn_failed"
    assert server.call("get_result", task_id=secret)["code"] == "task_not_found"


def _name(server: Server) -> None:
    """Secrets where a name, an id or a folder belongs."""
    marked, wrong = PLANTED["marked, in a key"], PLANTED["in an id"]
    env = {"env": {"CODE": marked}, "secrets": ["CODE"]}
    keyed: tuple[tuple[str, str, dict[str, Any]], ...] = (
        (PLANTED["in a key"], "run_command", {"command": "true"}),
        (f"of {marked}", "run_command", {"command": "true", **env}),
        (f"all of {marked}", "run_plan", {"commands": [{"command": "true", **env}]}),
    )
    for key, tool, arguments in keyed:
        first = server.call(tool, key=key, wait_ms=20_000, **arguments)
        assert first["state"] == "completed"
        assert server.call(tool, key=key, wait_ms=20_000, **arguments)["reused"]
        changed: dict[str, Any] = {"timeout_ms": 9_000} if tool == "run_command" else {"order": "parallel"}
        assert server.call(tool, key=key, **arguments, **changed)["code"] == "key_conflict"
    refused: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("poll_task", {"task_id": wrong}, "task_not_found"),
        ("poll_task", {"task_id": _key_block()}, "task_not_found"),
        ("wait_tasks", {"task_ids": [wrong]}, "task_not_found"),
        ("add_message", {"text": "x", "task_id": wrong}, "task_not_found"),
        ("run_command", {"command": "true", "after": [wrong]}, "task_not_found"),
        ("run_plan", {"commands": [{"command": "true", "after": [wrong]}]}, "invalid_argument"),
        ("plan_progress", {"plan_id": PLANTED["in the id of a plan"]}, "plan_not_found"),
        ("update_session", {"cwd": f"https://bob:{PLANTED['in a folder']}@h/x"}, "invalid_argument"),
        ("project_context", {"cwd": f"https://bob:{PLANTED['in a folder']}@h/x"}, "invalid_argument"),
        ("update_session", {"shell": PLANTED["in a shell"]}, "invalid_argument"),
    )
    for tool, arguments, code in refused:
        assert server.call(tool, **arguments).get("code") == code, (tool, arguments)


def _say(server: Server, key: str) -> None:
    said = server.call("add_message", role="user", text=f"deploy with {PLANTED['in a message']}\n{key}")
    server.call(
        "add_message",
        role="user",
        replaces=said["message"]["message_id"],
        text=f"not {PLANTED['in a message']}",
    )
    steps: list[Any] = [
        {
            "command": f"true {PLANTED['in a plan']}",
            "env": {"STEP": PLANTED["in a plan"]},
            "secrets": ["STEP"],
            "stdin": PLANTED["in stdin"],
        },
        f"true --token={PLANTED['in a plan']}",
    ]
    plan = server.call("run_plan", commands=steps, name=f"deploy {PLANTED['in the name of a plan']}")
    over = server.call("plan_progress", plan_id=plan["plan_id"], wait_ms=20_000)
    assert over["state"] == "completed", over


def _spellings(secret: str) -> set[bytes]:
    raw = secret.encode()
    return {raw, raw.lower(), json.dumps(secret)[1:-1].encode(), raw.hex().encode()}


def _everything(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file raw (a database with its log and its free pages), and decompressed where it is."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if not path.is_file():
                continue  # the pipe of a steward
            content = path.read_bytes()
            yield str(path), content
            yield from _unpacked(path, content)


def _unpacked(path: Path, content: bytes) -> Iterator[tuple[str, bytes]]:
    if path.name.endswith(".gz"):
        yield f"{path}!", gzip.decompress(content)
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path) as archive:
            for member in archive:
                if (file := archive.extractfile(member)) is not None:
                    yield f"{path}!{member.name}", file.read()
    # Bodies of folded messages lie in the database, compressed.
    at = content.find(b"\x78\x9c")
    while at >= 0:
        with suppress(zlib.error):
            yield f"{path}@{at}", zlib.decompressobj().decompress(content[at:])
        at = content.find(b"\x78\x9c", at + 2)
