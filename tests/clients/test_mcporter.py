"""mcporter, which calls MCP servers from a shell, against the real server, over stdio and HTTP."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.clients.install import Clients
from tests.clients.reaching import Way, surroundings

CORE_TOOLS = {"run_command", "poll_task", "get_result", "cancel_task", "clear_task", "list_tasks"}


@dataclass(frozen=True)
class Mcporter:
    """Each call is a process of its own."""

    clients: Clients
    folder: Path

    @classmethod
    def on(cls, clients: Clients, folder: Path, way: Way) -> Mcporter:
        # Without `imports` it looks into the files of every other client of the user.
        given = {"mcpServers": {"tasks": way.entry()}, "imports": []}
        (folder / "mcporter.json").write_text(json.dumps(given))
        return cls(clients, folder)

    def run(self, *words: str) -> dict[str, Any]:
        argv = [self.clients.node, str(self.clients.mcporter), "--config", "mcporter.json", *words]
        env = {**surroundings(self.clients), "HOME": str(self.folder)}
        done = subprocess.run(
            argv, env=env, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        return self.run("call", f"tasks.{tool}", "--args", json.dumps(arguments), "--output", "json")


@pytest.mark.parametrize("kind", ["stdio", "http"])
def test_mcporter_lists_the_tools_and_gets_a_result(clients: Clients, tmp_path: Path, way: Way) -> None:
    mcporter = Mcporter.on(clients, tmp_path, way)

    (server,) = mcporter.run("list", "--json")["servers"]
    started = mcporter.call("run_command", command="sleep 1; echo late; exit 3", wait_ms=0)
    ended = mcporter.call("poll_task", task_id=started["task_id"], wait_ms=20_000)

    assert server["status"] == "ok"
    assert {tool["name"] for tool in server["tools"]} >= CORE_TOOLS
    assert started["state"] == "running"
    assert (ended["state"], ended["exit_code"], ended["stdout"]) == ("failed", 3, "late\n")


@pytest.mark.parametrize("kind", ["http"])
def test_mcporter_tells_that_its_token_is_not_taken(clients: Clients, tmp_path: Path, way: Way) -> None:
    stranger = replace(way, token="another-token-than-the-right-one")

    (server,) = Mcporter.on(clients, tmp_path, stranger).run("list", "--json")["servers"]

    assert server["status"] == "auth"
    assert not server.get("tools")
