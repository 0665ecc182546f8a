"""The examples for HTTP do what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.clients.install import Clients
from tests.clients.reaching import ROOT, TOKEN, listening

EXAMPLES = ROOT / "examples"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    def run(argv: Sequence[str], origin: str) -> str:
        env = {**os.environ, "MCP_TASKS_TOKEN": TOKEN}
        env |= {"MCP_TASKS_URL": f"{origin}/mcp", "MCP_TASKS_API": f"{origin}/api"}
        done = subprocess.run(
            argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_python_program_leaves_and_comes_back_over_http(run: Callable[..., str], tmp_path: Path) -> None:
    argv = [sys.executable, str(EXAMPLES / "over_http.py")]
    with listening(tmp_path / "state") as origin:
        assert re.match(r"started \w+; run me again", run(argv, origin))
        assert run(argv, origin) == "failed, exit code 3: done\n"
        assert "run me again" in run(argv, origin)


def test_a_typescript_program_leaves_and_comes_back_over_http(
    run: Callable[..., str], clients: Clients, tmp_path: Path
) -> None:
    # Its imports resolve from its own folder, as in the project of whoever takes it over.
    script = shutil.copy(EXAMPLES / "over_http.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(clients.modules / "node_modules")
    argv = [clients.node, str(script)]
    with listening(tmp_path / "state") as origin:
        assert re.match(r"started \w+; run me again", run(argv, origin))
        assert run(argv, origin) == "failed, exit code 3: done\n"


def test_a_shell_script_sees_the_output_as_it_comes_by_curl(run: Callable[..., str], tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is missing")
    with listening(tmp_path / "state") as origin:
        printed = run(["sh", str(EXAMPLES / "over_http.sh")], origin)

    assert re.findall(r'"text":"(step \d)\\n"', printed) == ["step 1", "step 2", "step 3"]
    assert '"stdout":"step 1\\nstep 2\\nstep 3\\n"' in printed
    assert '"cleared":["' in printed.splitlines()[-1]
