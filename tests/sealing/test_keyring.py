from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import keyring
import keyring.backend
import keyring.errors
import pytest

from mcp_tasks.errors import NotSupported, StoreUnavailable
from mcp_tasks.sealing import KeyedSealer, open_sealer
from mcp_tasks.sealing.sealer import key_id_of
from mcp_tasks.settings import Settings


class Ring(keyring.backend.KeyringBackend):
    """A keyring of this process, which can be locked."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise keyring.errors.KeyringLocked
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


@pytest.fixture
def ring() -> Iterator[Ring]:
    before = keyring.get_keyring()
    ring = Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


def sealer(tmp_path: Path) -> KeyedSealer:
    return open_sealer(Settings(dir=tmp_path, key_source="keyring"))


def test_the_key_is_made_once_and_kept_in_the_keyring_alone(ring: Ring, tmp_path: Path) -> None:
    sealed = sealer(tmp_path).seal("hunter2")

    assert sealer(tmp_path).unseal(sealed) == "hunter2"
    assert key_id_of(sealer(tmp_path).seal("x")) == key_id_of(sealed)
    assert len(ring.kept) == 1
    assert list(tmp_path.iterdir()) == []


def test_keys_can_be_added_to_the_keyring(ring: Ring, tmp_path: Path) -> None:
    one, other = sealer(tmp_path), sealer(tmp_path)
    before = one.seal("x")
    new = one.source.add()

    after = one.seal("y")
    assert key_id_of(after) == new.key_id
    assert other.unseal(before) == "x"
    assert other.unseal(after) == "y"  # it looks again for a key that it does not know
    assert one.source.older() == [key_id_of(before)]


def test_a_locked_keyring_is_an_error_for_now(ring: Ring, tmp_path: Path) -> None:
    ring.locked = True

    with pytest.raises(StoreUnavailable, match="does not answer"):
        sealer(tmp_path).seal("x")


def test_what_somebody_else_keeps_there_is_left_alone(ring: Ring, tmp_path: Path) -> None:
    ring.kept["mcp-tasks", "sealing keys"] = "something else"

    with pytest.raises(StoreUnavailable, match="something else"):
        sealer(tmp_path).seal("x")
    assert list(ring.kept.values()) == ["something else"]


def test_a_system_without_a_keyring_is_told_what_to_do(ring: Ring, tmp_path: Path) -> None:
    from keyring.backends.fail import Keyring

    keyring.set_keyring(Keyring())  # type: ignore[no-untyped-call]

    with pytest.raises(NotSupported, match="no keyring") as raised:
        sealer(tmp_path).seal("x")
    assert "MCP_TASKS_KEY_SOURCE=file" in raised.value.hint


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)

    with pytest.raises(NotSupported, match="not installed") as raised:
        sealer(tmp_path).seal("x")
    assert "mcp-tasks[keyring]" in raised.value.hint


def test_servers_that_need_their_first_key_at_once_agree_on_one(ring: Ring, tmp_path: Path) -> None:
    here = threading.Barrier(2)

    def get_password(service: str, username: str) -> str | None:
        found = ring.kept.get((service, username))
        with suppress(threading.BrokenBarrierError):
            here.wait(0.3)  # both have looked before either writes, where nothing keeps them from it
        return found

    ring.get_password = get_password  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: sealer(tmp_path).seal("hunter2"), range(2))

    assert key_id_of(one) == key_id_of(other)
    assert [sealer(tmp_path).unseal(sealed) for sealed in (one, other)] == ["hunter2", "hunter2"]
