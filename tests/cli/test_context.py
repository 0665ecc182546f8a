from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.projects.folders import git, put


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return put(git(tmp_path / "work"), Makefile="test:\n")


def test_a_project_is_shown_compared_and_counted(cli: CommandLine, work: Path) -> None:
    at = ("--cwd", str(work))
    shown = cli.text("context", "show", *at)
    assert shown.startswith(f"project {work}, checked ")
    assert "test: make test  (from Makefile)" in shown
    assert "next:" not in shown
    assert b"no look before" not in cli("context", "diff", *at).stderr
    put(work, go_dot_mod="")
    assert "manifest added: go.mod" in cli.text("context", "diff", *at)
    assert b"nothing has changed since" in cli("context", "diff", *at).stderr
    refreshed = cli("context", "refresh", "--json", *at).stdout
    assert b'"cached": false' in refreshed
    assert "hits" in cli.text("context", "stats")
    figures = cli("context", "stats", "--json").stdout
    assert b'"misses": 3' in figures
    assert b'"kept": 1' in figures
    assert b"1 looked-at folder" in cli("context", "clear").stderr


def test_what_is_warmed_is_known_to_the_next(cli: CommandLine, work: Path) -> None:
    assert b"none asked" in cli("context", "stats").stdout
    assert b": looked at" in cli("context", "warm", str(work)).stderr
    assert b'"looked_at": false' in cli("context", "warm", "--json", str(work)).stdout
    assert b"was known already" in cli("context", "warm", str(work)).stderr
    assert b'"cached": true' in cli("context", "show", "--json", "--cwd", str(work)).stdout
    diff = cli("context", "diff", "--cwd", str(work), "--json").stdout
    assert b'"changes": []' in diff
    assert b'"cleared": 1' in cli("context", "clear", "--json").stdout
    assert b"there was no look before this one" in cli("context", "diff", "--cwd", str(work)).stderr
    cli("context", "show", "--cwd", str(work / "gone"), code=2)


def test_a_folder_that_is_none_is_named_after_the_others_were_warmed(cli: CommandLine, work: Path) -> None:
    told = cli("context", "warm", str(work), str(work / "gone"), code=1).stderr.decode().splitlines()
    assert told == [f"{work}: looked at", f"{work}/gone is not a directory"]
    assert b"was known already" in cli("context", "warm", str(work)).stderr
