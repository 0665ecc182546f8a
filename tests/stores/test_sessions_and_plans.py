"""What every store promises of sessions, plans, what is held, and its figures; see `ports.Store`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mcp_tasks.errors import (
    InvalidArgument,
    PlanNotFound,
    RevisionConflict,
    SessionNotFound,
    TaskNotFinished,
    TaskNotFound,
)
from mcp_tasks.models import (
    Cancelled,
    Closed,
    Exited,
    Pending,
    PlanKey,
    Session,
    SessionKey,
    Share,
    TaskKey,
    Workspace,
)
from mcp_tasks.ports import Store
from tests.stores.records import (
    OWNER,
    SESSION,
    finished,
    held_back,
    new_id,
    pending,
    plan_of,
    running,
    session_named,
    started,
)

RICH = Session(
    SessionKey(OWNER, "Rich"),
    1_700_000_000_000,
    title="ключ \u0000 \U0001f600",
    state=Closed(1_700_000_000_001, "over"),
    expires_at=1_800_000_000_000,
    workspace=Workspace("/somewhere", "/bin/sh", {"TOKEN": "sealed"}, {"colour": [1, None, {"x": "y"}]}),
    shares=(Share("s1", "read", "d" * 64, 1, None), Share("s2", "write", "e" * 64, 1, 2)),
    journal_limit=7,
    seal_journal=True,
)


def test_a_session_that_was_opened_is_read_as_it_was(store: Store) -> None:
    assert store.open_session(RICH) == RICH
    assert store.load_session(RICH.key) == RICH
    assert store.sessions() == [RICH]


def test_opening_a_session_again_changes_nothing(store: Store) -> None:
    first = store.open_session(session_named("work"))
    assert store.open_session(replace(first, created_at=9, title="other")) == first
    assert store.load_session(first.key) == first


def test_the_first_task_makes_its_session(store: Store) -> None:
    task = pending("fresh")
    store.create(task)
    assert store.load_session(task.key.session_key) == Session(task.key.session_key, task.created_at)


def test_a_task_leaves_its_session_as_it_is(store: Store) -> None:
    store.open_session(RICH)
    store.create(pending("Rich"))
    assert store.load_session(RICH.key) == RICH


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "é", "a" * 129, "a\n"])
def test_what_cannot_be_a_session_is_not_opened_and_not_found(store: Store, name: str) -> None:
    session = session_named(name)
    with pytest.raises(InvalidArgument):
        store.open_session(session)
    with pytest.raises(SessionNotFound):
        store.load_session(session.key)
    with pytest.raises(SessionNotFound):
        store.replace_session(session)
    with pytest.raises(SessionNotFound):
        store.delete_session(session.key)
    assert list(store.plans(session.key)) == []
    assert store.counts(session.key) == {}
    assert store.states(session.key, [new_id()]) == {}
    assert store.sessions() == []


def test_a_session_of_another_owner_is_not_found(store: Store) -> None:
    store.open_session(session_named("work"))
    for key in (SessionKey("another", "work"), SessionKey(OWNER, "Work"), SessionKey(OWNER, "none")):
        with pytest.raises(SessionNotFound):
            store.load_session(key)
        with pytest.raises(SessionNotFound):
            store.replace_session(Session(key, 1))
        with pytest.raises(SessionNotFound):
            store.delete_session(key)


def test_a_change_of_a_session_counts_its_revision_up(store: Store) -> None:
    first = store.open_session(session_named("work"))
    second = store.replace_session(replace(first, title="two"))
    third = store.replace_session(replace(second, state=Closed(5, "over")))
    assert [second.revision, third.revision] == [1, 2]
    assert store.load_session(first.key) == third
    assert store.sessions(OWNER) == [third]


def test_a_stale_change_of_a_session_is_refused_and_changes_nothing(store: Store) -> None:
    first = store.open_session(session_named("work"))
    winner = store.replace_session(replace(first, title="winner"))
    for revision in (0, 2, 7):
        with pytest.raises(RevisionConflict):
            store.replace_session(replace(first, title="loser", revision=revision))
    assert store.load_session(first.key) == winner


def test_no_change_of_a_session_is_lost_between_eight_threads(store: Store) -> None:
    key = store.open_session(session_named("work")).key
    barrier = threading.Barrier(8)

    def count_up() -> None:
        barrier.wait()
        done = 0
        while done < 6:
            seen = store.load_session(key)
            try:
                store.replace_session(replace(seen, title=str(int(seen.title or "0") + 1)))
            except RevisionConflict:
                continue
            done += 1

    with ThreadPoolExecutor(8) as pool:
        for one in [pool.submit(count_up) for _ in range(8)]:
            one.result()
    last = store.load_session(key)
    assert (last.title, last.revision) == ("48", 48)


def test_a_deleted_session_takes_its_tasks_their_output_and_its_plans_along(store: Store) -> None:
    tasks = [finished(running("gone", key=str(number))) for number in range(3)]
    other = finished(running("other"))
    for task in (*tasks, other):
        (store.make_run_folder(task.key, 1) / "stdout").write_bytes(b"x" * 1000)
        store.create(task)
    plan, kept = plan_of("gone", tasks), plan_of("other", [other])
    store.create_plan(plan)
    store.create_plan(kept)
    freed = store.delete_session(tasks[0].key.session_key)
    assert 3000 <= freed < 30_000
    for task in tasks:
        with pytest.raises(TaskNotFound):
            store.load(task.key)
        with pytest.raises(TaskNotFound):
            store.locate(OWNER, task.key.task_id)
        with pytest.raises(TaskNotFound):
            store.replace(task)
        assert not store.run_folder(task.key, 1).exists()
    with pytest.raises(PlanNotFound):
        store.load_plan(plan.key)
    with pytest.raises(SessionNotFound):
        store.load_session(tasks[0].key.session_key)
    assert store.find_key(tasks[0].key.session_key, "1") is None
    assert store.counts(tasks[0].key.session_key) == {}
    assert store.count_tasks() == 1
    assert [one.key.session for one in store.sessions()] == ["other"]
    assert list(store.tasks(other.key.session_key)) == [other]
    assert list(store.plans(other.key.session_key)) == [kept]
    assert (store.run_folder(other.key, 1) / "stdout").stat().st_size == 1000
    assert list(store.verify()) == store.problems() == []


def test_a_deleted_session_comes_back_empty_with_its_next_task(store: Store) -> None:
    store.open_session(RICH)
    store.create(finished(running("Rich", key="k")))
    store.delete_session(RICH.key)
    task = pending("Rich", key="k")
    store.make_run_folder(task.key, 1)
    store.create(task)
    assert list(store.tasks(RICH.key)) == [task]
    assert store.load_session(RICH.key).title is None
    assert store.counts(RICH.key) == {"pending": 1}


@pytest.mark.parametrize("make", [pending, running, held_back])
def test_a_session_with_something_unfinished_is_not_deleted(store: Store, make: object) -> None:
    assert callable(make)
    over, works = finished(running("busy", key="k")), make("busy")
    for task in (over, works):
        store.create(task)
    with pytest.raises(TaskNotFinished):
        store.delete_session(works.key.session_key)
    assert list(store.tasks(works.key.session_key)) == [works, over]
    assert store.find_key(works.key.session_key, "k") == over


def test_a_plan_is_read_as_it_was(store: Store) -> None:
    tasks = [held_back(), held_back()]
    for task in tasks:
        store.create(task)
    plan = plan_of("default", tasks, name="ключ")
    store.create_plan(plan)
    assert store.load_plan(plan.key) == plan
    with pytest.raises(RevisionConflict):
        store.create_plan(replace(plan, name="other"))
    assert store.load_plan(plan.key) == plan


def test_plans_come_newest_first_and_in_their_own_session(store: Store) -> None:
    for name in ("one", "two"):
        store.open_session(session_named(name))
    plans = [plan_of("one", [pending("one")]) for _ in range(5)]
    for plan in plans[::2] + plans[1::2]:
        store.create_plan(plan)
    store.create_plan(plan_of("two", []))
    assert list(store.plans(SessionKey(OWNER, "one"))) == plans[::-1]
    assert list(store.plans(SessionKey("another", "one"))) == []
    for owner, session in ((OWNER, "two"), (OWNER, "none"), ("another", "one")):
        with pytest.raises(PlanNotFound):
            store.load_plan(PlanKey(owner, session, plans[0].key.plan_id))


def test_a_plan_needs_its_session_and_a_proper_id(store: Store) -> None:
    plan = plan_of("none", [])
    with pytest.raises(SessionNotFound):
        store.create_plan(plan)
    assert store.sessions() == []
    store.open_session(session_named("none"))
    bad = replace(plan, key=PlanKey(OWNER, "none", "../x"))
    with pytest.raises(InvalidArgument):
        store.create_plan(bad)
    with pytest.raises(PlanNotFound):
        store.load_plan(bad.key)
    store.delete_plan(bad.key)


def test_a_forgotten_plan_leaves_its_tasks(store: Store) -> None:
    task = held_back()
    store.create(task)
    plan = plan_of("default", [task])
    store.create_plan(plan)
    for _ in range(2):
        store.delete_plan(plan.key)
    with pytest.raises(PlanNotFound):
        store.load_plan(plan.key)
    assert list(store.plans(SESSION)) == []
    assert store.load(task.key) == task


def test_what_is_held_does_not_wait_for_a_place(store: Store) -> None:
    waits = pending()
    later = replace(pending(), state=Pending(not_before=1_800_000_000_000))
    after = replace(pending(), spec=replace(pending().spec, after=(waits.key.task_id,)))
    planned = held_back()
    for task in (planned, after, later, waits):
        store.create(task)
    assert store.pending() == [waits.key]
    assert store.held() == [later.key, after.key, planned.key]
    assert store.unfinished() == [waits.key, later.key, after.key, planned.key]


def test_what_is_held_leaves_the_list_when_it_starts_or_ends_and_comes_back_for_a_retry(store: Store) -> None:
    one, two = held_back(), held_back()
    for task in (one, two):
        store.create(task)
    first = store.replace(started(one))
    assert store.held() == [two.key]
    ended = store.replace(finished(two, Cancelled(None, None)))
    assert ended.is_final
    assert (store.held(), store.pending(), store.unfinished()) == ([], [], [one.key])
    again = store.replace(replace(first, state=Pending(2, 1_800_000_000_000)))
    assert again.is_held
    assert (store.held(), store.pending(), store.unfinished()) == ([one.key], [], [one.key])
    freed = store.replace(replace(again, state=Pending(2)))
    assert not freed.is_held
    assert (store.held(), store.pending(), store.unfinished()) == ([], [one.key], [one.key])
    store.delete(one.key)
    assert (store.held(), store.pending(), store.unfinished()) == ([], [], [])


def test_a_session_counts_its_tasks_by_state(store: Store) -> None:
    assert store.counts(SESSION) == {}
    tasks = [pending(), held_back(), running(), running(), finished(running())]
    for task in (*tasks, pending("other"), running(owner="another")):
        store.create(task)
    assert store.counts(SESSION) == {"pending": 2, "running": 2, "completed": 1}
    store.replace(finished(tasks[2], Exited(1)))
    store.replace(started(tasks[0]))
    assert store.counts(SESSION) == {"pending": 1, "running": 2, "completed": 1, "failed": 1}
    store.delete(tasks[4].key)
    store.delete(tasks[1].key)
    assert store.counts(SESSION) == {"running": 2, "failed": 1}
    assert store.count_tasks() == 5


def test_the_states_of_many_tasks_are_told_at_once(store: Store) -> None:
    tasks = [pending(), held_back(), running(), finished(running()), finished(running(), Exited(2))]
    foreign = pending("other")
    for task in (*tasks, foreign):
        store.create(task)
    ids = [task.key.task_id for task in tasks]
    names = ["pending", "pending", "running", "completed", "failed"]
    assert store.states(SESSION, [*ids, new_id(), foreign.key.task_id, "../x"]) == dict(
        zip(ids, names, strict=True)
    )
    assert store.states(SESSION, []) == {}
    store.replace(finished(tasks[2]))
    store.delete(tasks[0].key)
    assert store.states(SESSION, ids[:3]) == {ids[1]: "pending", ids[2]: "completed"}


def test_hundreds_of_states_are_told_at_once(store: Store) -> None:
    tasks = [finished(running()) for _ in range(450)]
    for task in tasks:
        store.create(task)
    assert store.states(SESSION, [task.key.task_id for task in tasks]) == dict.fromkeys(
        (task.key.task_id for task in tasks), "completed"
    )
    assert [task.key for task in store.tasks(SESSION)] == [task.key for task in tasks[::-1]]


def test_verifying_a_sound_store_finds_nothing_and_changes_nothing(store: Store) -> None:
    store.open_session(RICH)
    tasks = [pending(key="k"), held_back(), running("Rich"), finished(running(owner="x" * 200))]
    for task in tasks:
        store.create(task)
    plan = plan_of("default", tasks[:2])
    store.create_plan(plan)
    assert list(store.verify()) == []
    assert store.problems() == []
    assert [store.load(task.key) for task in tasks] == tasks
    assert store.load_plan(plan.key) == plan


def test_names_that_no_text_can_hold_are_not_found(store: Store) -> None:
    store.create(pending())
    for owner in ("\ud800", "a\0b", ""):
        with pytest.raises(SessionNotFound):
            store.load_session(SessionKey(owner, "default"))
        with pytest.raises(TaskNotFound):
            store.load(TaskKey(owner, "default", new_id()))
        with pytest.raises(TaskNotFound):
            store.locate(owner, new_id())
        assert store.sessions(owner) == []
        assert list(store.tasks(SessionKey(owner, "default"))) == []
    assert store.find_key(SESSION, "\ud800") is None
