from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mcp_tasks.errors import StoreUnavailable, TaskNotFound
from mcp_tasks.models import Draft, Exited, Session, Task
from mcp_tasks.transfer import Backup, Place, Repaired, figures, make_backup, repair, verify
from tests.archives.rig import archives_of
from tests.stores.records import finished, pending
from tests.transfer.filled import (
    AT,
    EXIT,
    PLAY,
    WORK,
    add_finished,
    add_running,
    as_recorded,
    contents,
    fill,
    open_at,
    write_run,
)


@dataclass
class Rig:
    place: Place
    backup: Backup

    def verify(self) -> list[str]:
        return list(verify(self.place, archives_of(self.place)))

    def repair(self) -> list[str]:
        return self.repaired().back

    def repaired(self) -> Repaired:
        return repair(self.place, self.backup, open_at, at=AT)

    def reopen(self) -> None:
        self.place.close()
        self.place = open_at(self.place.root, self.place.adapter)


def rig_of(tmp_path: Path, kind: str) -> Iterator[Rig]:
    place = open_at(tmp_path / "state", kind)
    fill(place)
    archived = Session(WORK, AT)
    place.store.open_session(Session(type(WORK)(WORK.owner, "old"), archived.created_at))
    archives_of(place).archive(type(WORK)(WORK.owner, "old"), at=AT)
    backup = make_backup(place, tmp_path / "backups", open_at, at=AT, seen=as_recorded, keep=7)
    made = Rig(place, backup)
    yield made
    made.place.close()


