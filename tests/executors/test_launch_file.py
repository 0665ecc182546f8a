from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.executors.launch_format import to_file
from mcp_tasks.executors.local import LocalExecutor
from mcp_tasks.ports import Launch, Sealer

LAUNCH = Launch(["echo", "hunter1"], "/", {"A": "hunter2", "B": "\udcff"}, stdin=b"hunter3\xff", timeout_ms=5)


class Armour:
    """Hides texts, with a key that can be replaced or lost."""

    key = 1
    lost = False

    def seal(self, text: str) -> str:
        if self.lost:
            raise StoreUnavailable("there is no key")
        return f"{self.key}:{base64.b85encode(text.encode()).decode()}"

    def unseal(self, sealed: str) -> str:
        if self.lost:
            raise StoreUnavailable("there is no key") from PermissionError()
        try:
            return base64.b85decode(sealed.partition(":")[2]).decode()
        except ValueError as error:
            raise StoreUnavailable("damaged") from error

    def renewed(self, sealed: str) -> str | None:
        return None if sealed.startswith(f"{self.key}:") else self.seal(self.unseal(sealed))


@pytest.fixture
def armour() -> Armour:
    return Armour()


@pytest.fixture
def executor(armour: Sealer) -> Iterator[LocalExecutor]:
    executor = LocalExecutor(sealer=armour)
    yield executor
    executor.close()


def test_a_parked_launch_is_sealed_and_comes_back(executor: LocalExecutor, tmp_path: Path) -> None:
    executor.park(tmp_path, LAUNCH)

    content = (tmp_path / "launch").read_bytes()
    assert b"hunter" not in content
    assert b"hunter3".hex().encode() not in content
    assert (tmp_path / "launch").stat().st_mode & 0o777 == 0o600
    assert executor.parked(tmp_path) == LAUNCH


def test_a_launch_of_an_older_version_is_read(executor: LocalExecutor, tmp_path: Path) -> None:
    (tmp_path / "launch").write_bytes(to_file(LAUNCH))

    assert executor.parked(tmp_path) == LAUNCH


def test_without_a_key_a_launch_is_kept_open_and_that_is_told_once(
    executor: LocalExecutor, armour: Armour, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    armour.lost = True
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with caplog.at_level(logging.WARNING):
            executor.park(tmp_path / name, LAUNCH)
        assert (tmp_path / name / "launch").stat().st_mode & 0o777 == 0o600
        assert executor.parked(tmp_path / name) == LAUNCH
    assert len([one for one in caplog.records if "without being sealed" in one.message]) == 1


def test_a_launch_whose_key_is_away_may_be_readable_later(
    executor: LocalExecutor, armour: Armour, tmp_path: Path
) -> None:
    executor.park(tmp_path, LAUNCH)
    armour.lost = True
    with pytest.raises(StoreUnavailable) as raised:
        executor.parked(tmp_path)

    assert isinstance(raised.value.__cause__, OSError)
    armour.lost = False
    assert executor.parked(tmp_path) == LAUNCH


@pytest.mark.parametrize(
    "record", [{"v": 1, "sealed": 5}, {"v": 99, "sealed": "1:x"}, {"sealed": "1:x"}, [1]]
)
def test_a_sealed_launch_that_is_damaged_is_refused(
    executor: LocalExecutor, tmp_path: Path, record: object
) -> None:
    (tmp_path / "launch").write_text(json.dumps(record))

    with pytest.raises(StoreUnavailable):
        executor.parked(tmp_path)


def test_a_launch_gets_another_key_in_place(executor: LocalExecutor, armour: Armour, tmp_path: Path) -> None:
    executor.park(tmp_path, LAUNCH)
    assert not executor.reseal(tmp_path)
    armour.key = 2
    (tmp_path / "launch.tmp").write_text("of somebody who was killed")

    assert executor.reseal(tmp_path)
    assert b'"2:' in (tmp_path / "launch").read_bytes()
    assert executor.parked(tmp_path) == LAUNCH
    assert os.listdir(tmp_path) == ["launch"]


def test_what_is_no_sealed_launch_gets_no_key(executor: LocalExecutor, tmp_path: Path) -> None:
    assert not executor.reseal(tmp_path)
    (tmp_path / "launch").write_bytes(to_file(LAUNCH))
    assert not executor.reseal(tmp_path)
    (tmp_path / "launch").write_text("{")
    with pytest.raises(StoreUnavailable):
        executor.reseal(tmp_path)
