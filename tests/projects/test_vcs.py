from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from mcp_tasks.projects import Project, Vcs
from mcp_tasks.projects.discovery import discover
from mcp_tasks.projects.vcs import without_user
from tests.projects.folders import COMMIT, OTHER, git, put


def vcs_of(folder: Path) -> Vcs:
    vcs = discover(str(folder)).vcs
    assert vcs is not None
    return vcs


def test_git_tells_branch_commit_and_remote_of_the_repository_that_a_folder_is_in(tmp_path: Path) -> None:
    config = '[core]\n\tbare = false\n[remote "origin"]\n\turl = https://example.org/a/b.git\n'
    git(tmp_path, branch="feature/x", config=config)
    (tmp_path / "a/b").mkdir(parents=True)
    found = discover(str(tmp_path / "a/b"))
    assert (found.cwd, found.root) == (str(tmp_path / "a/b"), str(tmp_path))
    assert found.vcs == Vcs("git", "feature/x", COMMIT, "https://example.org/a/b.git")
    assert found.problems == ()


def test_what_git_itself_writes_is_read_worktrees_and_packed_refs_too(tmp_path: Path) -> None:
    main, tree = tmp_path / "main", tmp_path / "tree"
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{
            f"GIT_{who}_{what}": "x@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, env=env, check=True)
        return done.stdout.strip()

    run("init", "-q", "-b", "trunk", str(main))
    assert vcs_of(main) == Vcs("git", "trunk")  # no commit yet
    run("-C", str(main), "commit", "-q", "--allow-empty", "-m", "one")
    run("-C", str(main), "remote", "add", "origin", "ssh://git@example.org/x.git")
    commit = run("-C", str(main), "rev-parse", "HEAD")
    expected = Vcs("git", "trunk", commit, "ssh://git@example.org/x.git")
    assert vcs_of(main) == expected
    run("-C", str(main), "worktree", "add", "-q", "-b", "side", str(tree))
    assert vcs_of(tree) == Vcs("git", "side", commit, expected.remote)
    run("-C", str(main), "pack-refs", "--all")
    assert vcs_of(main) == expected
    assert vcs_of(tree) == Vcs("git", "side", commit, expected.remote)
    run("-C", str(tree), "checkout", "-q", "--detach")
    assert vcs_of(tree) == Vcs("git", None, commit, expected.remote)


def test_the_remote_of_the_branch_comes_before_origin_and_any_before_none(tmp_path: Path) -> None:
    config = '[remote "up"]\nurl = "https://up.org/x" ; ours\n[remote "origin"]\nurl = https://o.org/x # c\n'
    git(tmp_path, config=config)
    assert vcs_of(tmp_path).remote == "https://o.org/x"
    git(tmp_path, config=f'{config}[branch "main"]\n\tremote = up\n')
    assert vcs_of(tmp_path).remote == "https://up.org/x"
    git(tmp_path, config='[remote "other"] url = https://other.org\n')
    assert vcs_of(tmp_path).remote == "https://other.org"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://user:hunter2@example.org/a.git", "https://example.org/a.git"),
        ("https://ghp_0123456789012345678901@example.org/a", "https://example.org/a"),
        ("https://example.org:8443/a?token=hunter2#hunter2", "https://example.org:8443/a"),
        ("ssh://git@example.org:22/a", "ssh://git@example.org:22/a"),
        ("ssh://me:hunter2@example.org/a", "ssh://example.org/a"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("/srv/git/a.git", "/srv/git/a.git"),
        ("https://[hunter2@x/a", "[redacted]"),
    ],
)
def test_a_remote_is_told_without_what_may_be_a_secret(url: str, told: str) -> None:
    assert without_user(url) == told


def test_a_pointer_to_a_repository_elsewhere_is_followed_only_to_what_looks_like_one(tmp_path: Path) -> None:
    git(tmp_path / "away")
    work = put(tmp_path / "work", _dot_git="gitdir: ../away/.git\n")
    assert vcs_of(work).commit == COMMIT
    for pointer in ("gitdir: /etc\n", "gitdir: ../missing\n", "gitdir: a\0b\n", "nonsense", "x" * 9_000):
        put(work, _dot_git=pointer)
        found = discover(str(work))
        assert found.vcs == Vcs("git")
        assert len(found.problems) >= 1


@pytest.mark.parametrize(
    "head",
    ["ref: refs/heads/../../../etc/passwd\n", "ref: refs/heads/.invalid\n", "nonsense\n", "", "ref:\n"],
)
def test_a_head_that_cannot_be_one_is_a_problem_and_no_more(tmp_path: Path, head: str) -> None:
    git(tmp_path)
    (tmp_path / ".git/HEAD").write_text(head)
    found = discover(str(tmp_path))
    assert found.vcs == Vcs("git")
    assert len(found.problems) == 1


