"""What every store promises; see `mcp_tasks.ports.Store`."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_tasks.errors import InvalidArgument, KeyConflict, RevisionConflict, StoreUnavailable, TaskNotFound
from mcp_tasks.models import (
    Cancelled,
    DependencyFailed,
    Exited,
    Lost,
    Outcome,
    OutputLimit,
    SessionKey,
    Signalled,
    SpawnFailure,
    Task,
    TaskKey,
    TimedOut,
)
from mcp_tasks.ports import Store
from tests.stores.records import OWNER, SESSION, finished, new_id, pending, relabelled, running, started

BAD_IDS = [
    "",
    "x",
    "../../../../etc/passwd",
    "0" * 35,
    "0" * 37,
    "A" * 36,
    "0" * 35 + "/",
    "é" * 36,
    "0" * 36 + "\n",
]
BAD_SESSIONS = ["", ".", "..", "a/b", "../x", "a b", "é", "a" * 129, "a\n", "a\0b"]


def test_a_task_that_was_created_is_read_as_it_was(store: Store) -> None:
    task = pending(key="k")
    store.create(task)
    assert store.load(task.key) == task


@pytest.mark.parametrize(
    "outcome",
    [
        Exited(3),
        Signalled("SIGSEGV"),
        TimedOut(None, "SIGKILL"),
        Cancelled(0, None),
        OutputLimit(None, "SIGKILL", "too much"),
        SpawnFailure("no such file", "check the path"),
        DependencyFailed("0" * 36),
        Lost("nobody saw it"),
    ],
)
def test_every_outcome_comes_back_as_it_was(store: Store, outcome: Outcome) -> None:
    task = running()
    store.create(task)
    over = store.replace(finished(task, outcome))
    assert store.load(task.key) == over
    assert over.is_final


def test_text_of_every_script_and_control_characters_come_back(store: Store) -> None:
    task = relabelled(pending(), 'ключ\u0000\u001b[31m"\\\u2028\U0001f600')
    store.create(task)
    assert store.load(task.key) == task


def test_the_same_id_cannot_be_created_twice(store: Store) -> None:
    task = pending()
    store.create(task)
    with pytest.raises(RevisionConflict):
        store.create(relabelled(task, "other"))
    assert store.load(task.key) == task


def test_a_task_may_be_created_final(store: Store) -> None:
    task = finished(running())
    store.create(task)
    assert store.load(task.key) == task
    assert store.unfinished() == []


@pytest.mark.parametrize("task_id", BAD_IDS)
def test_what_cannot_be_an_id_is_not_found_and_not_created(store: Store, task_id: str) -> None:
    task = pending()
    store.create(task)
    bad = replace(task, key=TaskKey(OWNER, "default", task_id))
    with pytest.raises(TaskNotFound):
        store.load(bad.key)
    with pytest.raises(TaskNotFound):
        store.replace(bad)
    with pytest.raises(TaskNotFound):
        store.delete(bad.key)
    with pytest.raises(TaskNotFound):
        store.locate(OWNER, task_id)
    with pytest.raises(TaskNotFound):
        store.run_folder(bad.key, 1)
    with pytest.raises(InvalidArgument):
        store.create(bad)


@pytest.mark.parametrize("session", BAD_SESSIONS)
def test_what_cannot_be_a_session_is_empty_and_not_created(store: Store, session: str) -> None:
    task = pending(session)
    with pytest.raises(InvalidArgument):
        store.create(task)
    with pytest.raises(TaskNotFound):
        store.load(task.key)
    with pytest.raises(TaskNotFound):
        store.run_folder(task.key, 1)
    assert list(store.tasks(task.key.session_key)) == []
    assert store.find_key(task.key.session_key, "k") is None
    assert store.sessions() == []


def test_a_task_is_seen_in_its_own_session_and_by_its_own_owner_only(store: Store) -> None:
    task = pending("one")
    store.create(task)
    store.create(pending("two"))
    store.create(pending("one", owner="another"))
    for owner, session in ((OWNER, "two"), (OWNER, "none"), ("another", "one")):
        foreign = TaskKey(owner, session, task.key.task_id)
        with pytest.raises(TaskNotFound):
            store.load(foreign)
        with pytest.raises(TaskNotFound):
            store.replace(replace(task, key=foreign))
        with pytest.raises(TaskNotFound):
            store.delete(foreign)
    assert list(store.tasks(SessionKey(OWNER, "one"))) == [task]


def test_an_id_is_located_in_any_session_of_its_owner(store: Store) -> None:
    tasks = [pending(session) for session in ("default", "Work", "work")]
    for task in tasks:
        store.create(task)
    for task in tasks:
        assert store.locate(OWNER, task.key.task_id) == task.key
        with pytest.raises(TaskNotFound):
            store.locate("another", task.key.task_id)
    with pytest.raises(TaskNotFound):
        store.locate(OWNER, new_id())


def test_a_replacement_counts_the_revision_up(store: Store) -> None:
    task = pending()
    store.create(task)
    second = store.replace(started(task))
    third = store.replace(finished(second))
    assert [second.revision, third.revision] == [1, 2]
    assert store.load(task.key) == third


def test_a_stale_replacement_is_refused_and_changes_nothing(store: Store) -> None:
    task = pending()
    store.create(task)
    winner = store.replace(relabelled(task, "winner"))
    with pytest.raises(RevisionConflict):
        store.replace(relabelled(task, "loser"))
    with pytest.raises(RevisionConflict):
        store.replace(replace(winner, revision=7))
    assert store.load(task.key) == winner


def test_what_was_never_there_can_neither_be_replaced_nor_deleted(store: Store) -> None:
    task = pending()
    for _ in range(2):
        with pytest.raises(TaskNotFound):
            store.load(task.key)
        with pytest.raises(TaskNotFound):
            store.replace(task)
        with pytest.raises(TaskNotFound):
            store.delete(task.key)
        store.create(pending())  # once without the session, once with it


def test_reading_makes_no_session(store: Store) -> None:
    assert list(store.tasks(SESSION)) == []
    assert store.find_key(SESSION, "k") is None
    with pytest.raises(TaskNotFound):
        store.load(pending().key)
    store.run_folder(pending().key, 1)
    assert store.sessions() == []


def test_a_deleted_task_is_gone_and_cannot_come_back_by_a_late_write(store: Store) -> None:
    task = running(key="k")
    store.create(task)
    store.delete(task.key)
    with pytest.raises(TaskNotFound):
        store.replace(finished(task))
    with pytest.raises(TaskNotFound):
        store.load(task.key)
    with pytest.raises(TaskNotFound):
        store.locate(OWNER, task.key.task_id)
    assert list(store.tasks(SESSION)) == []
    assert store.unfinished() == []
    assert store.find_key(SESSION, "k") is None
    assert [session.key for session in store.sessions()] == [SESSION]


def test_deleting_removes_the_runs_and_tells_the_bytes(store: Store) -> None:
    task = finished(running())
    other = finished(running())
    for one in (task, other):
        for run in (1, 2):
            folder = store.run_folder(one.key, run)
            folder.mkdir(parents=True, mode=0o700)
            (folder / "stdout").write_bytes(b"x" * 1000)
        store.create(one)
    freed = store.delete(task.key)
    assert 2000 <= freed < 4000
    assert not store.run_folder(task.key, 1).exists()
    assert not store.run_folder(task.key, 2).exists()
    assert store.run_folder(other.key, 2).joinpath("stdout").stat().st_size == 1000


def test_the_run_folder_may_be_made_before_the_task_is_created(store: Store) -> None:
    task = running()
    folder = store.run_folder(task.key, 1)
    folder.mkdir(parents=True, mode=0o700)
    (folder / "stdout").write_bytes(b"early")
    store.create(task)
    assert store.load(task.key) == task
    assert (store.run_folder(task.key, 1) / "stdout").read_bytes() == b"early"


def test_a_run_folder_is_made_for_its_owner_only_and_may_be_there_already(store: Store) -> None:
    task = running("its-own")
    before = os.umask(0o777)
    try:
        folder = store.make_run_folder(task.key, 1)
    finally:
        os.umask(before)
    assert folder == store.run_folder(task.key, 1)
    assert {place.stat().st_mode & 0o777 for place in (folder, *folder.parents[:4])} == {0o700}
    (folder / "stdout").write_bytes(b"early")
    assert store.make_run_folder(task.key, 1) == folder
    store.create(task)
    assert (folder / "stdout").read_bytes() == b"early"
    with pytest.raises(TaskNotFound):
        store.make_run_folder(replace(task.key, task_id="../x"), 1)
    with pytest.raises(TaskNotFound):
        store.make_run_folder(replace(task.key, session=".."), 1)


@pytest.mark.parametrize("step", ["runs", "session", "owner", "run"])
def test_no_run_folder_is_made_through_a_planted_link(store: Store, tmp_path: Path, step: str) -> None:
    task = running()
    folder = store.make_run_folder(task.key, 1)
    store.create(task)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    planted = folder.parents[["runs", "session", "owner"].index(step)] if step != "run" else folder
    planted.rename(tmp_path / "aside")
    planted.symlink_to(elsewhere)
    with pytest.raises(StoreUnavailable, match="link"):
        store.make_run_folder(task.key, 1)
    assert list(elsewhere.iterdir()) == []


def test_sweeping_leaves_alone_what_is_used(store: Store) -> None:
    tasks = [pending(), running(), finished(running())]
    for task in tasks:
        (store.make_run_folder(task.key, 1) / "stdout").write_bytes(b"x")
        store.create(task)
    early = store.make_run_folder(pending().key, 1)
    store.sweep()
    assert [store.run_folder(task.key, 1).joinpath("stdout").exists() for task in tasks] == [True] * 3
    assert early.exists()
    assert store.problems() == []


def test_run_folders_of_different_runs_tasks_and_sessions_are_apart(store: Store) -> None:
    one, two = pending("Mixed"), pending("mixed")
    twin = TaskKey(OWNER, "mixed", one.key.task_id)
    folders = {store.run_folder(key, run) for key in (one.key, two.key, twin) for run in (1, 2)}
    assert len({str(folder).lower() for folder in folders}) == 6


def test_an_idempotency_key_belongs_to_one_task_of_a_session(store: Store) -> None:
    first = pending(key="build")
    store.create(first)
    assert store.find_key(SESSION, "build") == first
    with pytest.raises(KeyConflict) as refused:
        store.create(pending(key="build"))
    assert first.key.task_id in refused.value.message
    store.create(pending("elsewhere", key="build"))
    store.create(pending(key="Build"))
    assert store.find_key(SESSION, "build") == first
    assert store.find_key(SESSION, "other") is None
    assert len(list(store.tasks(SESSION))) == 2


def test_an_idempotency_key_is_held_after_the_end_and_free_after_the_clearing(store: Store) -> None:
    first = running(key="../\0 any text")
    store.create(first)
    first = store.replace(finished(first))
    with pytest.raises(KeyConflict):
        store.create(pending(key=first.spec.key))
    store.delete(first.key)
    second = pending(key=first.spec.key)
    store.create(second)
    assert store.find_key(SESSION, str(first.spec.key)) == second


def test_tasks_come_newest_first(store: Store) -> None:
    tasks = [pending() for _ in range(7)]
    for task in tasks[::2] + tasks[1::2]:
        store.create(task)
    assert list(store.tasks(SESSION)) == tasks[::-1]


def test_a_task_that_is_cleared_during_a_listing_is_left_out_of_its_rest(store: Store) -> None:
    tasks = [pending() for _ in range(3)]
    for task in tasks:
        store.create(task)
    listing = store.tasks(SESSION)
    assert next(listing) == tasks[2]
    store.delete(tasks[1].key)
    assert list(listing) == [tasks[0]]


def test_unfinished_and_pending_tasks_of_all_sessions_come_oldest_first(store: Store) -> None:
    waiting, works, ends = pending("B"), running("a", owner="http://x/Other%20one" * 9), running("b")
    for task in (ends, works, waiting):
        store.create(task)
    assert store.unfinished() == [waiting.key, works.key, ends.key]
    assert store.pending() == [waiting.key]
    store.replace(finished(ends))
    store.replace(started(waiting))
    assert store.unfinished() == [waiting.key, works.key]
    assert store.pending() == []
    store.delete(works.key)
    assert store.unfinished() == [waiting.key]


def test_a_task_that_waits_again_is_listed_again(store: Store) -> None:
    task = running()
    store.create(task)
    over = store.replace(finished(task))
    again = store.replace(replace(over, state=pending().state))
    assert store.unfinished() == store.pending() == [task.key]
    assert store.load(task.key) == again


def test_tasks_are_counted(store: Store) -> None:
    assert store.count_tasks() == 0
    tasks = [running("one"), running("two"), running("two", owner="another")]
    for task in tasks:
        store.create(task)
    assert store.count_tasks() == 3
    store.delete(tasks[0].key)
    assert store.count_tasks() == 2


def test_sessions_come_by_name_and_keep_their_first_moment(store: Store) -> None:
    for session, owner in (("b", OWNER), ("B", OWNER), ("a", "another"), ("b", OWNER), ("con", OWNER)):
        store.create(pending(session, owner=owner))
    names = [session.key for session in store.sessions()]
    assert names == [SessionKey("another", "a"), *(SessionKey(OWNER, name) for name in ("B", "b", "con"))]
    assert [session.key.session for session in store.sessions("another")] == ["a"]
    assert store.sessions("nobody") == []
    assert {session.created_at for session in store.sessions()} == {1_700_000_000_000}


def test_no_update_is_lost_between_eight_threads(store: Store) -> None:
    task = running()
    store.create(task)
    barrier = threading.Barrier(8)

    def count_up() -> int:
        barrier.wait()
        done = 0
        while done < 12:
            seen = store.load(task.key)
            try:
                store.replace(relabelled(seen, str(int(seen.spec.label or "0") + 1)))
            except RevisionConflict:
                continue
            done += 1
        return done

    with ThreadPoolExecutor(8) as pool:
        total = sum(pool.map(lambda _: count_up(), range(8)))
    last = store.load(task.key)
    assert (last.spec.label, last.revision) == (str(total), total) == ("96", 96)


def test_of_eight_threads_with_one_key_one_creates(store: Store) -> None:
    tasks = [pending(key="once") for _ in range(8)]
    barrier = threading.Barrier(8)

    def create(task: Task) -> bool:
        barrier.wait()
        try:
            store.create(task)
        except KeyConflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [task for task, created in zip(tasks, pool.map(create, tasks), strict=True) if created]
    assert len(won) == 1
    assert list(store.tasks(SESSION)) == won
    assert store.find_key(SESSION, "once") == won[0]


def test_admission_is_held_by_one_thread_at_a_time(store: Store) -> None:
    inside: list[int] = []
    most: list[int] = []
    barrier = threading.Barrier(4)

    def enter() -> None:
        barrier.wait()
        for _ in range(10):
            with store.admission():
                inside.append(1)
                most.append(len(inside))
                store.unfinished()
                inside.pop()

    with ThreadPoolExecutor(4) as pool:
        for entered in [pool.submit(enter) for _ in range(4)]:
            entered.result()
    assert max(most) == 1
    assert len(most) == 40


def test_the_folder_of_places_is_there_and_nothing_is_amiss(store: Store) -> None:
    assert store.slots.is_dir()
    assert store.slots.stat().st_mode & 0o777 == 0o700
    assert store.problems() == []
