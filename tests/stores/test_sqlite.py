"""What only the SQLite store can meet: broken rows, a broken database, and the ways its queries take."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mcp_tasks.clock import Clock
from mcp_tasks.codec import SCHEMA, NewerSchema
from mcp_tasks.errors import (
    KeyConflict,
    PlanNotFound,
    StoreUnavailable,
    TaskNotFinished,
    TaskNotFound,
)
from mcp_tasks.models import Cancelled, Exited, SessionKey, Task, TaskKey
from mcp_tasks.stores.database import connections
from mcp_tasks.stores.json.store import JsonFileStore
from mcp_tasks.stores.sqlite.store import SqliteStore
from tests.stores import faulty_os
from tests.stores.faulty_sqlite import fail, faulty_sqlite
from tests.stores.records import (
    OWNER,
    SESSION,
    finished,
    new_id,
    pending,
    plan_of,
    running,
    session_named,
    started,
)
from tests.stores.scenarios import SCENARIOS, Scenario, everything, inconsistencies

LONG_AGO = (1_700_000_000, 1_700_000_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(root: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(root)) as opened:
        yield opened


def rewrite(root: Path, query: str, *values: object) -> None:
    """What a disk, or somebody with an editor, does to a row."""
    with closing(sqlite3.connect(root / "records.db")) as database:
        assert database.execute(query, values).rowcount > 0
        database.commit()


def spoil(root: Path, task: Task, data: object) -> None:
    rewrite(root, "UPDATE tasks SET data = ? WHERE task_id = ?", data, task.key.task_id)


def kept(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in (root / "quarantine").iterdir() if path.suffix == ".json"]


@pytest.mark.parametrize("data", [b"", b"{", b"\0" * 50, b'{"schema": 1, "kind": "task"}', "text"])
def test_a_broken_row_is_set_aside_with_every_byte_and_the_others_are_well(
    root: Path, store: SqliteStore, data: object
) -> None:
    tasks = [pending(key=str(number)) for number in range(3)]
    for task in tasks:
        store.create(task)
    spoil(root, tasks[1], data)
    assert list(store.tasks(SESSION)) == [tasks[2], tasks[0]]
    with pytest.raises(TaskNotFound):
        store.load(tasks[1].key)
    assert kept(root) == [data if isinstance(data, bytes) else str(data).encode()]
    (problem,) = store.problems()
    assert tasks[1].key.task_id in problem
    assert "quarantine/" in problem
    assert store.pending() == [tasks[0].key, tasks[2].key]
    assert store.counts(SESSION) == {"pending": 2}
    again = replace(tasks[1], key=pending().key)
    store.create(again)
    assert store.find_key(SESSION, "1") == again
    assert list(store.verify()) == []


def test_a_row_with_the_record_of_another_task_is_set_aside(root: Path, store: SqliteStore) -> None:
    one, two = pending(), pending()
    for task in (one, two):
        store.create(task)
    rewrite(
        root,
        "UPDATE tasks SET data = (SELECT data FROM tasks WHERE task_id = ?) WHERE task_id = ?",
        one.key.task_id,
        two.key.task_id,
    )
    assert list(store.tasks(SESSION)) == [one]
    assert "another task's" in store.problems()[0]


@pytest.mark.parametrize(
    "write",
    [
        lambda store, task: store.replace(started(task)),
        lambda store, task: store.delete(task.key),
    ],
)
def test_a_broken_row_that_is_to_be_written_is_set_aside_and_not_overwritten(
    root: Path, store: SqliteStore, write: Callable[[SqliteStore, Task], object]
) -> None:
    task = pending()
    store.create(task)
    spoil(root, task, b"broken")
    with pytest.raises(TaskNotFound):
        write(store, task)
    assert kept(root) == [b"broken"]
    assert list(store.tasks(SESSION)) == []


def test_a_key_whose_holder_is_broken_is_free(root: Path, store: SqliteStore) -> None:
    task, other = pending(key="k"), pending(key="k")
    store.create(task)
    spoil(root, task, b"broken")
    store.create(other)
    assert list(store.tasks(SESSION)) == [other]
    assert kept(root) == [b"broken"]
    spoil(root, other, b"broken, too")
    assert store.find_key(SESSION, "k") is None


def test_a_record_of_a_newer_version_is_named_and_left_as_it_is(root: Path, store: SqliteStore) -> None:
    newer, well = pending(key="k"), pending()
    for task in (newer, well):
        store.create(task)
    data = json.dumps({"schema": SCHEMA + 1, "kind": "task", "task": {}}).encode()
    spoil(root, newer, data)
    assert list(store.tasks(SESSION)) == [well]
    for use in (
        lambda: store.load(newer.key),
        lambda: store.replace(newer),
        lambda: store.delete(newer.key),
        lambda: store.create(pending(key="k")),
    ):
        with pytest.raises(NewerSchema):
            use()
    assert kept(root) == []
    assert any("newer version" in problem for problem in store.problems())
    assert [sentence for sentence in store.verify() if "newer version" in sentence]
    with closing(sqlite3.connect(root / "records.db")) as database:
        assert database.execute("SELECT data FROM tasks WHERE key = 'k'").fetchone() == (data,)


def test_a_session_whose_row_is_broken_goes_on_with_its_tasks(root: Path, store: SqliteStore) -> None:
    store.open_session(replace(session_named("default"), title="gone"))
    task = pending()
    store.create(task)
    rewrite(root, "UPDATE sessions SET data = ?", b"broken")
    left = store.load_session(SESSION)
    assert (left.key, left.created_at, left.title, left.revision) == (SESSION, 1_700_000_000_000, None, 1)
    assert store.sessions() == [left]
    assert list(store.tasks(SESSION)) == [task]
    assert kept(root) == [b"broken"]
    assert store.replace_session(left).revision == 2


def test_a_session_of_a_newer_version_takes_no_task(root: Path, store: SqliteStore) -> None:
    store.open_session(session_named("default"))
    data = json.dumps({"schema": SCHEMA + 1, "kind": "session", "session": {}}).encode()
    rewrite(root, "UPDATE sessions SET data = ?", data)
    with closing(SqliteStore(root)) as other, pytest.raises(NewerSchema):
        other.create(pending())
    assert store.sessions() == []
    with pytest.raises(NewerSchema):
        store.load_session(SESSION)
    assert store.count_tasks() == 0


def test_a_broken_plan_is_set_aside(root: Path, store: SqliteStore) -> None:
    store.open_session(session_named("default"))
    plan, well = plan_of("default", []), plan_of("default", [])
    for one in (plan, well):
        store.create_plan(one)
    rewrite(root, "UPDATE plans SET data = x'00' WHERE plan_id = ?", plan.key.plan_id)
    assert list(store.plans(SESSION)) == [well]
    with pytest.raises(PlanNotFound):
        store.load_plan(plan.key)
    assert kept(root) == [b"\0"]


def test_what_cannot_be_set_aside_is_reported_and_left(root: Path, store: SqliteStore) -> None:
    task, well = pending(), pending()
    for one in (task, well):
        store.create(one)
    spoil(root, task, b"broken")
    with faulty_os.faulty(0, only_writes_fail):
        assert list(store.tasks(SESSION)) == [well]
    assert any("could not be set aside" in problem for problem in store.problems())
    assert list(store.tasks(SESSION)) == [well]
    assert kept(root) == [b"broken"]


def only_writes_fail(
    name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if name == "write":
        raise OSError(errno.ENOSPC, "full")
    return real(*args, **kwargs)


def test_verifying_names_each_thing_that_is_wrong(root: Path, store: SqliteStore) -> None:
    tasks = [pending(key="k"), running(), finished(running()), pending("lost")]
    for task in tasks:
        store.create(task)
    store.create_plan(plan_of("default", tasks))
    spoil(root, tasks[0], b"broken")
    rewrite(root, "UPDATE tasks SET revision = 9 WHERE task_id = ?", tasks[1].key.task_id)
    rewrite(root, "UPDATE counts SET number = 7 WHERE state = 'completed'")
    rewrite(root, "DELETE FROM counts WHERE state = 'running'")
    rewrite(root, "DELETE FROM sessions WHERE session = 'lost'")
    rewrite(root, "UPDATE plans SET data = x'00'")
    said = "\n".join(store.verify())
    for part in (
        f"task {tasks[0].key.task_id}: not JSON",
        f"task {tasks[1].key.task_id}: its record and what it is found by differ",
        "session default: 1 tasks are completed, and 7 are counted",
        "session default: 1 tasks are running, and none is counted",
        f"{tasks[3].key.task_id} of tasks: there is no session lost",
        "plan ",
    ):
        assert part in said
    assert sorted(kept(root)) == [b"\0", b"broken"]
    assert store.load(tasks[2].key) == tasks[2]


def test_a_session_that_was_lost_with_a_part_of_the_database_comes_back(root: Path) -> None:
    with closing(SqliteStore(root)) as store:
        task = pending("lost")
        store.create(task)
    rewrite(root, "DELETE FROM sessions")
    with closing(SqliteStore(root)) as store:
        assert [session.key for session in store.sessions()] == [task.key.session_key]
        assert list(store.tasks(task.key.session_key)) == [task]
        assert store.locate(OWNER, task.key.task_id) == task.key
        assert list(store.verify()) == []


@pytest.mark.parametrize("when", ["before it is opened", "while it is open"])
def test_a_broken_database_gives_back_the_records_that_can_be_read(root: Path, when: str) -> None:
    with closing(SqliteStore(root)) as store:
        tasks = [finished(pending(f"s{number % 4}", key=str(number))) for number in range(400)]
        for task in tasks:
            store.create(task)
    store = SqliteStore(root)
    if when == "before it is opened":
        store.close()
    size = (root / "records.db").stat().st_size
    with (root / "records.db").open("r+b") as file:
        for page in range(20, size // 4096, 17):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    broken = (root / "records.db").read_bytes()
    if when == "before it is opened":
        store = SqliteStore(root)
    with closing(store):
        found = [task for session in store.sessions() for task in store.tasks(session.key)]
        list(store.verify())
        found = [task for session in store.sessions() for task in store.tasks(session.key)]
        assert 200 < len(found) < 400
        assert {task.key for task in found} <= {task.key for task in tasks}
        assert store.count_tasks() == len(found)
        assert all(task in tasks for task in found)
        assert any("records.db could not be read" in problem for problem in store.problems())
        assert broken in [path.read_bytes() for path in (root / "quarantine").glob("*records.db")]
        assert list(store.verify()) == []
        store.create(pending())


def test_who_is_killed_while_a_database_is_set_aside_takes_no_commit_with_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteStore(root).close()
    other = sqlite3.connect(root / "records.db")
    other.execute("PRAGMA wal_autocheckpoint = 0")
    other.execute("SELECT count(*) FROM tasks").fetchone()  # so that the log outlives the store
    store = SqliteStore(root)
    task = pending()
    store.create(task)
    assert (root / "records.db-wal").stat().st_size > 0

    def killed(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mcp_tasks.stores.database.database.os.replace", killed)
        with pytest.raises(KeyboardInterrupt), store._database._turn.held():
            store._database._replace("a test")
    assert not (root / "records.db-wal").exists()
    store._database._idle.clear()
    other.close()

    with closing(SqliteStore(root)) as again:
        assert again.load(task.key) == task
        assert list(again.verify()) == []
    assert not [path for path in (root / "quarantine").iterdir() if "records.db" in path.name]


def test_a_state_directory_of_another_adapter_is_refused(root: Path) -> None:
    SqliteStore(root).close()
    with pytest.raises(StoreUnavailable, match="sqlite"):
        JsonFileStore(root)
    assert not (root / "active").exists()


def test_what_killed_processes_left_of_runs_is_swept(root: Path, store: SqliteStore) -> None:
    over = finished(running(owner="x" * 200), Cancelled(None, None))
    waiting, young, held, orphan, broken = pending(), pending(), pending(), pending(), finished(running())
    folders: dict[str, Path] = {}
    for task in (over, waiting, young, held, orphan, broken):
        folder = folders[task.key.task_id] = store.make_run_folder(task.key, 1)
        (folder / "launch").write_text("SECRET=1")
        (folder / "stdout").write_text("out")
        if task is not young:
            os.utime(folder, LONG_AGO)
    for task in (over, waiting, broken):
        store.create(task)
    spoil(root, broken, b"broken")
    assert list(store.tasks(broken.key.session_key)) == [waiting]
    lock = os.open(folders[held.key.task_id], os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store.sweep()
    finally:
        os.close(lock)
    there = {task_id: folder.exists() for task_id, folder in folders.items()}
    assert there == {**dict.fromkeys(folders, True), orphan.key.task_id: False}
    assert not (folders[over.key.task_id] / "launch").exists()
    assert (folders[over.key.task_id] / "stdout").exists()
    assert (folders[waiting.key.task_id] / "launch").exists()


def test_a_session_in_which_something_is_being_started_is_not_deleted(store: SqliteStore) -> None:
    store.create(finished(running()))
    folder = store.make_run_folder(pending().key, 1)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TaskNotFinished):
            store.delete_session(SESSION)
    finally:
        os.close(lock)
    assert store.delete_session(SESSION) == 0
    assert folder.exists(), "somebody may be about to register its task"


def test_what_is_parked_while_a_session_is_deleted_keeps_its_launch(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, parked = finished(running()), pending()
    (store.make_run_folder(over.key, 1) / "stdout").write_text("out")
    store.create(over)
    real = store._runs.remove_all

    def slow(session: SessionKey, task_ids: Collection[str]) -> int:
        (store.make_run_folder(parked.key, 1) / "launch").write_text("make all")
        freed = real(session, task_ids)
        store.create(parked)
        return freed

    monkeypatch.setattr(store._runs, "remove_all", slow)
    assert store.delete_session(SESSION) == 3
    assert (store.run_folder(parked.key, 1) / "launch").exists()
    assert not store.run_folder(over.key, 1).exists()
    assert store.pending() == [parked.key]


def test_the_output_of_tasks_whose_database_broke_stays(root: Path) -> None:
    with closing(SqliteStore(root)) as store:
        task = finished(running())
        folder = store.make_run_folder(task.key, 1)
        (folder / "stdout").write_text("precious")
        os.utime(folder, LONG_AGO)
        store.create(task)
    (root / "records.db").write_bytes(b"")
    with closing(SqliteStore(root)) as store:
        later = TaskKey(OWNER, "default", Clock().new_task_id())
        left = store.make_run_folder(later, 1)
        os.utime(left, LONG_AGO)
        with pytest.raises(TaskNotFound):
            store.load(task.key)
        store.sweep()
    assert (folder / "stdout").exists()
    assert not left.exists(), "it came after the database broke"


def test_the_output_of_tasks_whose_database_is_missing_stays(root: Path) -> None:
    with closing(SqliteStore(root)) as store:
        task = finished(running())
        folder = store.make_run_folder(task.key, 1)
        (folder / "stdout").write_text("precious")
        os.utime(folder, LONG_AGO)
        store.create(task)
    (root / "records.db").unlink()
    with closing(SqliteStore(root)) as store:
        store.sweep()
        assert any("missing" in problem for problem in store.problems())
    assert (folder / "stdout").exists()


def test_the_output_of_a_broken_row_stays_however_long_the_name_of_its_session(
    root: Path, store: SqliteStore
) -> None:
    task = finished(running("X" * 128))
    folder = store.make_run_folder(task.key, 1)
    os.utime(folder, LONG_AGO)
    store.create(task)
    spoil(root, task, b"broken")
    assert list(store.tasks(task.key.session_key)) == []
    store.sweep()
    assert folder.exists()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT owner, session, task_id FROM tasks WHERE open IS NOT NULL ORDER BY task_id",
        "SELECT owner, session, task_id FROM tasks WHERE open = ? ORDER BY task_id",
        "SELECT task_id FROM tasks WHERE owner = ? AND session = ? AND task_id < ? ORDER BY task_id DESC",
        "SELECT task_id FROM tasks WHERE owner = ? AND session = ? AND state = ? ORDER BY task_id DESC",
    ],
)
def test_no_listing_looks_at_more_than_an_index(root: Path, store: SqliteStore, query: str) -> None:
    with store._database.reading() as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", ["x"] * query.count("?")).fetchall()
    assert "COVERING INDEX" in plan[0][3]
    assert "TEMP B-TREE" not in str(plan) or "open IS NOT NULL" in query


def test_the_states_of_some_tasks_cost_no_look_at_the_others(root: Path, store: SqliteStore) -> None:
    seen: list[str] = []
    with store._database.reading() as connection:
        connection.set_trace_callback(seen.append)
    store.states(SESSION, [new_id(), new_id()])
    with store._database.reading() as connection:
        connection.set_trace_callback(None)
        (query,) = (one for one in seen if "task_id IN" in one)
        plan = connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
    assert "(owner=? AND session=? AND task_id=?)" in plan[0][3]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_failing_at_any_write_it_changes_nothing_and_works_again(
    root: Path, store: SqliteStore, scenario: Scenario, number: int
) -> None:
    store.create(running(key="held"))
    refused = at = 0
    while True:
        at += 1
        task = scenario.prepare(store)
        before = everything(store)
        message = ""
        with faulty_sqlite(at, fail(number)) as faults:
            try:
                scenario.act(store, task)
            except StoreUnavailable as error:
                message = str(error)
        where = f"{faults.hit}, call {at}"
        with closing(SqliteStore(root)) as other:
            after = everything(other)
        if message:
            refused += 1
            assert str(root) not in message
            assert after == before, where
            scenario.act(store, task)
            after = everything(store)
        assert after.get(task.key.task_id) == scenario.new(task), where
        assert {**after, task.key.task_id: None} == {**before, task.key.task_id: None}, where
        assert inconsistencies(store, after) == [], where
        if not faults.hit:
            break
    assert refused > 3


def test_a_disk_that_stays_full_refuses_every_write_and_still_reads(root: Path, store: SqliteStore) -> None:
    task, ended = running(), finished(running())
    for one in (task, ended):
        store.create(one)
    with faulty_sqlite(0, fail(errno.ENOSPC)):
        for write in (
            lambda: store.create(pending()),
            lambda: store.replace(finished(task, Exited(1))),
            lambda: store.delete(ended.key),
            lambda: store.open_session(session_named("new")),
            lambda: store.replace_session(store.load_session(SESSION)),
        ):
            with pytest.raises(StoreUnavailable, match="disk is full"):
                write()
        assert store.load(task.key) == task
        assert store.unfinished() == [task.key]
        assert list(store.tasks(SESSION)) == [ended, task]
    assert store.replace(task).revision == 1
    assert list(store.verify()) == []


def test_a_database_that_another_program_keeps_locked_is_read_and_not_written(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_BUSY_SECONDS", 0.05)
    with closing(SqliteStore(root)) as store:
        store.create(task := pending(key="k"))
        with closing(sqlite3.connect(root / "records.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="locked"):
                store.replace(started(task))
            assert store.load(task.key) == task
        with pytest.raises(KeyConflict):
            store.create(pending(key="k"))


def test_the_files_of_a_store_are_for_their_owner_only(root: Path, store: SqliteStore) -> None:
    before = os.umask(0)
    try:
        (store.make_run_folder(pending().key, 1) / "x").touch(mode=0o600)
        store.create(pending(new_id()))
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in root.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*") if path.is_dir()} == {0o700}
    assert store.sessions(OWNER)[0].key == SessionKey(OWNER, store.sessions()[0].key.session)
