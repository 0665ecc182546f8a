"""How bytes reach the disk: in which order, and what is never followed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.removal import remove_tree
from tests.stores.faulty_os import fail, faulty


def _recorded(act: Callable[[], object]) -> list[str]:
    calls: list[str] = []
    opened: dict[int, str] = {}

    def note(name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        answer = real(*args, **kwargs)
        if name == "open":
            opened[answer] = "folder" if args[1] & getattr(os, "O_DIRECTORY", 0) else "file"
        elif name == "fsync":
            calls.append(f"fsync {opened[args[0]]}")
        elif name in ("write", "replace", "link"):
            calls.append(name)
        return answer

    with faulty(0, note):
        act()
    return calls


def test_a_file_is_synced_before_it_gets_its_name_and_the_name_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert _recorded(lambda: durable.write_durably(path, b"1")) == [
        "write",
        "fsync file",
        "replace",
        "fsync folder",
    ]
    assert _recorded(lambda: durable.create_exclusively(tmp_path / "new", b"2")) == [
        "write",
        "fsync file",
        "link",
        "fsync folder",
    ]
    assert (path.read_bytes(), (tmp_path / "new").read_bytes()) == (b"1", b"2")
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_exists_wins_over_an_exclusive_creation(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert durable.create_exclusively(path, b"first")
    assert not durable.create_exclusively(path, b"second")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert not durable.create_exclusively(tmp_path / "link", b"third")
    assert path.read_bytes() == b"first"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "link"]


def test_a_write_replaces_a_link_and_leaves_its_target(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / ".link.tmp").symlink_to(tmp_path / "target")
    durable.write_durably(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert durable.read_private(tmp_path / "link") == b"new"


@pytest.mark.parametrize("previous", [None, b"old"])
def test_when_the_last_sync_fails_the_old_state_is_back(tmp_path: Path, previous: bytes | None) -> None:
    path = tmp_path / "file"
    if previous is not None:
        path.write_bytes(previous)
    at = 0
    hits: list[str] = []
    while True:
        at += 1
        with faulty(at, fail(5)) as stand_in:
            try:
                durable.write_durably(path, b"new", previous=previous)
            except StoreUnavailable:
                hits.append(stand_in.hit)
                assert (path.read_bytes() if path.exists() else None) == previous
                assert [entry.name for entry in tmp_path.iterdir()] == ["file"] * (previous is not None)
            else:
                break
    assert hits.count("fsync") == 2
    assert path.read_bytes() == b"new"


def test_an_error_names_what_happened_but_no_path(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        durable.write_durably(tmp_path / "missing" / "file", b"")
    assert refused.value.message == "writing a record failed: ENOENT (No such file or directory)"
    with faulty(0, fail(28)), pytest.raises(StoreUnavailable, match="ENOSPC") as refused:
        durable.write_durably(tmp_path / "file", b"")
    assert "free some disk space" in refused.value.hint
    with faulty(0, fail(5)), pytest.raises(StoreUnavailable, match="EIO"):
        durable.fsync_folder(tmp_path)


def test_a_private_folder_is_made_kept_and_narrowed(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "folder"
    assert durable.make_private_folder(path, told.append)
    assert not durable.make_private_folder(path, told.append)
    assert told == []
    path.chmod(0o755)
    assert not durable.make_private_folder(path, told.append)
    path.chmod(0o070)
    assert not durable.make_private_folder(path, told.append)
    assert path.stat().st_mode & 0o777 == 0o700
    assert [sentence[-14:] for sentence in told] == ["0755); now 0700"[-14:], "0070); now 0700"[-14:]]


def test_a_link_a_file_or_anothers_folder_is_no_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for name in ("link", "dangling", "file"):
        with pytest.raises(durable.UnsafeFile, match=name):
            durable.make_private_folder(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()
    if sys.platform != "win32":
        another = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: another)
        with pytest.raises(durable.UnsafeFile, match="another user"):
            durable.make_private_folder(tmp_path / "real")


def test_only_a_regular_file_of_ours_within_the_size_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    path.chmod(0o644)
    told: list[str] = []
    assert durable.read_private(path, 5, told.append) == b"12345"
    assert len(told) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(durable.UnsafeFile, match="larger"):
        durable.read_private(path, 4)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "."):
        with pytest.raises(durable.UnsafeFile):
            durable.read_private(tmp_path / name)
    for missing in (tmp_path / "missing", path / "below"):
        with pytest.raises(FileNotFoundError):
            durable.read_private(missing)
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    with pytest.raises(durable.UnsafeFile, match="another user"):
        durable.read_private(path)


def test_a_file_that_grows_while_it_is_read_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")

    def grow(name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "read":
            with path.open("ab") as file:
                file.write(b"x" * 100)
        return real(*args, **kwargs)

    with faulty(0, grow), pytest.raises(durable.UnsafeFile, match="grew"):
        durable.read_private(path, 1000)


def test_a_tree_is_removed_with_its_links_and_not_with_their_targets(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"x")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_bytes(b"x" * 10)
    (tree / "file").write_bytes(b"x" * 5)
    (tree / "a" / "link").symlink_to(tmp_path / "precious")
    os.mkfifo(tree / "fifo")
    assert remove_tree(tree) == 15
    assert remove_tree(tree) == 0
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    assert remove_tree(tmp_path / "link") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert remove_tree(tmp_path / "precious" / "file") == 1
