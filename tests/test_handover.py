from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.handover import call_steward
from mcp_tasks.settings import Settings


def test_a_steward_works_by_the_settings_of_the_server_that_called_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {
        "dir": tmp_path,
        "store": "sqlite",
        "max_running": 3,
        "queue_limit": 7,
        "journal_limit": 0,
        "key_file": tmp_path / "key",
    }
    around: dict[str, str] = {}

    def started(*_command: object, env: dict[str, str], **_options: object) -> None:
        around.update(env)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", started)
        patch.setenv("MCP_TASKS_SHARE", "a token of somebody")
        call_steward(Settings(**given))
    assert "MCP_TASKS_SHARE" not in around
    with monkeypatch.context() as patch:
        for name, value in around.items():
            patch.setenv(name, value)
        seen = Settings()
    assert {name: getattr(seen, name) for name in given} == given