def test_links_are_not_followed_out_of_the_project(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside", package_dot_json='{"scripts": {"test": "x"}}', secret_dot_py="")
    git(tmp_path / "other", commit=OTHER)
    work = tmp_path / "work"
    work.mkdir()
    (work / ".git").symlink_to(tmp_path / "other/.git")
    (work / "package.json").symlink_to(outside / "package.json")
    (work / "src").symlink_to(outside)
    found = discover(str(work))
    assert found.vcs == Vcs("git")
    assert (found.test, found.manifests, found.languages) == ((), (), ())
    assert "package.json cannot be read: it is a link, or cannot be opened" in found.problems
    git(tmp_path / "inner")
    (tmp_path / "inner/.git/refs/heads/main").unlink()
    (tmp_path / "inner/.git/refs/heads/main").symlink_to(tmp_path / "other/.git/refs/heads/main")
    assert vcs_of(tmp_path / "inner").commit is None


def test_a_folder_called_git_that_is_no_repository_is_passed_over(tmp_path: Path) -> None:
    git(tmp_path)
    (tmp_path / "in/.git").mkdir(parents=True)
    assert discover(str(tmp_path / "in")).root == str(tmp_path)


def test_mercurial_tells_branch_commit_and_default_path(tmp_path: Path) -> None:
    put(
        tmp_path,
        _dot_hg__branch="stable\n",
        _dot_hg__hgrc="[ui]\nx = 1\n[paths]\ndefault = https://me:pw@hg.org/x\n[web]\ndefault = no\n",
    )
    (tmp_path / ".hg/dirstate").write_bytes(bytes.fromhex(COMMIT) + b"\0" * 30)
    assert vcs_of(tmp_path) == Vcs("hg", "stable", COMMIT, "https://hg.org/x")
    (tmp_path / ".hg/dirstate").write_bytes(b"dirstate-v2\n" + bytes.fromhex(OTHER) + b"\0" * 40)
    put(tmp_path, _dot_hg__bookmarks_dot_current="here")
    assert vcs_of(tmp_path).commit == OTHER
    assert vcs_of(tmp_path).branch == "here"
    (tmp_path / ".hg/dirstate").write_bytes(b"\0" * 40)
    assert vcs_of(tmp_path).commit is None


def subversion(folder: Path, place: str = "proj/branches/two/x", root: object = "https://svn.org/r") -> Path:
    (folder / ".svn").mkdir(parents=True, exist_ok=True)
    path = folder / ".svn/wc.db"
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE REPOSITORY (id INTEGER, root);"
        "CREATE TABLE NODES (local_relpath, op_depth, repos_id, repos_path, revision)"
    )
    database.execute("INSERT INTO REPOSITORY VALUES (1, ?)", (root,))
    database.execute("INSERT INTO NODES VALUES ('', 0, 1, ?, 17)", (place,))
    database.commit()
    database.close()
    return folder


def test_subversion_tells_branch_revision_and_repository(tmp_path: Path) -> None:
    subversion(tmp_path, root="https://me:pw@svn.org/r")
    assert vcs_of(tmp_path) == Vcs("svn", "two", "r17", "https://svn.org/r")
    assert vcs_of(subversion(tmp_path, place="a/trunk")).branch == "trunk"
    assert vcs_of(subversion(tmp_path, place="a")).branch is None
    assert vcs_of(subversion(tmp_path, root=5)) == Vcs("svn")
    assert sorted(os.listdir(tmp_path / ".svn")) == ["wc.db"]


def test_a_database_that_is_none_or_never_answers_is_a_problem(tmp_path: Path) -> None:
    put(tmp_path, _dot_svn__wc_dot_db="no database" * 200)
    assert discover(str(tmp_path)).problems == (".svn/wc.db is not valid",)
    (tmp_path / ".svn/wc.db").unlink()
    assert discover(str(tmp_path)).problems == (".svn/wc.db is missing",)
    database = sqlite3.connect(tmp_path / ".svn/wc.db")
    database.executescript(
        "CREATE VIEW REPOSITORY AS WITH RECURSIVE n(id) AS (SELECT 2 UNION ALL SELECT id + 1 FROM n)"
        " SELECT id, 'x' AS root FROM n WHERE id < 0;"
        "CREATE TABLE NODES (local_relpath, op_depth, repos_id, repos_path, revision);"
        "INSERT INTO NODES VALUES ('', 0, 1, 'x', 1)"
    )
    database.close()
    assert discover(str(tmp_path)).problems == (".svn/wc.db is not valid",)


def test_jujutsu_is_known_beside_git_and_by_itself(tmp_path: Path) -> None:
    git(tmp_path / "both", config='[remote "origin"]\nurl = https://x.org/y\n')
    (tmp_path / "both/.jj").mkdir()
    assert vcs_of(tmp_path / "both") == Vcs("jj", "main", COMMIT, "https://x.org/y")
    store = tmp_path / "alone/.jj/repo/store"
    put(store, git_target="git", git__HEAD=f"{COMMIT}\n", git__config='[remote "o"]\nurl = /srv/y\n')
    assert vcs_of(tmp_path / "alone") == Vcs("jj", remote="/srv/y")
    put(store, git_target="/etc")
    assert vcs_of(tmp_path / "alone") == Vcs("jj")


def test_without_version_control_the_nearest_manifest_upwards_makes_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(folder: Path) -> Project:
        folder.mkdir(parents=True, exist_ok=True)
        return discover(str(folder))

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    put(tmp_path / "home/app", Makefile="test:\n\ttrue\n")
    assert found(tmp_path / "home/app/a/b").root == str(tmp_path / "home/app")
    assert found(tmp_path / "home/app/a/b").vcs is None
    # The home folder is nobody's project, whatever lies in it.
    put(tmp_path / "home", package_dot_json="{}")
    assert found(tmp_path / "home/else").root == str(tmp_path / "home/else")
