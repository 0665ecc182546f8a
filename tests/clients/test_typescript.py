"""Clients on the TypeScript SDKs, of both major versions, against the real server, over each transport."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.clients.install import Clients
from tests.clients.reaching import ROOT, Way, surroundings

SCRIPT = Path(__file__).with_name("typescript_client.mjs")
CORE_TOOLS = {"run_command", "poll_task", "get_result", "cancel_task", "clear_task", "list_tasks"}

Sdk = Literal["v1", "v2", "v2-2026"]


def run(clients: Clients, sdk: Sdk, way: Way) -> subprocess.CompletedProcess[str]:
    argv = [clients.node, str(SCRIPT), sdk, *way.words]
    env = surroundings(clients, way)
    return subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(
    ("sdk", "kind"),
    [
        ("v1", "stdio"),
        ("v1", "http"),
        ("v1", "sse"),
        ("v2", "stdio"),
        ("v2", "http"),
        ("v2", "sse"),
        ("v2-2026", "stdio"),
        ("v2-2026", "http"),
    ],
)
def test_a_typescript_client_gets_by_start_and_poll_what_one_call_cannot_give_it(
    clients: Clients, sdk: Sdk, way: Way
) -> None:
    done = run(clients, sdk, way)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)

    assert set(seen["tools"]) >= CORE_TOOLS
    assert seen["echo"]["structuredContent"]["exit_code"] == 3

    # One long call: given up by the client, with its own error and in its own time.
    given_up = -32001 if sdk == "v1" else "REQUEST_TIMEOUT"
    assert (seen["blocking"]["code"], seen["blocking"].get("answer")) == (given_up, None)
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

    # From another connection.
    assert seen["found"]["structuredContent"]["state"] == "running"
    assert seen["refused"]["isError"] is True
    assert seen["refused"]["structuredContent"]["code"] == "task_not_finished"
    assert seen["cancelled"]["structuredContent"]["state"] == "cancelled"
    left = seen["left"]["structuredContent"]["task_id"]
    assert [task["task_id"] for task in seen["listed"]["structuredContent"]["tasks"]] == [left]
    assert left in seen["cleared"]["structuredContent"]["cleared"]
    assert seen["gone"]["isError"] is True
    assert seen["gone"]["structuredContent"]["code"] == "task_not_found"
