"""`verify` names everything that is wrong in a state directory of JSON files, and only that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mcp_tasks.codec import encode_task
from mcp_tasks.models import Plan, PlanKey
from mcp_tasks.stores.json.markers import marker_name
from mcp_tasks.stores.json.store import JsonFileStore
from tests.stores.records import OWNER, SESSION, finished, new_id, pending, running
from tests.stores.test_json_damage import put, record_of

FOLDER = f"sessions/{OWNER}/default"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(root: Path) -> JsonFileStore:
    store = JsonFileStore(root)
    for task in (pending(), running(key="k"), pending("other", key="k")):
        store.create(task)
    store.create(task := running())
    task = store.replace(finished(task))
    store.create_plan(Plan(PlanKey(OWNER, "default", new_id()), 1, (task.key.task_id,)))
    held = pending()
    store.create(replace(held, spec=replace(held.spec, after=(task.key.task_id,))))
    return store


def test_nothing_is_wrong_where_nothing_is(root: Path, store: JsonFileStore) -> None:
    assert list(store.verify()) == []
    assert list(JsonFileStore(root).verify()) == []


def test_each_broken_record_is_told_once(root: Path, store: JsonFileStore) -> None:
    store.create(bad := running())
    record_of(root, bad).write_bytes(b"")
    (root / "sessions" / OWNER / "other" / "session.json").write_bytes(b"{}")
    [plan] = (root / FOLDER / "plans").iterdir()
    plan.write_bytes(b"[]")
    told = list(store.verify())
    assert len(told) == 3
    for name in (bad.key.task_id, "other~session.json", plan.name):
        assert sum(name in sentence for sentence in told) == 1
    again = JsonFileStore(root)
    assert list(again.verify()) == []


@pytest.mark.parametrize("folder", ["active", "pending", "held"])
def test_a_missing_mark_is_told(root: Path, store: JsonFileStore, folder: str) -> None:
    task = next(iter({"active": store.unfinished, "pending": store.pending, "held": store.held}[folder]()))
    (root / folder / marker_name(task)).unlink()
    [sentence] = store.verify()
    assert task.task_id in sentence
    assert f"no mark in {folder}/" in sentence


def test_an_entry_that_names_no_task_and_a_key_without_an_entry_are_told(
    root: Path, store: JsonFileStore
) -> None:
    [entry] = (root / FOLDER / "keys").iterdir()
    entry.unlink()
    strange = root / "sessions" / OWNER / "other" / "keys" / "strange"
    strange.write_bytes(b"x")
    strange.chmod(0o600)
    told = list(store.verify())
    assert any("does not hold its key" in sentence for sentence in told)
    assert any("the entry strange… of a key: the entry names no task" in sentence for sentence in told)
    assert len(told) == 2


def test_a_wrong_line_of_the_index_is_told(root: Path, store: JsonFileStore) -> None:
    [task] = [task for task in store.tasks(SESSION) if task.is_final]
    (root / FOLDER / "finals").write_bytes(f"{task.key.task_id}l\n".encode())
    [sentence] = JsonFileStore(root).verify()
    assert sentence == f"task {task.key.task_id} is completed, and lost in the index of its session"


def test_a_plan_of_which_a_task_was_cleared_is_sound(store: JsonFileStore) -> None:
    [task] = [task for task in store.tasks(SESSION) if task.is_final]
    store.delete(task.key)
    assert list(store.verify()) == []


def test_what_is_newer_is_told_and_left(root: Path, store: JsonFileStore) -> None:
    newer = finished(running())
    path = put(root, newer, encode_task(newer).replace(b'"schema":2', b'"schema":3'))
    session = root / "sessions" / OWNER / "other" / "session.json"
    session.write_bytes(session.read_bytes().replace(b'"schema":2', b'"schema":3'))
    told = list(JsonFileStore(root).verify())
    assert len(told) == 2
    assert all("newer version" in sentence for sentence in told)
    assert path.exists()
