"""Claude Code, Gemini CLI and opencode, set up with `mcp-tasks config`, tell that they are connected."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.clients.install import Clients, Programs
from tests.clients.reaching import Way, surroundings

pytestmark = pytest.mark.large

AGENTS = ("claude-code", "gemini", "opencode")


@dataclass(frozen=True)
class Agent:
    """One of them, in a home and a project folder of its own.

    Attributes:
        name: As `mcp-tasks config` knows it.
        program: The start of its command line.
        place: Its home, which is its project folder as well.
        env: Its environment.
    """

    name: str
    program: Sequence[str]
    place: Path
    env: dict[str, str]

    @classmethod
    def of(cls, name: str, clients: Clients, programs: Programs, place: Path, way: Way) -> Agent:
        program = {
            "claude-code": [str(programs.claude)],
            "gemini": [clients.node, str(programs.gemini)],
            "opencode": [str(programs.opencode)],
        }[name]
        env = surroundings(clients, way)
        env |= {"HOME": str(place), "MCP_TASKS_DIR": str(way.state), "NO_COLOR": "1"}
        env |= {"TMPDIR": str(place)}
        # Nothing here may look for a newer version of itself, or tell its maker.
        env |= {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
        env |= {"OPENCODE_DISABLE_MODELS_FETCH": "1", "GEMINI_CLI_TRUST_WORKSPACE": "true"}
        place.mkdir()
        return cls(name, program, place, env)

    def run(self, argv: Sequence[str]) -> str:
        """What a command prints on both streams. Fails where the command does."""
        done = subprocess.run(
            argv,
            env=self.env,
            cwd=self.place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def set_up(self, *options: str) -> None:
        """Do what `mcp-tasks config` says."""
        self.run([sys.executable, "-m", "mcp_tasks", "config", self.name, "--write", *options])
        if self.name == "claude-code":
            # It asks its user once whether he trusts the file of a project; this is his answer.
            answer = self.place / ".claude" / "settings.local.json"
            answer.parent.mkdir()
            answer.write_text(json.dumps({"enableAllProjectMcpServers": True}))

    def listed(self) -> str:
        """What it says of its servers, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.run([*self.program, "mcp", "list"]))


def is_connected(listed: str) -> bool:
    return bool(re.search(r"^.*mcp-tasks\b.*\bconnected\b", listed, re.IGNORECASE | re.MULTILINE))


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("kind", ["stdio", "http"])
def test_an_agent_that_was_set_up_by_config_is_connected(
    clients: Clients, programs: Programs, name: str, way: Way, tmp_path: Path
) -> None:
    agent = Agent.of(name, clients, programs, tmp_path / "home", way)
    agent.set_up(*([] if way.kind == "stdio" else ["--url", way.url]))

    assert is_connected(listed := agent.listed()), listed


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("kind", ["http"])
def test_an_agent_with_another_token_is_not_connected(
    clients: Clients, programs: Programs, name: str, way: Way, tmp_path: Path
) -> None:
    stranger = replace(way, token="another-token-than-the-right-one")
    agent = Agent.of(name, clients, programs, tmp_path / "home", stranger)
    agent.set_up("--url", way.url)

    listed = agent.listed()

    assert "mcp-tasks" in listed
    assert not is_connected(listed), listed


def test_claude_code_is_connected_by_the_command_that_config_prints(
    clients: Clients, programs: Programs, way: Way, tmp_path: Path
) -> None:
    agent = Agent.of("claude-code", clients, programs, tmp_path / "home", way)
    printed = agent.run([sys.executable, "-m", "mcp_tasks", "config", "claude-code"])
    (command,) = re.findall(r"^claude (mcp add-json .*)$", printed, re.MULTILINE)

    agent.run([*agent.program, *shlex.split(command)])

    assert is_connected(listed := agent.listed()), listed
