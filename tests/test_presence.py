"""Which servers live: locks that the kernel takes back, whatever ended their holder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.presence import LockedPresence, SolePresence
from tests.waiting import wait_until

_HOLDER = """
import sys
from pathlib import Path
from mcp_tasks.presence import LockedPresence
print(LockedPresence(Path(sys.argv[1])).begin(), flush=True)
sys.stdin.read()
"""


def test_nothing_is_made_before_a_server_begins_and_nothing_is_left_of_one_that_ends(tmp_path: Path) -> None:
    folder = tmp_path / "servers"
    one, other = LockedPresence(folder), LockedPresence(folder)
    assert other.gone() == []
    one.end()
    assert not folder.exists()
    server_id = one.begin()
    assert one.begin() == server_id
    assert one.is_here(server_id)
    assert other.is_here(server_id)
    assert other.gone() == []
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / server_id)] == [0o700, 0o600]
    one.end()
    assert not other.is_here(server_id)
    assert list(folder.iterdir()) == []


def test_a_server_that_was_killed_is_gone_until_it_is_forgotten(tmp_path: Path) -> None:
    presence = LockedPresence(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        server_id = holder.stdout.readline().decode().strip()
        assert presence.is_here(server_id)
        assert presence.gone() == []
        holder.kill()
        holder.wait(10)
    wait_until(lambda: not presence.is_here(server_id), "the lock is free")
    assert presence.gone() == [server_id]
    presence.forget(server_id)
    assert presence.gone() == []


def test_what_a_server_left_that_was_killed_while_it_began_is_gone_too(tmp_path: Path) -> None:
    (tmp_path / "0123456789abcdef.new").touch()
    presence = LockedPresence(tmp_path)
    assert presence.gone() == ["0123456789abcdef"]
    presence.forget("0123456789abcdef")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../x", "A", "x y"])
def test_what_is_no_id_of_a_server_is_nobody_and_touches_nothing(tmp_path: Path, name: str) -> None:
    presence = LockedPresence(tmp_path / "servers")
    (tmp_path / "x").touch()
    assert not presence.is_here(name)
    presence.forget(name)
    assert (tmp_path / "x").exists()


def test_a_link_in_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "0123456789abcdef").symlink_to(tmp_path / "elsewhere")
    assert LockedPresence(tmp_path).is_here("0123456789abcdef")


def test_a_server_that_begins_while_another_looks_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, one = LockedPresence(tmp_path), LockedPresence(tmp_path)
    seen: list[str] = []
    rename = os.rename

    def look_before(source: str, target: str) -> None:
        seen.extend(other.gone())
        rename(source, target)

    monkeypatch.setattr(os, "rename", look_before)
    server_id = one.begin()
    for gone in seen:
        other.forget(gone)
    assert other.is_here(server_id)
    one.end()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "servers").touch()
    presence = LockedPresence(tmp_path / "servers")
    with pytest.raises(StoreUnavailable):
        presence.begin()
    assert not presence.is_here("0123456789abcdef")


def test_the_server_of_a_memory_store_is_alone() -> None:
    presence = SolePresence()
    server_id = presence.begin()
    assert presence.is_here(server_id)
    assert not presence.is_here("another")
    assert presence.gone() == []
    presence.forget(server_id)
    presence.end()
