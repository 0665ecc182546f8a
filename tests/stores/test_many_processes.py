"""Several processes on one store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.codec import decode_task
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.ports import Store
from mcp_tasks.stores.disk import locks
from mcp_tasks.stores.disk.syncing import synced_once
from tests.stores.adapters import LASTING
from tests.stores.records import SESSION, pending, running

REPOSITORY = Path(__file__).parents[2]


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stores.hammer", *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _let_go(crowd: list[subprocess.Popen[str]]) -> None:
    """Wait until all are ready, and start them at once."""
    for one in crowd:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in crowd:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()


def _all_at_once(crowd: list[subprocess.Popen[str]]) -> list[Any]:
    _let_go(crowd)
    return [json.loads(one.communicate(timeout=600)[0]) for one in crowd]


@pytest.fixture(params=list(LASTING))
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(adapter: str, tmp_path: Path) -> Iterator[Store]:
    opened = LASTING[adapter](tmp_path / "state")
    yield opened
    opened.close()


def test_four_processes_of_four_threads_lose_no_update_and_leave_no_invalid_file(
    adapter: str, store: Store, tmp_path: Path
) -> None:
    root = tmp_path / "state"
    task = running()
    store.create(task)
    crowd = [_start(adapter, str(root), task.key.task_id, "4", "12") for _ in range(4)]
    answers = _all_at_once(crowd)
    assert [one.returncode for one in crowd] == [0] * 4

    last = store.load(task.key)
    assert (last.spec.label, last.revision) == ("192", 192) == (str(192), sum(a["counted"] for a in answers))
    created = [name for answer in answers for name in answer["created"]]
    won = [name for answer in answers for name in answer["won"]]
    assert len(set(won)) == len(won), "two tasks hold one key"
    there = {
        found.key.task_id
        for session in store.sessions()
        for found in store.tasks(session.key)
        if found.key != task.key
    }
    assert there == set(created)
    assert store.unfinished() == [task.key]
    for record in root.glob("sessions/*/*/tasks/*.json"):
        decode_task(record.read_bytes())
    assert not list(root.rglob("*.tmp"))
    assert not list((root / "quarantine").iterdir())
    assert list(store.verify()) == []
    assert store.problems() == [problem for answer in answers for problem in answer["problems"]] == []


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_of_four_processes_of_eight_threads_each_task_is_taken_by_one(
    adapter: str, store: Store, tmp_path: Path
) -> None:
    ids = []
    for number in range(2_000 if os.environ.get("MCP_TASKS_CAMPAIGN") == "full" else 200):
        task = pending(f"session-{number % 5}", key=f"key-{number}")
        store.create(task)
        ids.append(task.key.task_id)
    crowd = [_start("claim", adapter, str(tmp_path / "state"), "8") for _ in range(4)]
    _let_go(crowd)
    answers = _all_at_once(crowd)
    assert [one.returncode for one in crowd] == [0] * 4
    assert sorted(task_id for answer in answers for task_id in answer["taken"]) == ids
    assert all(answer["taken"] for answer in answers)
    for session in store.sessions():
        assert {(task.state_name, task.revision) for task in store.tasks(session.key)} == {("completed", 2)}
        assert store.counts(session.key) == {"completed": len(ids) // 5}
    assert (store.pending(), store.unfinished(), store.count_tasks()) == ([], [], len(ids))
    assert list(store.verify()) == []
    assert store.problems() == [problem for answer in answers for problem in answer["problems"]] == []


@pytest.mark.parametrize("which", ["admission", "session"])
def test_a_lock_whose_holder_was_killed_is_free_at_once(
    adapter: str, store: Store, tmp_path: Path, which: str
) -> None:
    task = running()
    store.create(task)
    holder = _start("hold", adapter, str(tmp_path / "state"), which)
    assert holder.stdout is not None
    assert holder.stdin is not None
    with holder, holder.stdout, holder.stdin:
        assert holder.stdout.readline() == "held\n"
        entered = threading.Event()

        def enter() -> None:
            with synced_once(tmp_path):  # how long a busy disk takes is not what is measured
                if which == "admission":
                    with store.admission():
                        entered.set()
                else:
                    store.replace(task)
                    entered.set()

        waiting = threading.Thread(target=enter)
        waiting.start()
        assert not entered.wait(0.05)
        holder.kill()
        assert entered.wait(1)
        waiting.join()


def test_a_lock_that_others_keep_is_given_up_with_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = locks.ProcessLock(str(tmp_path / "lock"), 0.05)
    other = locks.ProcessLock(str(tmp_path / "lock"), 0.05)
    answers: list[str] = []

    def enter(one: locks.ProcessLock) -> None:
        try:
            with one.held():
                answers.append("held")
        except StoreUnavailable as error:
            answers.append(error.message)

    with lock.held():
        for one in (lock, other):  # the same object in another thread, and another one on the same file
            thread = threading.Thread(target=enter, args=(one,))
            thread.start()
            thread.join()
    enter(other)
    assert answers == ["the store has been locked by others for 0.05 s"] * 2 + ["held"]


def test_reading_while_others_clear_ends_in_not_found_and_nothing_else(
    adapter: str, store: Store, tmp_path: Path
) -> None:
    tasks = [running() for _ in range(60)]
    for task in tasks:
        store.create(task)
    reader = LASTING[adapter](tmp_path / "state")

    def clear() -> None:
        for task in tasks:
            store.delete(task.key)

    clearing = threading.Thread(target=clear)
    clearing.start()
    while clearing.is_alive():
        assert set(reader.tasks(SESSION)) <= set(tasks)
        reader.unfinished()
    clearing.join()
    assert list(reader.tasks(SESSION)) == []
    assert reader.problems() == []
    reader.close()
