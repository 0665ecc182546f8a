"""A memory store's folder goes with its server, and with the next one where the server was killed."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from mcp_tasks.stores.memory.temporary import TemporaryStore, remove_stale_folders
from tests.stores.records import pending

LONG_AGO = (1_700_000_000, 1_700_000_000)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left_by_a_killed_one(place: Path, name: str = "mcp-tasks-memory-left") -> Path:
    folder = place / name
    (folder / "slots").mkdir(parents=True)
    (folder / "slots" / "1").touch()
    (folder / "lock").touch()
    return folder


def test_a_store_takes_its_folder_along_when_it_is_closed(place: Path) -> None:
    store = TemporaryStore()
    store.make_run_folder(pending().key, 1)
    [folder] = place.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    store.close()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("at", ["lock", "slots"])
def test_a_store_that_cannot_be_made_leaves_nothing(
    at: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if at == "lock":
        monkeypatch.setattr("mcp_tasks.stores.memory.temporary.fcntl.flock", fail)
    else:
        monkeypatch.setattr("mcp_tasks.stores.memory.store.durable.make_private_folder", fail)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No locks"):
        TemporaryStore()
    assert list(place.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_a_killed_server_left_goes_and_what_is_used_or_foreign_stays(place: Path) -> None:
    store = TemporaryStore()
    left, running = left_by_a_killed_one(place), left_by_a_killed_one(place, "mcp-tasks-memory-running")
    (place / "mcp-tasks-memory-file").touch()
    (place / "mcp-tasks-memory-link").symlink_to(left_by_a_killed_one(place, "elsewhere"))
    with (running / "slots" / "1").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        remove_stale_folders()
        assert not left.exists()
        assert running.exists(), "a command of it is running still"
    assert (place / "elsewhere" / "lock").exists()
    assert (place / "mcp-tasks-memory-file").exists()
    remove_stale_folders()
    assert not running.exists()
    store.create(pending())
    store.close()


def test_a_folder_that_is_not_locked_yet_stays_for_a_minute(place: Path) -> None:
    new = place / "mcp-tasks-memory-new"
    new.mkdir()
    remove_stale_folders()
    assert new.exists()
    os.utime(new, LONG_AGO)
    remove_stale_folders()
    assert not new.exists()
