"""MCP Inspector's command line against the real server, over each transport."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.clients.inspector import Inspector
from tests.clients.install import Clients
from tests.clients.reaching import Way
from tests.waiting import wait_until

CORE_TOOLS = {"run_command", "poll_task", "get_result", "cancel_task", "clear_task", "list_tasks"}
EACH_TRANSPORT = pytest.mark.parametrize("kind", ["stdio", "http", "sse"])


@pytest.fixture
def inspector(clients: Clients, tmp_path: Path, way: Way) -> Inspector:
    return Inspector.on(clients, tmp_path, way)


@EACH_TRANSPORT
def test_the_inspector_finds_no_fault_in_the_tools(inspector: Inspector) -> None:
    exit_code, printed, errors = inspector.run("--method", "tools/list", "--strict")
    assert exit_code == 0, errors
    tools = json.loads(printed)["result"]["tools"]
    assert {tool["name"] for tool in tools} >= CORE_TOOLS


@EACH_TRANSPORT
def test_the_inspector_starts_polls_reads_cancels_and_clears(inspector: Inspector) -> None:
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


@EACH_TRANSPORT
def test_an_inspector_that_is_killed_in_the_middle_of_a_call_finds_the_task_afterwards(
    inspector: Inspector, tmp_path: Path
) -> None:
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


@pytest.mark.parametrize("kind", ["stdio", "http"])
def test_the_inspector_starts_and_polls_in_the_2026_revision_too(inspector: Inspector) -> None:
    era = ("--protocol-era", "modern")
    started = inspector.call("run_command", *era, command="echo new", wait_ms=0)
    ended = inspector.call("poll_task", *era, task_id=started["task_id"], wait_ms=20_000)
    assert (ended["state"], ended["stdout"]) == ("completed", "new\n")


@pytest.mark.parametrize("kind", ["stdio", "http"])
def test_the_inspector_follows_a_native_task_that_outlives_the_wait_of_its_call(inspector: Inspector) -> None:
    slow = {"command": "sleep 3; echo late; exit 3"}

    older = inspector.call("run_command", "--protocol-era", "legacy", **slow)
    ended = inspector.call("run_command", "--protocol-era", "modern", **slow)

    # The older revision has no native tasks: the call ends with its wait, and the client has to poll.
    assert (older["state"], older["wait_result"]) == ("running", "deadline")
    assert (ended["state"], ended["exit_code"], ended["stdout"]) == ("failed", 3, "late\n")
    assert inspector.call("get_result", task_id=ended["task_id"])["stdout"] == "late\n"


@pytest.mark.parametrize("kind", ["http", "sse"])
def test_an_inspector_with_another_token_gets_nothing(clients: Clients, tmp_path: Path, way: Way) -> None:
    stranger = Inspector.on(clients, tmp_path, replace(way, token="another-token-than-the-right-one"))

    exit_code, printed, errors = stranger.run("--method", "tools/list", "--stored-auth-only")

    assert exit_code != 0
    assert "run_command" not in printed + errors
