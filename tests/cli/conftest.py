from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SECONDS = 30


@dataclass
class CommandLine:
    """Runs `mcp-tasks` as a person or a script does, on a state directory of its own."""

    place: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = {
            **os.environ,
            "MCP_TASKS_DIR": str(self.place / "state"),
            "XDG_CONFIG_HOME": str(self.place / "config"),
            "HOME": str(self.place),
            **self.env,
        }

    def arguments(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "mcp_tasks", *arguments]

    def __call__(
        self, *arguments: str, code: int = 0, stdin: bytes = b"", **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command and insist on its exit code."""
        done = subprocess.run(
            self.arguments(*arguments),
            input=stdin,
            capture_output=True,
            env={**self.env, **env},
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert b"Traceback" not in done.stderr
        return done

    def text(self, *arguments: str, code: int = 0) -> str:
        return self(*arguments, code=code).stdout.decode()

    def json(self, *arguments: str, code: int = 0) -> Any:
        command, *rest = arguments
        return json.loads(self(command, "--json", *rest, code=code).stdout)

    def run(self, *arguments: str) -> str:
        """Start a task and return its id."""
        task_id = self.text("run", *arguments).strip()
        assert len(task_id) == 36
        return task_id

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs beside the test, and is ended with it."""
        with subprocess.Popen(
            self.arguments(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)

    def on_terminal(self, *arguments: str, code: int = 0) -> bytes:
        """Run a command with stdin, stdout and stderr on a terminal, and return what came there."""
        ours, theirs = pty.openpty()
        try:
            process = subprocess.Popen(
                self.arguments(*arguments),
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env={**self.env, "TERM": "xterm", "COLUMNS": "100"},
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        shown = bytearray()
        try:
            while data := _read(ours):
                shown += data
            assert process.wait(SECONDS) == code, bytes(shown)
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        return bytes(shown)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: nobody holds the other end any more
        return b""


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[CommandLine]:
    """The command line; what still runs at the end of the test is cancelled."""
    line = CommandLine(tmp_path)
    yield line
    if not (tmp_path / "state" / "store.json").exists():
        return
    for session in (tmp_path / "state" / "sessions").glob("*/*/"):
        for task in line.json("ps", "--state", "active", "--session", session.name)["tasks"]:
            line("cancel", task["task_id"], "--grace", "0.1")
