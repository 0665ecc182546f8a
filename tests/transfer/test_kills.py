from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_a_kill_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    points = "400" if os.environ.get("MCP_TASKS_CAMPAIGN") == "full" else "12"
    done = subprocess.run(
        [sys.executable, "-m", "tests.transfer.crash_rig", str(tmp_path), points],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("deaths") == 5
