"""Counting and listing by state from names and from an index that may be missing, late or damaged."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_tasks.codec import decode_task, encode_task
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import (
    FINAL_STATES,
    Cancelled,
    Exited,
    Lost,
    Outcome,
    Pending,
    SessionKey,
    StateName,
    Task,
)
from mcp_tasks.stores.json import finals, task_files, task_index
from mcp_tasks.stores.json.record_cache import unsettled_ns
from mcp_tasks.stores.json.store import JsonFileStore
from tests.stores.faulty_os import faulty, sync_nothing
from tests.stores.records import OWNER, SESSION, finished, new_id, pending, running, started
from tests.stores.test_json_damage import put

FINALS = f"sessions/{OWNER}/default/finals"
OUTCOMES: tuple[Outcome, ...] = (Exited(0), Exited(1), Cancelled(None, "SIGTERM"), Lost("power cut"))
COUNTS: dict[StateName, int] = {
    "completed": 10, "failed": 10, "cancelled": 10, "lost": 10, "pending": 2, "running": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_power_is_cut() -> Iterator[None]:
    take_back = sync_nothing()
    yield
    take_back()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """The records that are decoded from now on."""
    decoded: list[Task] = []

    def decode(data: bytes) -> Task:
        decoded.append(decode_task(data))
        return decoded[-1]

    monkeypatch.setattr(task_files, "decode_task", decode)
    return decoded


def held(session: str = "default") -> Task:
    task = pending(session)
    return replace(task, spec=replace(task.spec, after=(new_id(),)))


def fill(store: JsonFileStore) -> list[Task]:
    """Forty that are final, and four that are not."""
    tasks: list[Task] = []
    for number in range(40):
        store.create(task := running())
        tasks.append(store.replace(finished(task, OUTCOMES[number % 4])))
    for task in (running(), running(), pending(), held()):
        store.create(task)
        tasks.append(task)
    return tasks


def test_tasks_are_counted_without_reading_a_final_record(root: Path, reads: list[Task]) -> None:
    tasks = fill(JsonFileStore(root))
    reads.clear()
    store = JsonFileStore(root)
    assert store.counts(SESSION) == COUNTS
    assert {task.key for task in reads} == {task.key for task in tasks[40:]}
    reads.clear()
    assert store.counts(SESSION) == COUNTS
    assert reads == []


def test_states_are_told_without_reading_a_final_record(root: Path, reads: list[Task]) -> None:
    tasks = fill(JsonFileStore(root))
    store = JsonFileStore(root)
    reads.clear()
    ids = [task.key.task_id for task in tasks[30:42]]
    assert store.states(SESSION, [*ids, new_id(), "../x"]) == {
        task.key.task_id: task.state_name for task in tasks[30:42]
    }
    assert {task.key for task in reads} == {task.key for task in tasks[40:42]}
    assert store.states(SessionKey(OWNER, "nowhere"), ids) == {}


def test_a_page_reads_what_it_shows(root: Path, reads: list[Task]) -> None:
    tasks = fill(JsonFileStore(root))
    reads.clear()
    page = JsonFileStore(root).tasks(SESSION, before=tasks[35].key.task_id, states=("failed", "lost"))
    wanted = [task for task in tasks[:35] if task.state_name in ("failed", "lost")][::-1]
    assert [next(page) for _ in range(5)] == wanted[:5]
    assert len(reads) <= 5 + 4  # what is not final is looked at


@pytest.mark.parametrize("states", [*sorted(FINAL_STATES), "pending", "running"])
@pytest.mark.parametrize("settled", [False, True])
def test_every_state_is_listed_newest_first(root: Path, states: StateName, settled: bool) -> None:
    tasks = fill(JsonFileStore(root))
    store = JsonFileStore(root)
    if settled:
        os.utime(root / "sessions" / OWNER / "default" / "tasks", ns=(1, 10**18 + 7))
    for before in (None, tasks[41].key.task_id, tasks[0].key.task_id):
        found = list(store.tasks(SESSION, before=before, states=(states,)))
        assert found == [
            task
            for task in tasks[::-1]
            if task.state_name == states and (before is None or task.key.task_id < before)
        ]


def test_very_many_are_listed_in_order_without_being_sorted_first(root: Path) -> None:
    store = JsonFileStore(root)
    store.create(first := finished(running()))
    tasks = [first, *(finished(running()) for _ in range(1200))]
    for task in tasks[1:]:
        put(root, task)
    assert list(store.tasks(SESSION)) == tasks[::-1]
    assert list(store.tasks(SESSION, before=tasks[1100].key.task_id)) == tasks[1099::-1]


def test_what_is_missing_in_the_index_is_read_once(root: Path, reads: list[Task]) -> None:
    tasks = fill(JsonFileStore(root))
    (root / FINALS).unlink()
    store = JsonFileStore(root)
    assert store.counts(SESSION) == COUNTS
    assert (root / FINALS).stat().st_size == 40 * 38
    reads.clear()
    assert JsonFileStore(root).counts(SESSION) == COUNTS
    assert {task.key for task in reads} <= {task.key for task in tasks[40:]}


def test_the_index_cut_at_any_place_or_with_any_byte_changed_tells_the_truth(root: Path) -> None:
    fill(JsonFileStore(root))
    path = root / FINALS
    whole = path.read_bytes()
    chance = random.Random(3)
    for _ in range(60):
        data = bytearray(whole)
        match chance.randrange(4):
            case 0:
                del data[chance.randrange(len(data)) :]
            case 1:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            case 2:
                place = chance.randrange(len(data))
                data[place:place] = chance.randbytes(chance.randrange(1, 50))
            case _:
                place = chance.randrange(len(data))
                data[place : place + 100] = bytes(100)
        path.write_bytes(bytes(data))
        store = JsonFileStore(root)
        assert store.counts(SESSION) == COUNTS
        assert store.counts(SESSION) == COUNTS
    for strange in (lambda: path.write_bytes(whole * 2), lambda: path.symlink_to("nowhere"), path.mkdir):
        path.unlink()
        strange()
        assert JsonFileStore(root).counts(SESSION) == COUNTS


def test_a_damaged_index_is_written_anew(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(JsonFileStore(root))
    path = root / FINALS
    path.write_bytes(b"garbage\n" + path.read_bytes())
    assert JsonFileStore(root).counts(SESSION) == COUNTS
    assert "damaged" in caplog.text
    assert path.stat().st_size == 40 * 38


def test_what_is_cleared_is_counted_no_more_and_its_line_goes_in_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finals, "_FEW_DEAD", 10)
    store = JsonFileStore(root)
    tasks = fill(store)
    other = JsonFileStore(root)
    assert other.counts(SESSION) == COUNTS
    for task in tasks[:30]:
        store.delete(task.key)
    expected = {**COUNTS, "completed": 2, "failed": 2, "cancelled": 3, "lost": 3}
    assert other.counts(SESSION) == expected
    assert (root / FINALS).stat().st_size == 10 * 38
    assert other.counts(SESSION) == store.counts(SESSION) == JsonFileStore(root).counts(SESSION) == expected
    store.create(task := running())
    store.replace(finished(task))
    assert other.counts(SESSION) == {**expected, "completed": 3}


def test_what_other_processes_do_is_counted(root: Path) -> None:
    store, other = JsonFileStore(root), JsonFileStore(root)
    assert store.counts(SESSION) == {}
    for number in range(1, 30):
        other.create(task := pending())
        assert store.counts(SESSION)["pending"] == 1
        seen = other.replace(started(task))
        assert store.counts(SESSION)["running"] == 1
        other.replace(replace(finished(seen), revision=seen.revision))
        assert store.counts(SESSION) == {"completed": number}
        assert store.states(SESSION, [task.key.task_id]) == {task.key.task_id: "completed"}


def test_a_task_that_waits_again_after_a_failure_is_pending_again(root: Path) -> None:
    store = JsonFileStore(root)
    store.create(task := running())
    store.replace(replace(task, state=Pending(2, not_before=5)))
    assert store.counts(SESSION) == {"pending": 1}
    assert store.pending() == []
    assert store.held() == [task.key]


def test_what_was_final_and_is_not_any_more_is_counted_as_what_it_is(root: Path) -> None:
    store, other = JsonFileStore(root), JsonFileStore(root)
    store.create(task := running())
    over = store.replace(finished(task))
    assert other.counts(SESSION) == {"completed": 1}
    failed = store.replace(finished(over, Exited(3)))
    assert other.counts(SESSION) == JsonFileStore(root).counts(SESSION) == {"failed": 1}
    store.replace(started(failed))
    assert store.states(SESSION, [task.key.task_id]) == {task.key.task_id: "running"}
    assert other.counts(SESSION) == JsonFileStore(root).counts(SESSION) == {"running": 1}
    (root / FINALS).unlink()
    (root / FINALS).mkdir()
    over = store.replace(finished(store.load(task.key)))
    with pytest.raises(StoreUnavailable):
        store.replace(started(over))
    assert store.load(task.key) == over


def test_a_line_is_taken_back_durably_and_whole_or_the_record_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JsonFileStore(root)
    store.create(task := running())
    task = store.replace(finished(task, Lost("power cut")))
    synced: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(finals, "sync", synced.append)
        task = store.replace(replace(task, state=finished(task).state))
    assert len(synced) == 1
    assert store.counts(SESSION) == {"completed": 1}
    with monkeypatch.context() as patch:
        patch.setattr("mcp_tasks.stores.json.finals.os.write", lambda _fd, data: len(data) - 1)
        with pytest.raises(StoreUnavailable, match="ENOSPC"):
            store.replace(replace(task, state=Pending()))
    assert store.load(task.key) == task


def test_an_index_that_is_written_anew_knows_what_was_taken_back_meanwhile(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = JsonFileStore(root), JsonFileStore(root)
    store.create(task := running())
    task = store.replace(finished(task, Lost("power cut")))
    with (root / FINALS).open("ab") as file:
        file.write(b"damaged\n")
    real = store._sessions.lock

    def slow(key: SessionKey) -> AbstractContextManager[None]:
        with monkeypatch.context() as patch:
            patch.setattr(store._sessions, "lock", real)
            other.replace(replace(task, state=finished(task).state))
        return real(key)

    with monkeypatch.context() as patch:
        patch.setattr(store._sessions, "lock", slow)
        store.counts(SESSION)

    assert b"damaged" not in (root / FINALS).read_bytes()
    assert store.counts(SESSION) == JsonFileStore(root).counts(SESSION) == {"completed": 1}
    assert list(store.verify()) == []


def test_a_quiet_session_is_counted_and_listed_from_memory(root: Path) -> None:
    store = JsonFileStore(root)
    store.create(first := finished(running()))
    for _ in range(100):
        put(root, finished(running()))
    os.utime(root / "sessions" / OWNER / "default" / "tasks", ns=(1, 10**18 + 7))
    assert store.counts(SESSION) == {"completed": 101}
    list(store.tasks(SESSION))
    with faulty(-1, lambda *_: None) as counted:
        assert store.counts(SESSION) == {"completed": 101}
        assert list(store.tasks(SESSION))[-1] == first
    assert counted.calls < 101 + 20
    store.close()
    assert store.counts(SESSION) == {"completed": 101}


def test_memory_is_given_back_when_many_sessions_were_listed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_index, "_MOST_LISTED", 5)
    monkeypatch.setattr(finals, "_MOST_KEPT", 5)
    store = JsonFileStore(root)
    for session in ("a", "b", "c"):
        for _ in range(3):
            store.create(task := running(session))
            store.replace(finished(task))
        os.utime(root / "sessions" / OWNER / session / "tasks", ns=(1, 10**18 + 7))
    for session in ("a", "b", "c", "a"):
        assert store.counts(SessionKey(OWNER, session)) == {"completed": 3}
    assert store._index._listed <= 5
    assert store._index._finals._kept <= 5


def test_a_full_disk_keeps_no_task_from_ending_or_being_counted(root: Path) -> None:
    store = JsonFileStore(root)
    store.create(task := running())
    (root / FINALS).mkdir()
    store.replace(finished(task))
    assert store.counts(SESSION) == {"completed": 1}


def test_a_broken_or_newer_record_is_not_counted(root: Path) -> None:
    store = JsonFileStore(root)
    store.create(good := finished(running()))
    bad, newer = finished(running()), finished(running())
    put(root, bad, b"x")
    put(root, newer, encode_task(newer).replace(b'"schema":2', b'"schema":3'))
    assert store.counts(SESSION) == {"completed": 1}
    assert store.states(SESSION, [t.key.task_id for t in (good, bad, newer)]) == {
        good.key.task_id: "completed"
    }
    none: tuple[StateName, ...] = ("pending",)
    assert list(store.tasks(SESSION, states=none)) == []
    assert len(store.problems()) == 2


def test_a_change_within_the_tick_of_the_last_one_is_not_taken_for_none() -> None:
    second = 1_000_000_000
    assert unsettled_ns(5 * second + 1, 5 * second + 2) > 0
    assert unsettled_ns(5 * second + 1, 5 * second + 50_000_000) <= 0
    assert unsettled_ns(5 * second, 6 * second) > 0  # a file system that stamps with whole seconds
    assert unsettled_ns(5 * second, 8 * second) <= 0


def test_a_large_folder_that_has_just_changed_is_listed_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_index, "_LARGE", 0)
    store = JsonFileStore(root)
    tasks = fill(store)
    assert store.counts(SESSION) == COUNTS
    with faulty(-1, lambda *_: None) as counted:
        assert store._index._listing(SESSION).ids == [task.key.task_id for task in tasks]
    assert counted.calls < 10
