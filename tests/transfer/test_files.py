from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.transfer import files


def copied(tmp_path: Path, data: bytes) -> bytes:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    os.utime(source, ns=(1, 2))
    assert files.copy_file(str(source), str(target)) == len(data)
    assert target.stat().st_mtime_ns == 2
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]
    return target.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 4096, 3_000_001])
def test_a_copy_has_the_bytes_of_its_original(size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    assert copied(tmp_path, data) == data


def test_it_is_so_on_file_systems_that_can_neither_share_blocks_nor_tell_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EINVAL, "not here")

    real = os.pwrite
    monkeypatch.setattr(os, "lseek", refuse)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(files, "_CLONE", refuse)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:70_000], at))
    data = os.urandom(3_000_001)

    assert copied(tmp_path, data) == data


def test_shared_blocks_are_a_copy_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def clone(copy: int, _request: int, origin: int) -> int:
        return os.write(copy, os.pread(origin, 100, 0))

    monkeypatch.setattr(files, "_CLONE", clone)

    assert copied(tmp_path, b"cloned") == b"cloned"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_copy_that_fails_leaves_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "_CLONE", fail)
    monkeypatch.setattr(os, "copy_file_range", fail)
    (tmp_path / "source").write_bytes(b"data")
    with pytest.raises(OSError, match=os.strerror(number)):
        files.copy_file(str(tmp_path / "source"), str(tmp_path / "target"))

    assert os.listdir(tmp_path) == ["source"]


def test_a_file_that_is_cut_shorter_meanwhile_is_copied_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(b"data")
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)

    assert files.copy_file(str(tmp_path / "source"), str(tmp_path / "target")) == 4
    assert (tmp_path / "target").read_bytes() == b"\0\0\0\0"


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    run.mkdir()
    copy.mkdir()
    os.mkfifo(run / "alive")
    os.symlink("/etc/passwd", run / "stdout")
    (run / ".hidden").write_bytes(b"x")
    (run / "stderr").write_bytes(b"kept")

    assert files.copy_run(str(run), str(copy)) == files.Copied(1, 4)
    assert files.copy_run(str(run), str(copy)) == files.Copied()
    assert os.listdir(copy) == ["stderr"]
    with pytest.raises(ValueError, match="regular"):
        files.copy_file(str(run / "alive"), str(copy / "alive"))
    assert files.run_files(str(tmp_path / "nowhere")) == []


def test_a_file_that_goes_meanwhile_is_left_out_unless_its_target_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    run.mkdir()
    copy.mkdir()
    monkeypatch.setattr(files, "run_files", lambda _folder: ["stdout"])

    assert files.copy_run(str(run), str(copy)) == files.Copied()
    copy.rmdir()
    with pytest.raises(StoreUnavailable):
        files.copy_run(str(run), str(copy))


def test_something_odd_in_a_run_cannot_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    run.mkdir()
    copy.mkdir()
    os.mkfifo(run / "stdout")
    monkeypatch.setattr(files, "run_files", lambda _folder: ["stdout"])

    with pytest.raises(StoreUnavailable, match="regular"):
        files.copy_run(str(run), str(copy))


def test_the_digest_of_a_beginning(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdef")

    assert files.digest_of(str(tmp_path / "file"), 3)[0] == 3
    assert files.digest_of(str(tmp_path / "file"), 3) != files.digest_of(str(tmp_path / "file"))
