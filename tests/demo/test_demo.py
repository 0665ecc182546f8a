from __future__ import annotations

import sys
from pathlib import Path

import pytest

import mcp_tasks.demo
from mcp_tasks.demo import demo, work


def test_the_demo_shows_that_a_command_outlives_a_time_out_and_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(work, "COMMAND_SECONDS", 6.0)

    exit_code = demo(tmp_path)

    told = capsys.readouterr().out
    assert exit_code == 0, told
    assert "was not answered within" in told
    assert "is dead" in told
    assert "exit code 0" in told
    assert "each as it had to be" in told
    assert list(tmp_path.iterdir()) == []


def test_the_demo_names_the_step_that_failed_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(state: Path) -> list[str]:
        return [sys.executable, "-c", "import sys; sys.exit('no server today')", str(state)]

    monkeypatch.setattr(mcp_tasks.demo, "serve_command", broken)

    exit_code = demo(tmp_path)

    told = capsys.readouterr().out
    assert exit_code == 1
    assert "FAILED at the step: 1. A real MCP client starts a long command" in told
    assert "no server today" in told
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_fails_makes_the_demo_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(place: Path) -> work.Work:
        listing = place / "modules.txt"
        script = f"touch {listing}; echo early; exit 5"
        return work.Work(script, listing, place / "compiled", 20, 1, b"")

    monkeypatch.setattr(mcp_tasks.demo, "plan_work", failing)

    exit_code = demo(tmp_path)

    told = capsys.readouterr().out
    assert exit_code == 1
    assert "FAILED at the step" in told
    assert list(tmp_path.iterdir()) == []


def test_the_work_fits_the_machine_and_is_known_before_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "COMMAND_SECONDS", 1e-6)
    small = work.plan_work(tmp_path)
    assert (small.modules, small.passes) == (20, 1)
    assert small.expected.count(b"\n") == 20

    monkeypatch.setattr(work, "COMMAND_SECONDS", 1e4)
    large = work.plan_work(tmp_path)
    assert large.passes > 1
    assert large.expected.count(b"\n") == large.modules * large.passes
    assert large.files_written() == 0
    assert large.processes() == []
