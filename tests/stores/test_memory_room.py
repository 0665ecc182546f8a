"""What the memory store forgets when it has no room, what it never forgets, and what it says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mcp_tasks.errors import TaskNotFinished, TaskNotFound
from mcp_tasks.models import Plan, PlanKey, Session, Task
from mcp_tasks.stores.disk import removal
from mcp_tasks.stores.memory.finished import Room, Usage
from mcp_tasks.stores.memory.store import MemoryStore
from mcp_tasks.stores.memory.temporary import TemporaryStore
from tests.stores.faulty_os import fail, faulty
from tests.stores.records import OWNER, SESSION, finished, new_id, pending, relabelled, running


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "memory"
    folder.mkdir(mode=0o700)
    return folder


def over(store: MemoryStore, task: Task | None = None, *, output: int = 10) -> Task:
    task = task or running()
    (store.make_run_folder(task.key, 1) / "stdout").write_bytes(b"x" * output)
    store.create(task)
    return store.replace(finished(task))


def ids(store: MemoryStore) -> list[str]:
    return [task.key.task_id for task in store.tasks(SESSION)][::-1]


def test_the_oldest_finished_task_goes_where_there_are_too_many(place: Path) -> None:
    store = MemoryStore(place, Room(tasks=3))
    tasks = [over(store) for _ in range(5)]
    assert ids(store) == [task.key.task_id for task in tasks[2:]]
    for task in tasks[:2]:
        with pytest.raises(TaskNotFound):
            store.load(task.key)
        assert not store.run_folder(task.key, 1).exists()
    assert store.usage().evicted == 2
    assert store.counts(SESSION) == {"completed": 3}


def test_the_oldest_goes_where_there_is_too_much_output_but_never_the_newest(place: Path) -> None:
    store = MemoryStore(place, Room(bytes=10_000))
    small = [over(store, output=1_000) for _ in range(3)]
    large = over(store, output=50_000)
    assert ids(store) == [large.key.task_id]
    last = over(store, output=10)
    assert ids(store) == [last.key.task_id]
    assert store.usage().evicted == len(small) + 1


def test_a_finished_task_goes_after_its_time(place: Path, clock: Clock) -> None:
    store = MemoryStore(place, Room(seconds=60), now=clock)
    first = over(store, running(key="k"))
    clock.now += 30
    second = over(store)
    clock.now += 30
    assert store.find_key(SESSION, "k") is None
    assert ids(store) == [second.key.task_id]
    clock.now += 30
    assert store.count_tasks() == 0
    assert store.states(SESSION, [first.key.task_id, second.key.task_id]) == {}
    assert store.usage() == Usage(sessions=1, plans=0, tasks=0, finished=0, bytes=0, evicted=0, expired=2)
    assert list(place.glob("sessions/*/*/runs/*")) == []


def test_what_is_not_final_is_never_forgotten(place: Path, clock: Clock) -> None:
    store = MemoryStore(place, Room(tasks=1, bytes=1, seconds=1), now=clock)
    open_ones = [pending(), running(), running("other")]
    for task in open_ones:
        store.create(task)
    for _ in range(3):
        over(store)
    clock.now += 1_000
    assert [store.load(task.key) for task in open_ones] == open_ones
    assert store.counts(SESSION) == {"pending": 1, "running": 1}


def test_what_something_unfinished_waits_for_stays(place: Path) -> None:
    store = MemoryStore(place, Room(tasks=1))
    first = over(store)
    waits = pending()
    store.create(replace(waits, spec=replace(waits.spec, after=(first.key.task_id,))))
    planned = running()
    planned = over(store, replace(planned, spec=replace(planned.spec, plan="p")))
    other = running()
    store.create(replace(other, spec=replace(other.spec, plan="p")))
    last = [over(store) for _ in range(3)][-1]
    assert {first.key.task_id, planned.key.task_id, last.key.task_id} < set(ids(store))
    store.replace(finished(store.load(waits.key)))
    over(store)
    assert first.key.task_id not in ids(store)
    assert planned.key.task_id in ids(store)


def test_no_limit_means_none(place: Path) -> None:
    store = MemoryStore(place, Room(tasks=0, bytes=0))
    for _ in range(50):
        over(store)
    assert store.usage().finished == 50


def test_the_store_tells_what_it_holds(place: Path) -> None:
    store = MemoryStore(place)
    store.open_session(Session(SESSION, 1))
    done = over(store, output=5_000)
    store.create(running())
    store.create_plan(Plan(PlanKey(OWNER, "default", new_id()), 1, (done.key.task_id,)))
    usage = store.usage()
    assert (usage.sessions, usage.plans, usage.tasks, usage.finished) == (1, 1, 2, 1)
    assert 5_000 < usage.bytes < 7_000
    store.delete(done.key)
    assert store.usage().bytes == store.usage().finished == 0
    assert list(store.verify()) == []


def test_text_that_no_disk_could_take_is_kept_in_memory(place: Path) -> None:
    store = MemoryStore(place)
    task = over(store, relabelled(running(), "\ud800"))
    assert store.load(task.key).spec.label == "\ud800"


def test_a_session_goes_with_its_tasks_keys_plans_and_output(place: Path) -> None:
    store = MemoryStore(place)
    task = over(store, running(key="k"), output=1_000)
    store.create_plan(plan := Plan(PlanKey(OWNER, "default", new_id()), 1, (task.key.task_id,)))
    store.create(waits := pending())
    with pytest.raises(TaskNotFinished, match=waits.key.task_id):
        store.delete_session(SESSION)
    store.replace(finished(waits))
    assert store.delete_session(SESSION) == 1_000
    assert store.sessions() == []
    assert list(store.plans(SESSION)) == []
    assert list(store.tasks(SESSION)) == []
    assert store.find_key(SESSION, "k") is None
    assert store.usage().bytes == 0
    store.delete_plan(plan.key)


def test_files_of_a_session_that_cannot_be_removed_are_reported(place: Path) -> None:
    store = MemoryStore(place)
    over(store)
    with faulty(0, fail(13)):
        assert store.delete_session(SESSION) == 0
    assert "the deleted session default are left" in store.problems()[0]
    assert list(store.verify()) == store.problems()
    removal.remove_tree(place / "sessions")


def test_a_temporary_store_has_as_much_room_as_it_is_given() -> None:
    store = TemporaryStore(Room(tasks=1))
    try:
        over(store)
        last = over(store)
        assert ids(store) == [last.key.task_id]
    finally:
        store.close()
