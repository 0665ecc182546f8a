"""The command line of MCP Inspector."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.clients.install import Clients
from tests.clients.reaching import Way, surroundings

__all__ = ["Era", "Inspector", "inspector_file"]


Era = Literal["legacy", "modern"]
"""What the Inspector calls the revisions 2025-11-25 and 2026-07-28."""


def inspector_file(folder: Path, way: Way, era: Era = "legacy") -> Path:
    """Write the Inspector's file with one server, `tasks`."""
    config = folder / "inspector.json"
    entry = {**way.entry(http="streamable-http"), "protocolEra": era}
    config.write_text(json.dumps({"mcpServers": {"tasks": entry}}))
    return config


@dataclass(frozen=True)
class Inspector:
    """Each call is a process and a connection of its own; on stdio it starts a server process as well."""

    clients: Clients
    config: Path

    @classmethod
    def on(cls, clients: Clients, folder: Path, way: Way) -> Inspector:
        return cls(clients, inspector_file(folder, way))

    def start(self, *options: str) -> subprocess.Popen[str]:
        argv = [self.clients.node, str(self.clients.inspector), "--cli", "--config", str(self.config)]
        argv += ["--server", "tasks", "--format", "json", "--quiet", *options]
        env = surroundings(self.clients)
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