@pytest.fixture(params=["json", "sqlite"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    yield from rig_of(tmp_path, request.param)


@pytest.fixture
def json_rig(tmp_path: Path) -> Iterator[Rig]:
    yield from rig_of(tmp_path, "json")


def record_of(rig: Rig, task_id: str) -> Path:
    [path] = rig.place.root.glob(f"sessions/*/*/tasks/{task_id}.json")
    return path


def test_a_place_in_order_has_no_problems_and_needs_no_repair(rig: Rig) -> None:
    before = contents(rig.place)

    assert rig.verify() == []
    assert rig.repair() == []

    assert contents(rig.place) == before
    assert not [name for name in os.listdir(rig.place.root.parent) if name.endswith("repairing")]


def test_a_task_that_is_broken_comes_back_from_a_backup(json_rig: Rig) -> None:
    before = contents(json_rig.place)
    task = next(json_rig.place.store.tasks(WORK))
    record_of(json_rig, task.key.task_id).write_bytes(b"broken")
    json_rig.reopen()

    assert any(task.key.task_id in problem for problem in json_rig.verify())
    assert json_rig.repair() == [f"task {task.key.task_id}"]

    assert contents(json_rig.place) == before


def test_what_was_cleared_on_purpose_stays_away(json_rig: Rig) -> None:
    [broken, cleared, *_] = json_rig.place.store.tasks(WORK)
    json_rig.place.store.delete(cleared.key)
    json_rig.place.store.delete_session(PLAY)
    record_of(json_rig, broken.key.task_id).write_bytes(b"broken")
    json_rig.reopen()
    json_rig.verify()

    json_rig.repair()

    assert json_rig.place.store.load(broken.key) == broken
    with pytest.raises(TaskNotFound):
        json_rig.place.store.load(cleared.key)
    assert PLAY not in [session.key for session in json_rig.place.store.sessions()]


def test_a_session_record_and_a_plan_that_are_broken_come_back(json_rig: Rig) -> None:
    before = contents(json_rig.place)
    [session] = json_rig.place.root.glob("sessions/*/work/session.json")
    [plan] = json_rig.place.root.glob("sessions/*/work/plans/*.json")
    session.write_bytes(b"{}")
    plan.write_bytes(b"{}")
    json_rig.reopen()
    assert len(json_rig.verify()) >= 1
    task = add_finished(json_rig.place, "work")  # whoever writes next makes the session anew

    assert len(json_rig.repair()) == 2
    json_rig.place.store.delete(task.key)

    assert contents(json_rig.place) == before


def test_a_database_that_is_broken_is_filled_again(tmp_path: Path) -> None:
    for rig in rig_of(tmp_path, "sqlite"):
        before = contents(rig.place)
        rig.place.close()
        for path in rig.place.root.glob("*.db"):
            path.write_bytes(b"no database" * 1000)
        rig.reopen()
        rig.verify()

        assert len(rig.repair()) > 5
        rig.place.journal.touch(WORK, AT + 40)
        rig.place.journal.flush()

        found = contents(rig.place)
        for session in (*found.values(), *before.values()):
            session.pop("figures")  # what was folded is live again
            session.pop("connections")
        assert found == before


def test_messages_come_back_and_later_ones_stay(json_rig: Rig) -> None:
    before = [message.text for message in json_rig.place.journal.everything(WORK)]
    json_rig.place.close()
    (json_rig.place.root / "journal.db").write_bytes(b"no database" * 1000)
    json_rig.reopen()
    json_rig.place.journal.append([Draft(WORK, "user", "later", AT + 99)])
    json_rig.verify()

    json_rig.repair()

    texts = [message.text for message in json_rig.place.journal.everything(WORK)]
    assert sorted(texts) == sorted([*before, "later"])


@pytest.mark.parametrize("damage", ["missing", "broken", "folder"])
def test_a_run_whose_exit_record_is_lost_gets_it_back(damage: str, rig: Rig) -> None:
    before = contents(rig.place)
    task = next(rig.place.store.tasks(PLAY))
    folder = rig.place.store.run_folder(task.key, 1)
    match damage:
        case "missing":
            (folder / "exit.json").unlink()
        case "broken":
            (folder / "exit.json").write_bytes(b"{")
        case _:
            for path in folder.iterdir():
                path.unlink()

    [problem] = rig.verify()
    assert "exit record" in problem
    assert task.key.task_id in problem
    assert "files of" in rig.repair()[0]

    assert rig.verify() == []
    assert contents(rig.place) == before


def capture(rig: Rig, task: Task, outcome: str = "exited", **sizes: int) -> Path:
    """Let the exit record of a run say how much output there was; its folder."""
    folder = rig.place.store.run_folder(task.key, task.run)
    (folder / "exit.json").write_text(json.dumps({**EXIT, "outcome": outcome, **sizes}))
    return folder


@pytest.mark.parametrize("length", [0, 10, None])
def test_output_that_was_cut_short_is_named_and_comes_back(length: int | None, rig: Rig) -> None:
    task = next(task for task in rig.place.store.tasks(WORK) if task.run == 1)
    before = contents(rig.place)
    stdout = capture(rig, task, stdout_bytes=36, stderr_bytes=0) / "stdout"
    assert rig.verify() == []
    stdout.unlink() if length is None else os.truncate(stdout, length)

    [problem] = rig.verify()

    assert task.key.task_id in problem
    assert f"stdout was cut short: {length or 0} of 36 bytes" in problem
    assert rig.repair() == [f"1 files of task {task.key.task_id}"]
    assert rig.verify() == []
    name = f"{task.key.task_id}.1/stdout"
    assert contents(rig.place)["somebody/work"]["files"][name] == before["somebody/work"]["files"][name]


def test_an_earlier_run_that_was_cut_short_is_named(json_rig: Rig) -> None:
    task = next(task for task in json_rig.place.store.tasks(WORK) if task.run == 2)
    folder = json_rig.place.store.run_folder(task.key, 1)
    (folder / "exit.json").write_text(json.dumps({**EXIT, "stderr_bytes": 6}))

    [problem] = json_rig.verify()

    assert "run 1 of" in problem
    assert "5 of 6 bytes" in problem


def test_output_of_what_ran_on_and_kept_tails_are_whole(json_rig: Rig) -> None:
    task = next(task for task in json_rig.place.store.tasks(WORK) if task.run == 1)
    folder = capture(json_rig, task, stdout_bytes=20)  # less than there is
    assert json_rig.verify() == []

    (folder / f"stdout.{10**6:020d}").write_bytes(b"the tail")
    (folder / f"stdout.{10**6:020d}").chmod(0o600)
    capture(json_rig, task, stdout_bytes=10**6 + 8)
    assert json_rig.verify() == []

    capture(json_rig, task, stdout_bytes=10**6 + 9)
    assert "stdout was cut short" in json_rig.verify()[0]


def test_a_kept_tail_whose_head_was_cut_short_is_named(json_rig: Rig) -> None:
    task = finished(pending("work"), Exited(0))
    task = replace(task, spec=replace(task.spec, on_output_limit="keep_tail", max_output_bytes=100))
    folder = write_run(json_rig.place, task, stdout=b"h" * 50, exit_json=json.dumps(EXIT).encode())
    (folder / f"stdout.{200:020d}").write_bytes(b"the tail")
    json_rig.place.store.create(task)
    assert json_rig.verify() == []

    os.truncate(folder / "stdout", 7)

    assert "head of its output was cut short: 7 of 50 bytes" in json_rig.verify()[0]


def test_what_lies_in_the_quarantine_is_named_as_long_as_it_is_there(json_rig: Rig) -> None:
    task = next(json_rig.place.store.tasks(WORK))
    record_of(json_rig, task.key.task_id).write_bytes(b"broken")
    json_rig.reopen()
    first = json_rig.verify()
    json_rig.reopen()

    [again] = json_rig.verify()

    assert [problem for problem in first if "quarantine/" in problem] == [again]
    assert task.key.task_id in again
    [kept] = [path for path in (json_rig.place.root / "quarantine").iterdir() if path.suffix == ".json"]
    kept.unlink()
    assert json_rig.verify() == []


def test_only_what_a_backup_has_is_made_up_for(rig: Rig) -> None:
    known, later = next(rig.place.store.tasks(WORK)), add_finished(rig.place, "work")
    for task in (known, later):
        spoil(rig, task)
    rig.reopen()
    rig.verify()

    done = rig.repaired()

    assert done.back == [f"task {known.key.task_id}"]
    [made_up_for] = done.made_up_for
    assert known.key.task_id in made_up_for.name
    [left] = [one for one in rig.verify() if one != made_up_for.sentence()]
    assert later.key.task_id in left


def spoil(rig: Rig, task: Task) -> None:
    if rig.place.adapter == "json":
        record_of(rig, task.key.task_id).write_bytes(b"broken")
        return
    with closing(sqlite3.connect(rig.place.root / "records.db")) as connection, connection:
        spoilt = connection.execute(
            "UPDATE tasks SET data = ? WHERE task_id = ?", (b"broken", task.key.task_id)
        )
        assert spoilt.rowcount == 1


def test_output_that_cannot_be_read_is_named(json_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: str) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("mcp_tasks.transfer.checking.open_to_read", fail)

    assert all("Input/output error" in problem for problem in json_rig.verify())


def test_what_runs_is_no_problem(json_rig: Rig) -> None:
    add_running(json_rig.place)

    assert json_rig.verify() == []


def test_an_archive_that_is_damaged_comes_back(json_rig: Rig) -> None:
    [packed] = json_rig.place.root.glob("archive/*/*.tar.gz")
    data = packed.read_bytes()
    packed.write_bytes(data[:-1] + b"?")

    [problem] = json_rig.verify()
    assert "not what was written" in problem
    assert json_rig.repair() == [f"archive {packed.name}"]

    assert json_rig.verify() == []
    packed.unlink()
    packed.with_name(packed.name.replace(".tar.gz", ".json")).unlink()
    assert json_rig.repair() == []


def test_a_journal_that_cannot_be_read_is_named(json_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Iterator[object]:
        raise StoreUnavailable("the disk is gone")

    monkeypatch.setattr(type(json_rig.place.journal), "everything", fail)

    assert any("the disk is gone" in problem for problem in json_rig.verify())


def test_folded_messages_that_are_missing_in_their_body_are_named(json_rig: Rig) -> None:
    with closing(sqlite3.connect(json_rig.place.root / "journal.db")) as connection, connection:
        assert connection.execute("UPDATE fold SET messages = messages + 1").rowcount == 1

    assert any("folded messages are missing" in problem for problem in json_rig.verify())


def test_a_damaged_backup_repairs_nothing(json_rig: Rig) -> None:
    next((json_rig.backup.path / "state").rglob("exit.json")).write_bytes(b"{}")
    task = next(json_rig.place.store.tasks(WORK))
    record_of(json_rig, task.key.task_id).write_bytes(b"broken")
    json_rig.reopen()
    json_rig.verify()

    with pytest.raises(StoreUnavailable, match="damaged"):
        json_rig.repair()


def test_figures_count_everything(rig: Rig) -> None:
    add_running(rig.place)
    rig.place.journal.flush()

    found = figures(
        rig.place, archives_of(rig.place), lambda session, _active, busy: "open" if busy else "idle"
    )

    assert found["sessions"] == {"all": 4, "open": 1, "idle": 2, "closed": 0, "archived": 1}
    assert found["tasks"] == {
        "all": 6,
        "pending": 0,
        "running": 1,
        "completed": 5,
        "failed": 0,
        "cancelled": 0,
        "lost": 0,
    }
    assert found["messages"] == {"live": 5, "folded": 6}
    kinds = found["bytes"]
    assert kinds["all"] == sum(kinds[kind] for kind in kinds if kind != "all")
    assert all(kinds[kind] > 0 for kind in ("records", "output", "journal", "archives"))
    assert kinds["output"] < 1_000_000  # holes take no room
    assert found["oldest_at"] == "2023-11-14T22:13:20.000Z"
    assert found["newest_at"] > found["oldest_at"]


def test_figures_of_nothing(tmp_path: Path) -> None:
    place = open_at(tmp_path / "state", "json")
    try:
        found = figures(place, archives_of(place), lambda *_: "open")
    finally:
        place.close()

    assert found["sessions"]["all"] == found["tasks"]["all"] == 0
    assert found["oldest_at"] is None


def test_the_databases_of_this_test_are_real_ones(rig: Rig) -> None:
    path = rig.place.root / "journal.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] >= 1
    connection.close()
