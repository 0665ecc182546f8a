"""MCP clients of other makers against the real server, over stdio."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.install import Clients, find, folder
from tests.waiting import wait_until

# Looked for at import: the tests themselves run in a home of their own.
CLIENTS = find(folder())
HOW_TO = (
    "Node and the clients are missing here; `python tests/clients/install.py` installs them (it needs npm)"
)
SCRIPT = Path(__file__).with_name("typescript_client.mjs")
CORE_TOOLS = {"run_command", "poll_task", "get_result", "cancel_task", "clear_task", "list_tasks"}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def clients() -> Clients:
    if CLIENTS is None:
        if os.environ.get("CI"):
            pytest.fail(HOW_TO)
        pytest.skip(HOW_TO)
    return CLIENTS


def serve(state: Path) -> list[str]:
    return [sys.executable, "-m", "mcp_tasks", "serve", "--store", "json", "--dir", str(state)]


def surroundings(clients: Clients) -> dict[str, str]:
    path = f"{Path(clients.node).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "MCP_TASKS_NODE_DIR": str(clients.modules)}


@dataclass(frozen=True)
class Inspector:
    """The Inspector's command line. Each call connects to a server process of its own."""

    clients: Clients
    config: Path

    @classmethod
    def on(cls, clients: Clients, tmp_path: Path) -> Inspector:
        command, *args = serve(tmp_path / "state")
        server = {"type": "stdio", "command": command, "args": args, "cwd": str(ROOT)}
        config = tmp_path / "inspector.json"
        config.write_text(json.dumps({"mcpServers": {"tasks": server}}))
        return cls(clients, config)

    def start(self, *options: str) -> subprocess.Popen[str]:
        argv = [self.clients.node, str(self.clients.inspector), "--cli", "--config", str(self.config)]
        argv += ["--server", "tasks", "--format", "json", "--quiet", *options]
        env = {**surroundings(self.clients), "MCP_INSPECTOR_SECRET_STORE": "memory"}
        return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *options: str) -> tuple[int, str, str]:
        with self.start(*options) as process:
            printed, errors = process.communicate(timeout=60)
        return process.returncode, printed, errors

    def call(self, tool: str, *options: str, **arguments: Any) -> dict[str, Any]:
        given = ["--tool-name", tool, "--tool-args-json", json.dumps(arguments)]
        exit_code, printed, errors = self.run("--method", "tools/call", *given, *options)
        assert exit_code == 0, errors
        content: dict[str, Any] = json.loads(printed)["result"]["structuredContent"]
        return content


def test_the_inspector_finds_no_fault_in_the_tools(clients: Clients, tmp_path: Path) -> None:
    exit_code, printed, errors = Inspector.on(clients, tmp_path).run("--method", "tools/list", "--strict")
    assert exit_code == 0, errors
    tools = json.loads(printed)["result"]["tools"]
    assert {tool["name"] for tool in tools} >= CORE_TOOLS


def test_the_inspector_starts_polls_reads_cancels_and_clears(clients: Clients, tmp_path: Path) -> None:
    inspector = Inspector.on(clients, tmp_path)
    started = inspector.call("run_command", command="sleep 2; echo late; echo err >&2; exit 3", wait_ms=0)
    assert started["state"] == "running"
    task = {"task_id": started["task_id"]}

    ended = wait_until(
        lambda: (view := inspector.call("poll_task", **task))["state"] != "running" and view, "it ends", 30
    )

    assert ended
    assert (ended["state"], ended["exit_code"], ended["stdout"]) == ("failed", 3, "late\n")
    result = inspector.call("get_result", **task)
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("late\n", "err\n", 3)
    left = inspector.call("run_command", command="sleep 300", wait_ms=0)
    assert inspector.call("cancel_task", task_id=left["task_id"])["state"] == "cancelled"
    cleared = inspector.call("clear_task", all_finished=True)["cleared"]
    assert set(cleared) == {started["task_id"], left["task_id"]}


def test_an_inspector_that_is_killed_in_the_middle_of_a_call_finds_the_task_afterwards(
    clients: Clients, tmp_path: Path
) -> None:
    inspector = Inspector.on(clients, tmp_path)
    begun = tmp_path / "begun"
    slow = {"command": f"touch {begun}; sleep 2; echo late", "key": "slow"}
    given = ["--tool-name", "run_command", "--tool-args-json", json.dumps({**slow, "wait_ms": 20_000})]

    # It renews its patience with each progress notification, so that only its own end ends the call.
    with inspector.start("--method", "tools/call", *given) as blocking:
        wait_until(begun.exists, "the command runs", 30)
        blocking.kill()
        printed, _ = blocking.communicate()

    assert printed == ""
    started = inspector.call("run_command", **slow, wait_ms=0)
    assert started["reused"] is True
    ended = inspector.call("poll_task", task_id=started["task_id"], wait_ms=20_000)
    assert (ended["state"], ended["exit_code"], ended["stdout"]) == ("completed", 0, "late\n")


def test_the_inspector_starts_and_polls_in_the_2026_revision_too(clients: Clients, tmp_path: Path) -> None:
    inspector = Inspector.on(clients, tmp_path)
    era = ("--protocol-era", "modern")
    started = inspector.call("run_command", *era, command="echo new", wait_ms=0)
    ended = inspector.call("poll_task", *era, task_id=started["task_id"], wait_ms=20_000)
    assert (ended["state"], ended["stdout"]) == ("completed", "new\n")


@pytest.fixture
def seen(clients: Clients, tmp_path: Path) -> dict[str, Any]:
    argv = [clients.node, str(SCRIPT), *serve(tmp_path / "state")]
    done = subprocess.run(
        argv, env=surroundings(clients), cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def test_a_typescript_client_gets_by_start_and_poll_what_one_call_cannot_give_it(
    seen: dict[str, Any],
) -> None:
    assert set(seen["tools"]) >= CORE_TOOLS
    assert seen["echo"]["structuredContent"]["exit_code"] == 3

    # One long call: given up by the client, with its own error and in its own time.
    assert (seen["blocking"]["code"], seen["blocking"].get("answer")) == (-32001, None)
    # The same call again, short, finds the task that the lost answer spoke of.
    started = seen["start"]["answer"]["structuredContent"]
    assert (started["state"], started["reused"]) == ("running", True)
    assert all("answer" in poll for poll in seen["polls"])
    last = seen["polls"][-1]["answer"]["structuredContent"]
    assert (last["state"], last["exit_code"], last["stdout"]) == ("completed", 0, "late\n")
    assert seen["result"]["structuredContent"]["stdout"] == "late\n"

    # A client that renews its patience with each progress notification may wait longer.
    assert seen["renewed"]["answer"]["structuredContent"]["state"] == "completed"
    assert seen["progress"]

    # From another connection, to another server process.
    assert seen["found"]["structuredContent"]["state"] == "running"
    assert seen["refused"]["isError"] is True
    assert seen["refused"]["structuredContent"]["code"] == "task_not_finished"
    assert seen["cancelled"]["structuredContent"]["state"] == "cancelled"
    left = seen["left"]["structuredContent"]["task_id"]
    assert [task["task_id"] for task in seen["listed"]["structuredContent"]["tasks"]] == [left]
    assert left in seen["cleared"]["structuredContent"]["cleared"]
    assert seen["gone"]["isError"] is True
    assert seen["gone"]["structuredContent"]["code"] == "task_not_found"
