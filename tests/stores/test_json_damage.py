"""What is broken, foreign or newer in a state directory stops nothing else and is never deleted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_tasks.codec import NewerSchema, encode_task
from mcp_tasks.errors import StoreUnavailable, TaskNotFound
from mcp_tasks.models import Session, SessionKey, Task
from mcp_tasks.stores.disk.folder_names import owner_folder, session_folder
from mcp_tasks.stores.json.store import JsonFileStore
from tests.stores.records import OWNER, SESSION, finished, pending, running


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(root: Path) -> JsonFileStore:
    return JsonFileStore(root)


def session_of(root: Path, task: Task) -> Path:
    return root / "sessions" / owner_folder(task.key.owner) / session_folder(task.key.session)


def record_of(root: Path, task: Task) -> Path:
    return session_of(root, task) / "tasks" / f"{task.key.task_id}.json"


def put(root: Path, task: Task, data: bytes | None = None) -> Path:
    """A record without the cost of a durable write."""
    path = record_of(root, task)
    path.write_bytes(encode_task(task) if data is None else data)
    path.chmod(0o600)
    return path


def _bits(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes(bytes(data))


def _as_link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _field(name: str, value: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        record = json.loads(path.read_bytes())
        record["task"][name] = value
        path.write_text(json.dumps(record))

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "zeroes": lambda path: path.write_bytes(b"\0" * 512),
    "garbage": lambda path: path.write_bytes(os.urandom(300)),
    "a flipped bit": _bits,
    "a link": _as_link,
    "a folder": _as_folder,
    "a fifo": _as_fifo,
    "an unknown state": _field("state", {"kind": "dreaming"}),
    "a field of the wrong type": _field("revision", "7"),
    "too large": lambda path: os.truncate(path, 17 * 1024 * 1024),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_broken_record_is_set_aside_and_the_rest_is_listed(
    root: Path, store: JsonFileStore, damage: Callable[[Path], object]
) -> None:
    good, bad = running(), running()
    for task in (good, bad):
        store.create(task)
    damage(record_of(root, bad))
    with pytest.raises(TaskNotFound):
        store.load(bad.key)
    assert list(store.tasks(SESSION)) == [good]
    assert store.unfinished() == [good.key]
    kept, note = sorted((root / "quarantine").iterdir(), key=lambda path: path.name.endswith(".why"))
    assert note.name == f"{kept.name}.why"
    assert bad.key.task_id in kept.name
    assert f"{bad.key.task_id}.json" in note.read_text()
    (problem,) = store.problems()
    assert kept.name in problem
    assert note.read_text().splitlines()[1] in problem
    with pytest.raises(TaskNotFound):
        store.replace(bad)
    with pytest.raises(TaskNotFound):
        store.delete(bad.key)


def test_two_hundred_damaged_files_among_a_thousand_good_ones_are_set_aside(
    root: Path, store: JsonFileStore
) -> None:
    store.create(running("other"))
    store.create(first := finished(running()))
    good = [first, *(finished(running()) for _ in range(1000))]
    for task in good[1:]:
        put(root, task)
    bad = [finished(running()) for _ in range(200)]
    kinds = list(DAMAGES.values())
    for place, task in enumerate(bad):
        kinds[place % len(kinds)](put(root, task))
    assert list(JsonFileStore(root).tasks(SESSION)) == good[::-1]
    assert list(store.tasks(SESSION)) == good[::-1]
    assert len(list((root / "quarantine").iterdir())) == 400


def test_records_that_were_swapped_are_broken(root: Path, store: JsonFileStore) -> None:
    one, two, other = running(), running(), running("other")
    for task in (one, two, other):
        store.create(task)
    path = record_of(root, one)
    for foreign in (two, other):
        path.write_bytes(encode_task(foreign))
        with pytest.raises(TaskNotFound):
            store.load(one.key)
    assert list(store.tasks(SESSION)) == [two]
    assert "another task" in store.problems()[0]


def test_a_record_of_a_newer_version_is_left_alone_and_reported(root: Path, store: JsonFileStore) -> None:
    new, good = running(key="k"), running()
    for task in (new, good):
        store.create(task)
    path = record_of(root, new)
    path.write_bytes(path.read_bytes().replace(b'"schema":2', b'"schema":3'))
    data = path.read_bytes()
    for call in (store.load, store.delete):
        with pytest.raises(NewerSchema, match="newer version"):
            call(new.key)
    with pytest.raises(StoreUnavailable):
        store.replace(new)
    with pytest.raises(StoreUnavailable):
        store.create(pending(key="k"))
    assert list(store.tasks(SESSION)) == [good]
    assert store.unfinished() == [good.key]
    assert path.read_bytes() == data
    assert "newer" in store.problems()[0]
    path.write_bytes(data.replace(b'"schema":3', b'"schema":2'))
    assert store.unfinished() == [new.key, good.key]


@pytest.mark.parametrize("data", [b"", b"{", b"\0" * 30, b'{"schema":1,"kind":"task","task":{}}'])
def test_a_broken_session_record_hides_no_task_and_is_written_anew(root: Path, data: bytes) -> None:
    store = JsonFileStore(root)
    task = running()
    store.create(task)
    path = session_of(root, task) / "session.json"
    path.write_bytes(data)
    again = JsonFileStore(root)
    assert [session.key for session in again.sessions()] == [SESSION]
    assert list(again.tasks(SESSION)) == [task]
    assert again.load_session(SESSION) == Session(SESSION, task.created_at)
    again.create(pending())
    assert [session.key for session in JsonFileStore(root).sessions()] == [SESSION]
    (problem,) = again.problems()
    (kept,) = (root / "quarantine").glob("*session.json")
    assert kept.read_bytes() == data
    assert kept.name in problem


def test_a_session_of_a_newer_version_takes_no_new_task(root: Path, store: JsonFileStore) -> None:
    task = running()
    store.create(task)
    path = session_of(root, task) / "session.json"
    path.write_bytes(path.read_bytes().replace(b'"schema":2', b'"schema":9'))
    data = path.read_bytes()
    again = JsonFileStore(root)
    with pytest.raises(StoreUnavailable, match="schema 9"):
        again.create(pending())
    assert again.sessions() == []
    assert path.read_bytes() == data
    assert "schema 9" in again.problems()[0]


@pytest.mark.parametrize("data", [b"", b"nonsense", b"0" * 35])
def test_a_broken_entry_of_a_key_is_made_again_from_the_records(
    root: Path, store: JsonFileStore, data: bytes
) -> None:
    task, broken = running(key="k"), running(key="another")
    for one in (task, broken):
        store.create(one)
    entries = session_of(root, task) / "keys"
    for entry in entries.iterdir():
        entry.write_bytes(data)
    (record_of(root, broken)).write_bytes(b"")
    with pytest.raises(StoreUnavailable.__mro__[1], match="key_conflict"):
        store.create(pending(key="k"))
    assert store.find_key(SESSION, "k") == task
    assert store.find_key(SESSION, "another") is None
    assert len(list((root / "quarantine").glob("*.why"))) == 3


def test_an_entry_whose_task_was_never_written_is_free(root: Path, store: JsonFileStore) -> None:
    store.create(first := running(key="k"))
    (entry,) = (session_of(root, first) / "keys").iterdir()
    store.delete(first.key)
    entry.write_text(pending().key.task_id)
    assert store.find_key(SESSION, "k") is None
    store.create(second := running(key="k"))
    assert store.find_key(SESSION, "k") == second
    entry.write_text(first.key.task_id)
    store.create(third := running())
    entry.write_text(third.key.task_id)
    assert store.find_key(SESSION, "k") is None


def test_strange_names_in_the_folders_are_passed_over(root: Path, store: JsonFileStore) -> None:
    task = running()
    store.create(task)
    for place in (
        root / "sessions",
        root / "sessions" / OWNER,
        session_of(root, task) / "tasks",
        root / "active",
    ):
        (place / "Strange").mkdir()
        (place / "a file").write_text("x")
        (place / ".hidden").write_text("x")
    again = JsonFileStore(root)
    assert list(again.tasks(SESSION)) == [task]
    assert [session.key for session in again.sessions()] == [SESSION]
    assert again.unfinished() == [task.key]
    assert again.count_tasks() == 1
    assert again.locate(OWNER, task.key.task_id) == task.key
    assert again.problems() == []


@pytest.mark.parametrize("below", ["", "tasks", "keys"])
def test_a_planted_link_to_a_folder_is_not_followed(root: Path, tmp_path: Path, below: str) -> None:
    store = JsonFileStore(root)
    task = finished(running(key="k"))
    store.create(task)
    planted = session_of(root, task) / below
    elsewhere = tmp_path / "elsewhere"
    planted.rename(elsewhere)
    planted.symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    if below != "keys":
        with pytest.raises(TaskNotFound):
            store.load(task.key)
        with pytest.raises(TaskNotFound):
            store.delete(task.key)
        assert list(store.tasks(SESSION)) == []
    with pytest.raises(StoreUnavailable):
        store.create(pending(key="k2"))
    with pytest.raises(StoreUnavailable):
        JsonFileStore(root).create(pending(key="k2"))
    assert sorted(elsewhere.rglob("*")) == before


@pytest.mark.parametrize("name", ["active", "pending", "held", "sessions", "quarantine", "trash", "slots"])
def test_a_planted_link_in_place_of_a_folder_of_the_root_is_refused(
    root: Path, tmp_path: Path, name: str
) -> None:
    JsonFileStore(root)
    (root / name).rename(tmp_path / "elsewhere")
    (root / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match=name):
        JsonFileStore(root)


@pytest.mark.parametrize("name", ["admission.lock", "sessions/somebody/default/lock"])
def test_a_planted_link_in_place_of_a_lock_is_not_followed(root: Path, tmp_path: Path, name: str) -> None:
    store = JsonFileStore(root)
    task = running()
    store.create(task)
    target = tmp_path / "target"
    (root / name).unlink(missing_ok=True)
    (root / name).symlink_to(target)
    with pytest.raises(StoreUnavailable), store.admission():
        store.replace(task)
    assert not target.exists()


def test_the_trash_is_emptied_without_following_links(root: Path, tmp_path: Path) -> None:
    JsonFileStore(root)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    left = root / "trash" / "left"
    (left / "runs").mkdir(parents=True)
    (left / "runs" / "link").symlink_to(precious)
    (left / "file").symlink_to(precious / "file")
    (root / "trash" / "another").symlink_to(precious)
    JsonFileStore(root)
    assert list((root / "trash").iterdir()) == []
    assert (precious / "file").read_text() == "x"


def test_sessions_of_a_long_owner_are_found_by_their_records(root: Path) -> None:
    owner = "https://accounts.example.com/users/" + "0123456789" * 5
    store = JsonFileStore(root)
    task = running("Work", owner=owner)
    store.create(task)
    again = JsonFileStore(root)
    assert again.unfinished() == [task.key]
    assert [session.key for session in again.sessions()] == [SessionKey(owner, "Work")]
    assert again.locate(owner, task.key.task_id) == task.key
