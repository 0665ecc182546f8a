"""A session goes as a whole or stays as a whole, whatever others do in it at that moment."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_tasks.codec import NewerSchema
from mcp_tasks.errors import SessionNotFound, StoreUnavailable, TaskNotFinished, TaskNotFound
from mcp_tasks.models import Plan, PlanKey, Session, Task
from mcp_tasks.stores.json import session_removal
from mcp_tasks.stores.json.store import JsonFileStore
from tests.stores.faulty_os import fail, faulty, sync_nothing
from tests.stores.records import OWNER, SESSION, finished, new_id, pending, running
from tests.stores.test_json_damage import record_of
from tests.waiting import wait_until

FOLDER = f"sessions/{OWNER}/default"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(root: Path) -> JsonFileStore:
    return JsonFileStore(root)


@pytest.fixture(autouse=True)
def _no_power_is_cut() -> Iterator[None]:
    take_back = sync_nothing()
    yield
    take_back()


def _over(store: JsonFileStore, *, key: str | None = None) -> Task:
    task = finished(running(key=key))
    (store.make_run_folder(task.key, 1) / "stdout").write_bytes(b"x" * 1000)
    store.create(task)
    return task


def test_a_session_goes_with_everything_in_it(root: Path, store: JsonFileStore) -> None:
    task = _over(store, key="k")
    plan = Plan(PlanKey(OWNER, "default", new_id()), 1, (task.key.task_id,))
    store.create_plan(plan)
    store.create(kept := running("other"))
    assert store.delete_session(SESSION) > 1000
    assert not (root / FOLDER).exists()
    assert list((root / "trash").iterdir()) == []
    assert [session.key.session for session in store.sessions()] == ["other"]
    assert store.find_key(SESSION, "k") is None
    assert store.counts(SESSION) == {}
    assert store.states(SESSION, [task.key.task_id]) == {}
    with pytest.raises(TaskNotFound):
        store.load(task.key)
    with pytest.raises(SessionNotFound):
        store.delete_session(SESSION)
    assert JsonFileStore(root).unfinished() == [kept.key]
    store.create(again := pending(key="k"))
    assert store.find_key(SESSION, "k") == again


@pytest.mark.parametrize(
    "task", [pending(), running(), replace(pending(), spec=replace(pending().spec, plan="p"))]
)
def test_a_session_with_an_unfinished_task_stays(store: JsonFileStore, task: Task) -> None:
    _over(store)
    store.create(task)
    with pytest.raises(TaskNotFinished, match=task.key.task_id):
        store.delete_session(SESSION)
    assert store.load(task.key) == task


def test_a_session_in_which_a_task_is_being_started_stays(root: Path) -> None:
    now = [os.stat("/").st_mtime]
    store = JsonFileStore(root, now=lambda: now[0])
    _over(store)
    folder = store.make_run_folder(pending().key, 1)
    now[0] = folder.stat().st_mtime + 1
    with pytest.raises(TaskNotFinished, match="being started"):
        store.delete_session(SESSION)
    now[0] += 120
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(TaskNotFinished, match="being started"):
        store.delete_session(SESSION)
    os.close(descriptor)
    assert store.delete_session(SESSION) > 1000
    assert not folder.exists()


def test_what_a_newer_version_wrote_keeps_its_session(root: Path, store: JsonFileStore) -> None:
    task = _over(store)
    path = record_of(root, task)
    path.write_bytes(path.read_bytes().replace(b'"schema":2', b'"schema":3'))
    with pytest.raises(StoreUnavailable, match="1 tasks of the session cannot be read"):
        store.delete_session(SESSION)
    path.unlink()
    plan = Plan(PlanKey(OWNER, "default", new_id()), 1, ())
    store.create_plan(plan)
    path = root / FOLDER / "plans" / f"{plan.key.plan_id}.json"
    path.write_bytes(path.read_bytes().replace(b'"schema":2', b'"schema":3'))
    with pytest.raises(NewerSchema):
        store.delete_session(SESSION)
    assert path.exists()


def test_a_task_that_was_registered_after_the_look_brings_the_session_back(
    root: Path, store: JsonFileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _over(store)
    other = JsonFileStore(root)
    _over(other)
    late = running()
    look = session_removal.SessionRemoval._settled

    def look_then_create(self: session_removal.SessionRemoval, *given: object) -> frozenset[str]:
        seen = look(self, *given)  # type: ignore[arg-type]
        other.create(late)
        return seen

    monkeypatch.setattr(session_removal.SessionRemoval, "_settled", look_then_create)
    with pytest.raises(TaskNotFinished, match="just been started"):
        store.delete_session(SESSION)
    assert store.load(late.key) == late
    assert len(list(store.tasks(SESSION))) == 3
    assert list((root / "trash").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_failing_at_any_system_call_a_session_is_there_or_gone(tmp_path: Path, number: int) -> None:
    at = 0
    while True:
        at += 1
        root = tmp_path / str(at)
        store = JsonFileStore(root)
        task = _over(store)
        with faulty(at, fail(number)) as stand_in:
            try:
                store.delete_session(SESSION)
            except (StoreUnavailable, TaskNotFinished):
                refused = True
            else:
                refused = False
        again = JsonFileStore(root)
        if refused:
            assert list(again.tasks(SESSION)) == [task], (stand_in.hit, at)
            assert (again.run_folder(task.key, 1) / "stdout").stat().st_size == 1000
        else:
            assert again.sessions() == [], (stand_in.hit, at)
            assert not (root / FOLDER).exists()
        if not stand_in.hit:
            assert not refused
            break
    assert at > 20


def test_while_others_start_tasks_no_session_is_half_and_no_running_task_is_lost(root: Path) -> None:
    JsonFileStore(root).open_session(Session(SESSION, 1))
    done = threading.Event()

    def work(number: int) -> int:
        store = JsonFileStore(root)
        for round_ in range(25):
            task = running(key=f"{number}-{round_}" if round_ % 3 == 0 else None)
            folder = store.make_run_folder(task.key, 1)
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            (folder / "stdout").write_bytes(b"x")
            store.create(task)
            os.close(descriptor)
            # It runs, so its session cannot go.
            assert store.load(task.key) == task
            # Who deletes may have taken the folder away, and brings it back when it sees the task.
            wait_until((folder / "stdout").exists, "the output is where it was")
            assert store.load_session(SESSION).key == SESSION
            store.replace(finished(task))
        return 25

    def clear() -> int:
        store = JsonFileStore(root)
        gone = 0
        while True:
            last = done.is_set()
            try:
                store.delete_session(SESSION)
                gone += 1
            except (TaskNotFinished, SessionNotFound):
                pass
            if last:
                return gone

    with ThreadPoolExecutor(4) as pool:
        clearing = pool.submit(clear)
        try:
            assert sum(pool.map(work, range(3))) == 75
        finally:
            done.set()
        assert clearing.result() >= 1
    store = JsonFileStore(root)
    assert store.unfinished() == []
    assert store.sessions() == []
    assert store.problems() == []
