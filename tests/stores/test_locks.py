"""A lock is given back by the death of its holder, and can be moved away with its folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from mcp_tasks.errors import StoreBusy, StoreUnavailable
from mcp_tasks.stores.disk.locks import FolderGone, ProcessLock
from tests.stores.faulty_os import fail, faulty

_HOLD = """
import sys
from mcp_tasks.stores.disk.locks import ProcessLock
with ProcessLock(sys.argv[1], 5).held():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_held_is_free_within_a_second(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreBusy), ProcessLock(path, 0.02).held():
            pass
        holder.send_signal(signal.SIGKILL)
        with ProcessLock(path, 1).held():
            pass


def test_who_waits_for_a_lock_that_is_moved_away_takes_the_one_in_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    folder.mkdir()
    lock, other = (ProcessLock(str(folder / "lock"), 5) for _ in range(2))
    entered = threading.Event()

    def enter() -> None:
        while not entered.is_set():
            # Between the move and the new folder there is none.
            with suppress(FolderGone), other.held():
                entered.set()

    waiting = threading.Thread(target=enter)
    with lock.held():
        waiting.start()
        assert not entered.wait(0.05)
        folder.rename(tmp_path / "trash")
        folder.mkdir()
        assert entered.wait(1)
    waiting.join()


def test_who_waits_for_a_lock_whose_folder_goes_is_told_so(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    folder.mkdir()
    lock, other = (ProcessLock(str(folder / "lock"), 5) for _ in range(2))
    told = threading.Event()

    def enter() -> None:
        try:
            with other.held():
                pass
        except FolderGone:
            told.set()

    waiting = threading.Thread(target=enter)
    with lock.held():
        waiting.start()
        folder.rename(tmp_path / "trash")
        assert told.wait(1)
    waiting.join()
    with pytest.raises(FolderGone), lock.held():
        pass


def test_a_lock_is_for_its_owner_only_and_no_link_is_followed(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        with ProcessLock(str(tmp_path / "lock"), 1).held():
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(StoreUnavailable), ProcessLock(str(tmp_path / "link"), 1).held():
        pass
    assert not (tmp_path / "target").exists()


def test_what_fails_under_a_lock_gives_it_back(tmp_path: Path) -> None:
    lock = ProcessLock(str(tmp_path / "lock"), 1)
    with pytest.raises(ValueError, match="oops"), lock.held():
        raise ValueError("oops")
    with lock.held():
        pass
    with faulty(-1, fail(5)), lock.held():
        pass
