"""FastMCP's client, in a Python environment of its own, against the real server, over each transport."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.install import Clients, Programs
from tests.clients.reaching import ROOT, Way, surroundings

pytestmark = pytest.mark.large

SCRIPT = Path(__file__).with_name("fastmcp_client.py")
CORE_TOOLS = {"run_command", "poll_task", "get_result", "cancel_task", "clear_task", "list_tasks"}


@pytest.mark.parametrize("kind", ["stdio", "http", "sse"])
def test_a_fastmcp_client_comes_back_in_another_connection(
    clients: Clients, programs: Programs, way: Way
) -> None:
    argv = [str(programs.fastmcp), str(SCRIPT), *way.words]
    env = surroundings(clients, way)
    done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)

    assert set(seen["tools"]) >= CORE_TOOLS
    assert seen["started"]["state"] == "running"
    polled = seen["polled"]
    assert (polled["state"], polled["exit_code"], polled["stdout"]) == ("failed", 3, "late\n")
    assert seen["result"]["stdout"] == "late\n"
    assert (seen["refused"]["is_error"], seen["refused"]["code"]) == (True, "task_not_finished")
    assert seen["cancelled"]["state"] == "cancelled"
    assert set(seen["cleared"]["cleared"]) == {seen["started"]["task_id"], seen["cancelled"]["task_id"]}
