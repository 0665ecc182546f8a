"""The records of sessions and plans in JSON files: read again only when they have changed, and mended."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_tasks.codec import NewerSchema, decode_session, encode_plan, encode_session
from mcp_tasks.errors import (
    InvalidArgument,
    PlanNotFound,
    RevisionConflict,
    SessionNotFound,
    StoreUnavailable,
)
from mcp_tasks.models import Plan, PlanKey, Session, SessionKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.json import session_files
from mcp_tasks.stores.json.store import JsonFileStore
from tests.stores.records import OWNER, SESSION, finished, new_id, pending, running
from tests.stores.test_json_damage import record_of

FOLDER = f"sessions/{OWNER}/default"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(root: Path) -> JsonFileStore:
    return JsonFileStore(root)


def plan(*tasks: str) -> Plan:
    return Plan(PlanKey(OWNER, "default", new_id()), 7, tasks, "a plan")


def test_a_session_that_has_not_changed_is_not_read_again(
    root: Path, store: JsonFileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.open_session(Session(SESSION, 1))
    os.utime(root / FOLDER / "session.json", ns=(1, 10**18 + 5))
    decoded: list[bytes] = []

    def decode(data: bytes) -> Session:
        decoded.append(data)
        return decode_session(data)

    monkeypatch.setattr(session_files, "decode_session", decode)
    again = JsonFileStore(root)
    for _ in range(5):
        assert again.load_session(SESSION).revision == 0
    assert len(decoded) == 1
    store.replace_session(store.load_session(SESSION))
    assert again.load_session(SESSION).revision == 1


def test_what_another_process_writes_is_seen_however_fast_it_follows(
    root: Path, store: JsonFileStore
) -> None:
    other = JsonFileStore(root)
    store.open_session(Session(SESSION, 1))
    for number in range(100):
        writer, reader = (store, other) if number % 2 else (other, store)
        writer.replace_session(replace(writer.load_session(SESSION), title=f"{number:03}"))
        assert reader.load_session(SESSION).title == f"{number:03}"


def _as_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _of_another(path: Path) -> None:
    path.write_bytes(encode_session(Session(SessionKey(OWNER, "another"), 1)))


BREAKS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\0\1\2"),
    "a link": _as_link,
    "another's": _of_another,
}


@pytest.mark.parametrize("damage", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("call", ["load", "replace", "list", "create"])
def test_a_broken_record_of_a_session_is_set_aside_and_made_of_what_is_left(
    root: Path, damage: Callable[[Path], object], call: str
) -> None:
    store = JsonFileStore(root)
    task = running()
    store.create(task)
    damage(root / FOLDER / "session.json")
    again = JsonFileStore(root)
    left = Session(SESSION, task.created_at)
    match call:
        case "load":
            assert again.load_session(SESSION) == left
        case "replace":
            assert again.replace_session(replace(left, title="new")) == replace(left, title="new", revision=1)
        case "list":
            assert again.sessions() == [left]
        case _:
            again.create(pending())
    assert JsonFileStore(root).load_session(SESSION).created_at == left.created_at
    assert len(list((root / "quarantine").glob("*session.json"))) == 1
    assert len(again.problems()) == 1


def test_a_lost_record_of_a_session_that_has_tasks_is_made_again(root: Path, store: JsonFileStore) -> None:
    store.create(task := running())
    (root / FOLDER / "session.json").unlink()
    again = JsonFileStore(root)
    assert again.sessions() == [Session(SESSION, task.created_at)]
    assert "lost" in again.problems()[0]
    assert (root / FOLDER / "session.json").exists()


def test_a_broken_session_whose_tasks_are_broken_too_is_as_old_as_its_folder(
    root: Path, store: JsonFileStore
) -> None:
    store.create(task := running())
    record_of(root, task).write_bytes(b"x")
    (root / FOLDER / "session.json").write_bytes(b"x")
    again = JsonFileStore(root)
    assert again.load_session(SESSION).created_at > 1_700_000_000_000
    assert list(again.tasks(SESSION)) == []


def test_a_broken_session_is_told_even_where_nothing_can_be_written(
    root: Path, store: JsonFileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create(task := running())
    (root / FOLDER / "session.json").write_bytes(b"x")

    def full(path: str, data: bytes) -> bool:
        raise StoreUnavailable("writing a record failed: ENOSPC")

    monkeypatch.setattr(durable, "create_exclusively", full)
    assert store.load_session(SESSION) == Session(SESSION, task.created_at)
    assert "ENOSPC" in store.problems()[-1]


def test_a_session_of_a_newer_version_is_neither_read_nor_changed(root: Path, store: JsonFileStore) -> None:
    store.open_session(Session(SESSION, 1))
    path = root / FOLDER / "session.json"
    path.write_bytes(path.read_bytes().replace(b'"schema":2', b'"schema":9'))
    data = path.read_bytes()
    again = JsonFileStore(root)
    for call in (again.load_session, again.delete_session):
        with pytest.raises(NewerSchema):
            call(SESSION)
    with pytest.raises(NewerSchema):
        again.replace_session(Session(SESSION, 1))
    with pytest.raises(NewerSchema):
        again.open_session(Session(SESSION, 1))
    assert again.sessions() == []
    assert path.read_bytes() == data


@pytest.mark.parametrize("step", [FOLDER, f"sessions/{OWNER}"])
def test_a_session_is_not_found_through_a_planted_link(
    root: Path, store: JsonFileStore, tmp_path: Path, step: str
) -> None:
    store.create(finished(running()))
    store.create_plan(one := plan())
    (root / step).rename(tmp_path / "elsewhere")
    (root / step).symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").rglob("*"))
    for call in (store.load_session, store.delete_session):
        with pytest.raises(SessionNotFound):
            call(SESSION)
    with pytest.raises(SessionNotFound):
        store.replace_session(Session(SESSION, 1))
    with pytest.raises(PlanNotFound):
        store.load_plan(one.key)
    with pytest.raises(StoreUnavailable):
        store.create_plan(plan())
    assert store.sessions() == []
    assert store.counts(SESSION) == {}
    assert sorted((tmp_path / "elsewhere").rglob("*")) == before


def test_sessions_of_a_long_owner_are_found_by_their_tasks_where_their_record_is_broken(root: Path) -> None:
    owner = "https://accounts.example.com/users/" + "0123456789" * 5
    store = JsonFileStore(root)
    store.create(task := running(owner=owner))
    [record] = root.glob("sessions/*/*/session.json")
    record.write_bytes(b"nothing")
    (record.parent / "tasks" / "strange").write_bytes(b"nothing")
    again = JsonFileStore(root)
    assert again.sessions() == [Session(task.key.session_key, task.created_at)]
    record.write_bytes(b"nothing")
    record_of_task = record.parent / "tasks" / f"{task.key.task_id}.json"
    record_of_task.unlink()
    assert JsonFileStore(root).sessions() == []  # nothing tells whose it is


def test_plans_lie_in_a_folder_that_is_made_when_it_is_needed(root: Path, store: JsonFileStore) -> None:
    store.open_session(Session(SESSION, 1))
    assert list(store.plans(SESSION)) == []
    assert not (root / FOLDER / "plans").exists()
    one, two = plan(), plan(new_id())
    for each in (one, two):
        store.create_plan(each)
    assert list(JsonFileStore(root).plans(SESSION)) == [two, one]
    assert (root / FOLDER / "plans").stat().st_mode & 0o777 == 0o700
    with pytest.raises(RevisionConflict):
        store.create_plan(one)
    with pytest.raises(InvalidArgument):
        store.create_plan(replace(one, key=replace(one.key, plan_id="../x")))
    with pytest.raises(PlanNotFound):
        store.load_plan(replace(one.key, plan_id="../x"))
    store.delete_plan(replace(one.key, plan_id="../x"))


@pytest.mark.parametrize("damage", BREAKS.values(), ids=BREAKS)
def test_a_broken_plan_is_set_aside_and_the_others_are_listed(
    root: Path, store: JsonFileStore, damage: Callable[[Path], object]
) -> None:
    store.open_session(Session(SESSION, 1))
    good, bad = plan(), plan()
    for each in (good, bad):
        store.create_plan(each)
    path = root / FOLDER / "plans" / f"{bad.key.plan_id}.json"
    damage(path)
    with pytest.raises(PlanNotFound):
        store.load_plan(bad.key)
    assert list(store.plans(SESSION)) == [good]
    assert not os.path.lexists(path)
    assert len(list((root / "quarantine").glob("*.why"))) == 1
    assert bad.key.plan_id in store.problems()[0]


def test_a_plan_under_the_name_of_another_and_one_of_a_newer_version(
    root: Path, store: JsonFileStore
) -> None:
    store.open_session(Session(SESSION, 1))
    one, two = plan(), plan()
    for each in (one, two):
        store.create_plan(each)
    folder = root / FOLDER / "plans"
    (folder / f"{one.key.plan_id}.json").write_bytes(encode_plan(two))
    newer = (folder / f"{two.key.plan_id}.json").read_bytes().replace(b'"schema":2', b'"schema":3')
    (folder / f"{two.key.plan_id}.json").write_bytes(newer)
    assert list(store.plans(SESSION)) == []
    with pytest.raises(NewerSchema):
        store.load_plan(two.key)
    assert (folder / f"{two.key.plan_id}.json").read_bytes() == newer
    assert not (folder / f"{one.key.plan_id}.json").exists()


def test_plans_of_a_session_whose_folder_was_taken_away_are_not_found(
    root: Path, store: JsonFileStore
) -> None:
    store.open_session(Session(SESSION, 1))
    store.create_plan(one := plan())
    shutil.rmtree(root / FOLDER)
    with pytest.raises(PlanNotFound):
        store.load_plan(one.key)
    with pytest.raises(SessionNotFound):
        store.create_plan(one)
    with pytest.raises(SessionNotFound):
        store.replace_session(Session(SESSION, 1))
    store.delete_plan(one.key)
