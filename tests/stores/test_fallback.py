"""Sessions and plans over a store and its refuge: what is where, and that both are seen as one."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_tasks.errors import SessionNotFound, StoreUnavailable, TaskNotFinished, TaskNotFound
from mcp_tasks.models import Plan, PlanKey, Session, SessionKey, StateName
from mcp_tasks.stores.fallback import FallbackStore
from mcp_tasks.stores.json.store import JsonFileStore
from mcp_tasks.stores.memory.temporary import TemporaryStore
from tests.stores.records import OWNER, SESSION, finished, new_id, pending, running

ASIDE = SessionKey(OWNER, "aside")


@pytest.fixture
def primary(tmp_path: Path) -> JsonFileStore:
    return JsonFileStore(tmp_path / "state")


@pytest.fixture
def store(primary: JsonFileStore) -> Iterator[FallbackStore]:
    both = FallbackStore(primary, TemporaryStore)
    yield both
    both.close()


def test_counts_and_states_are_those_of_both(store: FallbackStore) -> None:
    inside, outside, waits = running(), running(), pending()
    store.create(inside)
    assert store.counts(SESSION) == {"running": 1}
    store.divert(outside.key)
    store.create(outside)
    store.replace(finished(outside))
    store.create(waits)
    assert store.counts(SESSION) == {"running": 1, "completed": 1, "pending": 1}
    ids = [task.key.task_id for task in (inside, outside, waits)]
    assert dict(store.states(SESSION, ids)) == dict(
        zip(ids, ("running", "completed", "pending"), strict=True)
    )
    running_ones: tuple[StateName, ...] = ("running",)
    assert [task.key for task in store.tasks(SESSION, states=running_ones)] == [inside.key]
    assert [task.key for task in store.tasks(SESSION, before=waits.key.task_id)] == [outside.key, inside.key]
    assert store.count_tasks() == 3
    assert store.pending() == [waits.key]
    assert store.held() == []
    assert store.is_diverted(outside.key)
    assert store.locate(OWNER, outside.key.task_id) == outside.key


def test_without_a_refuge_states_are_the_stores(store: FallbackStore, primary: JsonFileStore) -> None:
    store.create(task := running())
    assert store.states(SESSION, [task.key.task_id]) == {task.key.task_id: "running"}
    assert list(store.verify()) == list(primary.verify()) == []
    assert store.sessions() == primary.sessions()


def test_a_session_of_the_refuge_is_registered_when_it_is_changed(
    store: FallbackStore, primary: JsonFileStore
) -> None:
    for call in (store.load_session, store.delete_session):
        with pytest.raises(SessionNotFound):
            call(ASIDE)
    with pytest.raises(SessionNotFound):
        store.replace_session(Session(ASIDE, 1))
    outside = running("aside")
    store.divert(outside.key)
    store.create(outside)
    seen = store.load_session(ASIDE)
    with pytest.raises(SessionNotFound):
        primary.load_session(ASIDE)
    changed = store.replace_session(replace(seen, title="new"))
    assert primary.load_session(ASIDE) == store.load_session(ASIDE) == changed
    assert [session.key for session in store.sessions()] == [ASIDE]
    with pytest.raises(SessionNotFound):
        store.replace_session(Session(SessionKey(OWNER, "nowhere"), 1))


def test_a_session_is_deleted_in_both_and_not_while_either_has_something_unfinished(
    store: FallbackStore,
) -> None:
    inside, outside = finished(running()), running()
    store.create(inside)
    store.divert(outside.key)
    store.create(outside)
    with pytest.raises(TaskNotFinished, match=outside.key.task_id):
        store.delete_session(SESSION)
    assert store.load(inside.key) == inside
    store.replace(finished(outside))
    store.delete_session(SESSION)
    assert not store.is_diverted(outside.key)
    for task in (inside, outside):
        with pytest.raises(TaskNotFound):
            store.load(task.key)
    with pytest.raises(SessionNotFound):
        store.delete_session(SESSION)


def test_plans_are_the_stores(store: FallbackStore, primary: JsonFileStore) -> None:
    store.open_session(Session(SESSION, 1))
    store.create_plan(plan := Plan(PlanKey(OWNER, "default", new_id()), 1, ()))
    assert primary.load_plan(plan.key) == store.load_plan(plan.key) == plan
    assert list(store.plans(SESSION)) == [plan]
    store.delete_plan(plan.key)
    assert list(store.plans(SESSION)) == []


def test_no_room_for_a_refuge_is_said(primary: JsonFileStore) -> None:
    def no_room() -> TemporaryStore:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = FallbackStore(primary, no_room)
    with pytest.raises(StoreUnavailable, match="No space left"):
        store.divert(running().key)
    assert store.diverted() == []


def test_a_task_in_the_refuge_is_cleared_found_by_its_key_and_told_of_as_any_other(
    store: FallbackStore, primary: JsonFileStore
) -> None:
    ended: list[str] = []
    store.tell_ends(lambda task: ended.append(task.key.task_id))
    inside, outside = running(key="inside"), running(key="outside")
    store.create(inside)
    store.divert(outside.key)
    store.make_run_folder(outside.key, 1)
    store.create(outside)
    assert store.run_folder(outside.key, 1).is_dir()
    assert store.find_key(SESSION, "inside") == inside
    assert store.find_key(SESSION, "outside") == outside
    assert store.diverted() == [outside.key]
    assert store.unfinished() == [inside.key, outside.key]
    over = store.replace(finished(outside))
    assert ended == [outside.key.task_id]
    assert store.load(outside.key) == over
    assert store.delete(outside.key) >= 0
    assert not store.is_diverted(outside.key)
    with pytest.raises(TaskNotFound):
        store.locate(OWNER, outside.key.task_id)
    with store.admission():
        store.sweep()
    assert store.problems() == primary.problems() == []


def test_without_room_for_a_refuge_that_is_said(primary: JsonFileStore) -> None:
    def full() -> TemporaryStore:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = FallbackStore(primary, full)
    with pytest.raises(StoreUnavailable, match="No space"):
        store.divert(running().key)
    assert store.diverted() == []
    assert store.find_key(SESSION, "any") is None
    store.close()
