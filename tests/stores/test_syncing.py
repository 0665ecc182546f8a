"""What is copied as a whole waits for the disk once, and everything else each time."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from mcp_tasks.ports import Store
from mcp_tasks.stores.disk import durable, syncing
from tests.stores.records import finished, running


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The waits for the disk, in their order."""
    found: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _fd: found.append("one"))

    def syncfs(_fd: int) -> int:
        found.append("all")
        return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_kwargs: SimpleNamespace(syncfs=syncfs))
    return found


def test_many_writes_wait_once_and_the_next_one_waits_again(tmp_path: Path, waits: list[str]) -> None:
    with syncing.synced_once(tmp_path):
        for number in range(9):
            durable.write_durably(tmp_path / str(number), b"x")
        with syncing.synced_once(tmp_path):
            durable.create_exclusively(tmp_path / "another", b"x")
        assert syncing.is_put_off()
        assert waits == []
    assert waits == ["all"]
    durable.write_durably(tmp_path / "last", b"x")
    assert waits == ["all", "one", "one"]


def test_what_another_thread_writes_meanwhile_waits_as_ever(tmp_path: Path, waits: list[str]) -> None:
    with syncing.synced_once(tmp_path):
        other = threading.Thread(target=durable.write_durably, args=(tmp_path / "other", b"x"))
        other.start()
        other.join()
        assert waits == ["one", "one"]


def test_what_failed_is_not_waited_for_and_puts_nothing_off(tmp_path: Path, waits: list[str]) -> None:
    with pytest.raises(ValueError, match="oops"), syncing.synced_once(tmp_path):
        raise ValueError("oops")
    assert waits == []
    assert not syncing.is_put_off()


def test_a_disk_that_refuses_in_the_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(syncfs=lambda _fd: -1)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_kwargs: library)
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EIO)
    with pytest.raises(OSError, match="Input/output"), syncing.synced_once(tmp_path):
        pass


def test_a_kernel_that_cannot_sync_one_file_system_syncs_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    library = SimpleNamespace(syncfs=lambda _fd: -1)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_kwargs: library)
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.ENOSYS)
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    with syncing.synced_once(tmp_path):
        pass
    assert synced == [True]


def test_where_it_cannot_be_put_off_each_write_waits(
    tmp_path: Path, waits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncing, "_CAN_BE_PUT_OFF", False)
    with syncing.synced_once(tmp_path):
        durable.write_durably(tmp_path / "file", b"x")
    assert waits == ["one", "one"]


def test_a_copied_record_is_there_and_counted_whichever_store_it_is_in(store: Store, tmp_path: Path) -> None:
    tasks = [finished(running()) for _ in range(3)]
    with syncing.synced_once(tmp_path):
        for task in tasks:
            store.create(task)
    assert list(store.tasks(tasks[0].key.session_key)) == tasks[::-1]
    assert store.counts(tasks[0].key.session_key) == {"completed": 3}
    assert list(store.verify()) == []
