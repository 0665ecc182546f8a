"""What processes that were killed left of runs is removed, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import Cancelled, Task
from mcp_tasks.stores.json.store import JsonFileStore
from tests.stores.faulty_os import fail, faulty, sync_nothing
from tests.stores.records import finished, new_id, pending, running
from tests.stores.test_json_damage import put, record_of

LONG_AGO = (1_700_000_000, 1_700_000_000)


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(root: Path) -> JsonFileStore:
    return JsonFileStore(root)


def make_run(store: JsonFileStore, task: Task, *names: str, run: int = 1) -> Path:
    """An old run folder with some files."""
    folder = store.make_run_folder(task.key, run)
    for name in names:
        (folder / name).write_text("SECRET=1")
    os.utime(folder, LONG_AGO)
    return folder


def test_what_was_parked_for_a_task_that_was_never_registered_goes(root: Path, store: JsonFileStore) -> None:
    folder = make_run(store, pending("never-registered", owner="x" * 200), "launch")
    JsonFileStore(root).sweep()
    assert not folder.exists()
    assert list((root / "trash").iterdir()) == []


def test_the_output_of_a_task_that_was_half_cleared_goes(
    root: Path, store: JsonFileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = finished(running())
    folders = [make_run(store, task, "stdout", run=run) for run in (1, 2)]
    store.create(task)

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(store, "_thrown_runs", die)
        with pytest.raises(Killed):
            store.delete(task.key)
    assert folders[0].exists()
    again = JsonFileStore(root)
    again.sweep()
    assert [folder.exists() for folder in folders] == [False, False]
    assert again.problems() == []


def test_a_launch_that_stayed_with_a_final_task_goes_and_its_output_stays(
    root: Path, store: JsonFileStore
) -> None:
    over = finished(running(owner="x" * 200), Cancelled(None, None))
    waiting, claimed = pending(), running()
    folders = [make_run(store, task, "launch", "stdout") for task in (over, waiting, claimed)]
    for task in (over, waiting, claimed):
        store.create(task)
    # The next run of a task is parked before its record says that it waits again.
    later = make_run(store, over, "launch", run=2)
    JsonFileStore(root).sweep()
    assert [(folder / "launch").exists() for folder in folders] == [False, True, True]
    assert [(folder / "stdout").exists() for folder in folders] == [True] * 3
    assert not (later / "launch").exists(), "a further run will not come"


def test_a_run_that_is_young_or_held_stays(root: Path, store: JsonFileStore) -> None:
    young, held = make_run(store, pending(), "launch"), make_run(store, pending(), "launch")
    os.utime(young)
    lock = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        JsonFileStore(root).sweep()
        assert young.exists()
        assert held.exists()
    finally:
        os.close(lock)
    JsonFileStore(root).sweep()
    assert young.exists()
    assert not held.exists()


def test_a_task_that_is_registered_while_its_run_is_judged_keeps_it(
    root: Path, store: JsonFileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = pending()
    folder = make_run(store, task, "launch")
    store.create(pending())
    real = fcntl.flock

    def register_first(descriptor: int, operation: int) -> None:
        if not record_of(root, task).exists():
            put(root, task)
        real(descriptor, operation)

    with monkeypatch.context() as patch:
        patch.setattr("mcp_tasks.stores.disk.leftovers.fcntl.flock", register_first)
        store.sweep()
    assert (folder / "launch").exists()


def test_the_output_of_a_task_whose_record_was_set_aside_stays(root: Path, store: JsonFileStore) -> None:
    task = finished(running())
    folder = make_run(store, task, "stdout")
    store.create(task)
    put(root, task, b"broken")
    assert list(store.tasks(task.key.session_key)) == []
    store.sweep()
    assert (folder / "stdout").exists()


def test_a_folder_of_records_that_cannot_be_listed_costs_no_output(root: Path, store: JsonFileStore) -> None:
    task, elsewhere = finished(running()), pending("elsewhere")
    folder, orphan = make_run(store, task, "stdout"), make_run(store, elsewhere, "launch")
    store.create(task)
    records = record_of(root, task).parent
    records.rename(root / "aside")
    records.symlink_to(root / "aside")
    store.sweep()
    assert (folder / "stdout").exists()
    assert not orphan.exists()
    assert any("link" in problem for problem in store.problems())


def test_planted_links_and_foreign_names_are_neither_followed_nor_removed(
    root: Path, store: JsonFileStore, tmp_path: Path
) -> None:
    runs = make_run(store, pending(), "launch").parent
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "launch").write_text("precious")
    os.utime(precious, LONG_AGO)
    (runs / f"{new_id()}.1").symlink_to(precious)
    over = finished(running())
    store.create(over)
    (runs / f"{over.key.task_id}.1").symlink_to(precious)
    for name in ("notes", f"{new_id()}.x", f"{new_id()}", ".git"):
        (runs / name).mkdir()
        os.utime(runs / name, LONG_AGO)
    store.sweep()
    assert (precious / "launch").read_text() == "precious"
    assert len(list(runs.iterdir())) == 6
    runs.rename(tmp_path / "runs")
    runs.symlink_to(tmp_path / "runs")
    store.sweep()
    assert len(list(runs.iterdir())) == 6


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_failing_at_any_system_call_it_removes_nothing_that_is_needed(root: Path, number: int) -> None:
    take_back = sync_nothing()
    try:
        store = JsonFileStore(root)
        over = finished(running())
        needed = make_run(store, over, "stdout")
        store.create(over)
        at = 0
        while True:
            at += 1
            make_run(store, over, "launch", "stdout")
            make_run(store, pending(), "launch")
            with faulty(at, fail(number)) as stand_in, suppress(StoreUnavailable):
                store.sweep()
            assert (needed / "stdout").exists(), stand_in.hit
            assert store.load(over.key) == over
            store.sweep()
            assert [path.name for path in needed.parent.iterdir()] == [needed.name], stand_in.hit
            if not stand_in.hit:
                break
        assert at > 10
    finally:
        take_back()
    JsonFileStore(root).sweep()
    assert [path.name for path in needed.parent.iterdir()] == [needed.name]
    assert [path.name for path in needed.iterdir()] == ["stdout"]


def test_a_run_with_a_record_costs_one_look_and_nothing_is_read(
    root: Path, store: JsonFileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create(running())
    for _ in range(1_000):
        task = finished(running())
        record_of(root, task).touch(mode=0o600)
        store.run_folder(task.key, 1).mkdir(mode=0o700)
    calls: list[str] = []

    def count(name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        calls.append(name)
        return real(*args, **kwargs)

    looks: list[str] = []
    real = os.path.lexists

    def look(path: str) -> bool:
        looks.append(path)
        return real(path)

    with faulty(0, count), monkeypatch.context() as patch:
        patch.setattr(os.path, "lexists", look)
        store.sweep()
    assert len(looks) == 1_000
    assert len(calls) < 30
