"""Two hundred damaged files among a thousand good ones: nothing good is hidden, nothing bad is lost."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcp_tasks.cli.checkup import examine
from mcp_tasks.codec import encode_plan, encode_session, encode_task
from mcp_tasks.models import Plan, PlanKey, Session, SessionKey, Task
from mcp_tasks.settings import Settings
from mcp_tasks.stores.json.store import JsonFileStore
from tests.stores.faulty_os import sync_nothing
from tests.stores.records import OWNER, finished, new_id, running

SESSIONS = 100
TASKS = 9
DAMAGED = 200


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _foreign(path: Path) -> None:
    path.write_bytes(random.Random(str(path)).randbytes(300))


def _wrong_type(path: Path) -> None:
    record = json.loads(path.read_bytes())
    del record["crc32"]
    record[record["kind"]]["created_at"] = "yesterday"
    path.write_text(json.dumps(record))


def _another_kind(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"kind":"', b'"kind":"x'))


def _one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))


def _newer(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"schema":2', b'"schema":3'))


DAMAGES: tuple[Callable[[Path], object], ...] = (
    _truncated,
    lambda path: path.write_bytes(b""),
    _wrong_type,
    _foreign,
    _another_kind,
    _one_bit,
    _newer,
)


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


class Crowd:
    """A state directory with a thousand records, two hundred of which are damaged."""

    def __init__(self, root: Path) -> None:
        self.tasks: dict[Path, Task] = {}
        self.plans: dict[Path, Plan] = {}
        self.sessions: dict[Path, Session] = {}
        store = JsonFileStore(root)
        for number in range(SESSIONS):
            self._fill(root, store, SessionKey(OWNER, f"session-{number:03}"))
        store.close()
        records = [*self.tasks, *self.plans, *self.sessions]
        assert len(records) >= 1000 + DAMAGED
        swapped = random.Random(1).sample(list(self.tasks), 40)
        others = [path for path in records if path not in swapped]
        self.damaged = set(swapped)
        for one, two in zip(swapped[::2], swapped[1::2], strict=True):
            first, second = one.read_bytes(), two.read_bytes()
            one.write_bytes(second)
            two.write_bytes(first)
        for number, path in enumerate(random.Random(2).sample(others, DAMAGED - len(swapped))):
            DAMAGES[number % len(DAMAGES)](path)
            self.damaged.add(path)
        self.newer = {path for path in self.damaged if b'"schema":3' in path.read_bytes()}
        self.bytes = {path: _digest(path) for path in self.damaged}

    def _fill(self, root: Path, store: JsonFileStore, key: SessionKey) -> None:
        session = Session(key, 5, title=f"title of {key.session}")
        store.open_session(session)
        folder = root / "sessions" / OWNER / key.session
        self.sessions[_write(folder / "session.json", encode_session(session))] = session
        tasks = [finished(running(key.session)) for _ in range(TASKS)]
        for task in tasks:
            self.tasks[_write(folder / "tasks" / f"{task.key.task_id}.json", encode_task(task))] = task
        plans = [
            Plan(PlanKey(OWNER, key.session, new_id()), 5, tuple(t.key.task_id for t in tasks))
            for _ in range(2)
        ]
        (folder / "plans").mkdir(mode=0o700)
        for plan in plans:
            self.plans[_write(folder / "plans" / f"{plan.key.plan_id}.json", encode_plan(plan))] = plan


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def crowd(root: Path) -> Iterator[Crowd]:
    take_back = sync_nothing()
    yield Crowd(root)
    take_back()


def test_every_start_succeeds_and_every_good_record_is_readable(root: Path, crowd: Crowd) -> None:
    for _ in range(3):
        store = JsonFileStore(root)
        sessions = store.sessions()
        newer = [one.key for path, one in crowd.sessions.items() if path in crowd.newer]
        assert [one.key for one in sessions] == [
            one.key for one in crowd.sessions.values() if one.key not in newer
        ]
        for path, session in crowd.sessions.items():
            if path not in crowd.damaged:
                assert store.load_session(session.key) == session
        for key in (one.key for one in crowd.sessions.values()):
            assert list(store.tasks(key))[::-1] == [
                task
                for path, task in crowd.tasks.items()
                if task.key.session_key == key and path not in crowd.damaged
            ]
            assert list(store.plans(key))[::-1] == [
                plan
                for path, plan in crowd.plans.items()
                if plan.key.session_key == key and path not in crowd.damaged
            ]
        store.close()


def test_every_damaged_byte_is_kept_and_what_is_newer_stays_where_it_is(root: Path, crowd: Crowd) -> None:
    list(JsonFileStore(root).verify())
    kept = {_digest(path) for path in (root / "quarantine").iterdir() if path.suffix != ".why"}
    for path in crowd.damaged:
        if path in crowd.newer:
            assert _digest(path) == crowd.bytes[path]
        else:
            assert crowd.bytes[path] in kept, path


def test_every_damaged_file_is_named_in_doctor_whoever_found_it(root: Path, crowd: Crowd) -> None:
    JsonFileStore(root).sessions()
    findings = examine(Settings(dir=root))
    assert any(one.what == "records" and one.verdict == "wrong" for one in findings)
    told = "\n".join(one.found for one in findings)
    for path in crowd.damaged:
        if path not in crowd.newer:
            assert str(path.relative_to(root)) in told
        else:
            name = path.stem if path.stem != "session" else path.parent.name
            assert f" {name}: " in f" {told}".replace("\n", " "), path


def test_every_damaged_file_is_named_in_a_warning(root: Path, crowd: Crowd) -> None:
    store = JsonFileStore(root)
    list(store.verify())
    warnings = "\n".join(store.problems())
    for path in crowd.damaged:
        name = path.stem if path.stem != "session" else path.parent.name
        assert name in warnings, path
