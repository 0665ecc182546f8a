from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcp_tasks.projects.discovery import discover
from mcp_tasks.projects.ignoring import Ignoring
from tests.projects.folders import git, put

MANIFESTS = ("package.json", "composer.json", "deno.json", "pyproject.toml", "Cargo.toml")
TEXTS = (
    "Makefile",
    "justfile",
    "Taskfile.yml",
    "Rakefile",
    "CMakeLists.txt",
    "tox.ini",
    "pubspec.yaml",
    "setup.cfg",
)


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff\xfe\0", b"[" * 200_000, b'{"a":' * 100_000, b"a = " + b"[" * 50_000, b"5"],
    ids=["empty", "cut", "list", "bytes", "deep", "nested", "toml", "number"],
)
def test_a_broken_file_is_named_and_does_no_more_harm(tmp_path: Path, name: str, content: bytes) -> None:
    git(tmp_path)
    put(tmp_path, go_dot_mod="module x")
    (tmp_path / name).write_bytes(content)
    found = discover(str(tmp_path))
    assert "go test ./..." in [each.command for each in found.test]
    if not (name.endswith("toml") and content in (b"", b"[1]")):
        assert any(problem.startswith(name) for problem in found.problems)


@pytest.mark.parametrize("name", [*MANIFESTS, *TEXTS])
def test_a_huge_file_is_not_read(tmp_path: Path, name: str) -> None:
    git(tmp_path)
    with open(tmp_path / name, "wb") as file:
        file.truncate(1 << 40)
    found = discover(str(tmp_path))
    assert any(problem.startswith(f"{name} is too large") for problem in found.problems)


@pytest.mark.timeout(60)  # a pattern that reads again and again would take minutes
@pytest.mark.parametrize("name", [*MANIFESTS, *TEXTS])
def test_a_file_of_hostile_lines_is_read_in_time(tmp_path: Path, name: str) -> None:
    git(tmp_path)
    for line in ("a " * 200, "a" * 400, " " * 400, "task " * 100, "[" * 300, "a:" * 200, "\t" * 400):
        (tmp_path / name).write_text(f"{line}\n" * (1_000_000 // (len(line) + 1)))
        discover(str(tmp_path))


def test_pipes_devices_and_folders_in_place_of_files_are_not_opened_for_long(tmp_path: Path) -> None:
    git(tmp_path)
    os.mkfifo(tmp_path / "package.json")
    (tmp_path / "Makefile").mkdir()
    os.mkfifo(tmp_path / ".gitignore")
    found = discover(str(tmp_path))
    assert found.manifests == ()
    assert {problem.split(" ")[0] for problem in found.problems} == {"package.json", "Makefile", ".gitignore"}


def test_what_may_not_be_read_is_a_problem(tmp_path: Path) -> None:
    git(tmp_path)
    loop = tmp_path / "Makefile"
    loop.symlink_to(loop)
    assert any("Makefile cannot be read" in problem for problem in discover(str(tmp_path)).problems)


def test_a_tree_that_never_ends_is_counted_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_tasks.projects.languages._MOST_ENTRIES", 500)
    git(tmp_path)
    for folder in range(20):
        place = tmp_path / f"d{folder:02}"
        place.mkdir()
        for number in range(50):
            (place / f"{number}.py").touch()
    found = discover(str(tmp_path))
    [python] = found.languages
    assert 400 < python.files <= 500
    assert any("were counted" in problem for problem in found.problems)
    late = discover(str(tmp_path), seconds=0.0)
    assert any("for want of time" in problem for problem in late.problems)


def test_a_folder_of_thousands_is_not_listed_to_its_end(tmp_path: Path) -> None:
    git(tmp_path)
    for number in range(5_100):
        (tmp_path / f"{number:05}").touch()
    found = discover(str(tmp_path))
    assert "the folder has too many entries to look at all" in found.problems


def test_names_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    git(tmp_path)
    odd = os.path.join(os.fsencode(tmp_path), b"\xff\x1b[31m")
    os.mkdir(odd)
    with open(os.path.join(odd, b"Makefile"), "w") as file:
        file.write("test:\n")
    found = discover(str(tmp_path))
    [test] = found.test
    assert (test.source, test.folder) == (r"\xff\x1b[31m/Makefile", r"\xff\x1b[31m")
    assert discover(os.fsdecode(odd)).root == str(tmp_path)


def test_a_folder_that_is_gone_is_a_problem(tmp_path: Path) -> None:
    found = discover(str(tmp_path / "gone"))
    assert "the folder cannot be listed: No such file or directory" in found.problems


@pytest.mark.timeout(60)
def test_patterns_that_would_hold_others_for_ever_hold_nobody() -> None:
    ignoring = Ignoring("\n".join(["a*" * 60 + "b"] * 500))
    assert not ignoring.ignores("a" * 4_000, is_folder=False)


@pytest.mark.parametrize(
    ("patterns", "path", "is_folder", "ignored"),
    [
        ("*.o", "a/b.o", False, True),
        ("/a", "b/a", False, False),
        ("a/", "a", False, False),
        ("a/", "x/a", True, True),
        ("a/**/b", "a/x/y/b", False, True),
        ("**/b", "x/b", False, True),
        ("a/**", "a/x", False, True),
        ("a?c", "abc", False, True),
        ("[ab].c", "b.c", False, True),
        ("[!ab].c", "b.c", False, False),
        ("*.c\n!b.c", "b.c", False, False),
        ("!b.c\n*.c", "b.c", False, True),
        ("\\!a", "!a", False, True),
        ("# a", "# a", False, False),
        ("[z-a]", "z", False, False),
        ("a[", "a[", False, True),
    ],
)
def test_ignore_patterns_mean_what_git_means(
    patterns: str, path: str, is_folder: bool, ignored: bool
) -> None:
    assert Ignoring(patterns).ignores(path, is_folder=is_folder) is ignored
