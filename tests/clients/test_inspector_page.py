"""The web page of MCP Inspector in a headless Chromium, against the real server, over each transport."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients.inspector import Era, inspector_file
from tests.clients.install import Clients, Programs
from tests.clients.reaching import Way, surroundings
from tests.waiting import wait_until

pytestmark = pytest.mark.large

SCRIPT = Path(__file__).with_name("inspector_page.mjs")


def free_ports(count: int) -> list[str]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(listener.getsockname()[1]) for listener in taken]
    for listener in taken:
        listener.close()
    return ports


@contextmanager
def page_of(clients: Clients, place: Path, way: Way, era: Era) -> Iterator[str]:
    """Serve the page, and give its URL, which has the page's own token in it."""
    page, sandbox = free_ports(2)
    env = surroundings(clients) | {"HOME": str(place), "TMPDIR": str(place)}
    env |= {"CLIENT_PORT": page, "MCP_SANDBOX_PORT": sandbox, "MCP_AUTO_OPEN_ENABLED": "false"}
    config = inspector_file(place, way, era)
    argv = [clients.node, str(clients.inspector), "--web", "--config", str(config)]
    log = place / "inspector.log"
    with log.open("wb") as printed:
        server = subprocess.Popen(
            argv, env=env, cwd=place, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed
        )

    def url() -> str | None:
        assert server.poll() is None, log.read_text()
        found = re.search(rf"http://127\.0\.0\.1:{page}\S+", log.read_text())
        return found and found[0]

    try:
        yield wait_until(url, "the Inspector serves its page", 30) or ""
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)


@pytest.mark.parametrize(
    ("kind", "era"),
    [("stdio", "legacy"), ("http", "legacy"), ("sse", "legacy"), ("stdio", "modern"), ("http", "modern")],
)
def test_a_person_runs_a_command_in_the_inspectors_page(
    clients: Clients, programs: Programs, way: Way, era: Era, tmp_path: Path
) -> None:
    screenshot = tmp_path / f"inspector-{way.kind}-{era}.png"
    # In the older revision a call has to wait for the end; in the newer one the answer is a native task.
    wait_ms = ["20000"] if era == "legacy" else []
    # The browser's sockets want a short path.
    with page_of(clients, tmp_path, way, era) as url, tempfile.TemporaryDirectory(dir="/tmp") as short:
        env = surroundings(clients) | {"PLAYWRIGHT_DIR": str(programs.modules), "TMPDIR": short}
        done = subprocess.run(
            [clients.node, str(SCRIPT), programs.browser, url, str(screenshot), *wait_ms],
            env=env | {"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    if kept := os.environ.get("SCREENSHOTS"):
        shutil.copy(screenshot, kept)
    seen = json.loads(done.stdout)

    assert "failed" not in seen, f"{seen['failed']}\n{seen['page']}"
    assert seen["heading"] == "Tools (9)"
    assert "mcp_tasks" in seen["connection"]
    assert "failed (exited, exit code 3)" in seen["results"]
    assert "seen in the page" in seen["results"]
    assert seen["errors"] == []
    if era == "modern":
        assert '"statusMessage": "failed, exit code 3' in seen["page"]  # in its list of native tasks
    assert screenshot.stat().st_size > 10_000
