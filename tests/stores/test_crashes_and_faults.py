"""A store that is killed or fails at any system call of any write keeps what it has acknowledged."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.stores.json.store import JsonFileStore
from tests.stores.faulty_os import fail, faulty, sync_nothing, write_little
from tests.stores.records import running
from tests.stores.scenarios import SCENARIOS, Scenario, everything, inconsistencies

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_power_is_cut() -> Iterator[None]:
    take_back = sync_nothing()
    yield
    take_back()


@pytest.mark.parametrize("adapter", ["json", "sqlite"])
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_killed_at_every_system_call_it_leaves_all_of_a_write_or_none(tmp_path: Path, adapter: str) -> None:
    command = [sys.executable, "-m", "tests.stores.crash_rig", str(tmp_path), adapter]
    rig = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False)
    assert rig.returncode == 0, rig.stderr
    lines = rig.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == [scenario.name for scenario in SCENARIOS]
    assert int(lines[-1].split()[0]) > 90


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EINTR, errno.EACCES])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_failing_at_any_system_call_it_changes_nothing_and_works_again(
    tmp_path: Path, scenario: Scenario, number: int
) -> None:
    store = JsonFileStore(tmp_path / "state")
    store.create(running(key="held"))
    refused = 0
    at = 0
    while True:
        at += 1
        task = scenario.prepare(store)
        before = everything(store)
        message = ""
        with faulty(at, fail(number)) as stand_in:
            try:
                scenario.act(store, task)
            except StoreUnavailable as error:
                message = str(error)
        after = everything(JsonFileStore(tmp_path / "state"))
        where = f"{stand_in.hit}, call {at}"
        if message:
            refused += 1
            assert str(tmp_path) not in message
            assert errno.errorcode[number] in message or number == errno.EACCES, where
            assert after == before, where
            scenario.act(store, task)
        after = everything(store)
        assert after.get(task.key.task_id) == scenario.new(task), where
        assert {**after, task.key.task_id: None} == {**before, task.key.task_id: None}, where
        again = JsonFileStore(tmp_path / "state")
        assert inconsistencies(again, after) == [], where
        if not stand_in.hit:
            break
    assert refused > 3 or number == errno.EINTR


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_short_writes_and_reads_are_carried_on(tmp_path: Path, scenario: Scenario) -> None:
    store = JsonFileStore(tmp_path / "state")
    store.create(running(key="held"))
    task = scenario.prepare(store)
    with faulty(0, write_little):
        scenario.act(store, task)
        assert everything(store).get(task.key.task_id) == scenario.new(task)
    assert everything(JsonFileStore(tmp_path / "state")).get(task.key.task_id) == scenario.new(task)


def test_a_disk_that_stays_full_refuses_every_write_and_still_reads(tmp_path: Path) -> None:
    store = JsonFileStore(tmp_path / "state")
    task = running()
    store.create(task)

    def full(name: str, real: object, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        if name in ("write", "mkdir", "link", "fsync"):
            raise OSError(errno.ENOSPC, "full")
        assert callable(real)
        return real(*args, **kwargs)

    with faulty(0, full):
        for scenario in SCENARIOS[:3]:
            with pytest.raises(StoreUnavailable, match="ENOSPC"):
                scenario.act(store, running("default" if scenario.name == "create" else "another"))
        with pytest.raises(StoreUnavailable, match="ENOSPC"):
            store.replace(task)
        with pytest.raises(StoreUnavailable, match="ENOSPC"):
            store.delete(task.key)
        assert store.load(task.key) == task
        assert store.unfinished() == [task.key]
    assert store.replace(task).revision == 1
