from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_tasks.errors import InvalidArgument, StoreBusy, StoreUnavailable, TaskNotFinished
from mcp_tasks.stores.disk.locks import ProcessLock
from mcp_tasks.transfer import (
    Place,
    all_backups,
    bringing_back,
    check_backup,
    files,
    find_backup,
    make_backup,
    restore_backup,
    rotate,
)
from mcp_tasks.transfer.backups import Backup
from mcp_tasks.transfer.manifest import MANIFEST
from tests.stores.records import pending
from tests.transfer.filled import (
    AT,
    WORK,
    add_finished,
    add_pending,
    add_running,
    as_recorded,
    contents,
    fill,
    open_at,
)


@pytest.fixture(params=["json", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    opened = open_at(tmp_path / "state", request.param)
    fill(opened)
    yield opened
    opened.close()


def backup_of(place: Place, *, keep: int = 7, at: int = AT) -> Backup:
    return make_backup(place, place.root.parent / "backups", open_at, at=at, seen=as_recorded, keep=keep)


def restored(backup: Backup, root: Path) -> dict[str, object]:
    assert backup.manifest is not None
    restore_backup(backup, root, replace=False, at=AT)
    place = open_at(root, backup.manifest.adapter)
    try:
        assert list(place.store.verify()) == []
        return contents(place)
    finally:
        place.close()


def test_what_is_restored_is_what_was_backed_up(place: Place, tmp_path: Path) -> None:
    before = contents(place)

    backup = backup_of(place)

    assert backup.name == "20231114T221320Z-1"
    assert contents(place) == before
    assert restored(backup, tmp_path / "new") == before
    for path in (place.root.parent / "backups").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_nothing_that_was_not_over_can_run_again_from_a_backup(place: Place, tmp_path: Path) -> None:
    runs, waits = add_running(place), add_pending(place)

    backup = backup_of(place)

    assert backup.manifest is not None
    assert not [name for name in backup.manifest.files if name.endswith(("launch", "started", ".lock"))]
    restore_backup(backup, tmp_path / "new", replace=False, at=AT)
    copy = open_at(tmp_path / "new", place.adapter)
    try:
        assert copy.store.load(runs.key).state_name == "lost"
        assert copy.store.load(waits.key).state_name == "cancelled"
        assert copy.store.unfinished() == []
    finally:
        copy.close()


def test_a_backup_is_whole_however_much_is_written_meanwhile(place: Place, tmp_path: Path) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            while not stop.is_set():
                task = add_finished(place, "work")
                place.store.replace(replace(task, spec=replace(task.spec, label="changed")))
                task = add_finished(place, "busy")
                place.store.delete(task.key)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        backups = [backup_of(place) for _ in range(3)]
    finally:
        stop.set()
        writer.join()

    assert failures == []
    for number, backup in enumerate(backups):
        found = restored(backup, tmp_path / f"new-{number}")
        for session in found.values():
            assert isinstance(session, dict)
            for task in session["tasks"]:
                assert f"{task.key.task_id}.1/exit.json" in session["files"]


def test_the_newest_backups_are_kept(place: Place) -> None:
    names = [backup_of(place, keep=2, at=AT + number * 1000).name for number in range(4)]

    folder = place.root.parent / "backups"
    assert [one.name for one in all_backups(folder)] == [names[3], names[2]]
    assert sorted(os.listdir(folder)) == [".lock", names[2], names[3]]


def test_backups_of_one_second_are_numbered_and_ordered(place: Place) -> None:
    for _ in range(10):
        backup_of(place, keep=20)

    numbers = [one.name.partition("-")[2] for one in all_backups(place.root.parent / "backups")]
    assert numbers == [str(number) for number in range(10, 0, -1)]


def test_a_store_that_cannot_be_replaced_stays_where_it_is(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = backup_of(place)
    place.close()
    real = os.rename

    def rename(source: str | Path, target: str | Path) -> None:
        if Path(source).name == ".state.restoring":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(StoreUnavailable, match="EIO"):
        restore_backup(backup, place.root, replace=True, at=AT)

    assert (place.root / "store.json").exists()
    assert not list(tmp_path.glob("*.replaced-*"))


def test_what_began_to_run_while_a_backup_was_checked_is_seen(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = backup_of(place)
    real = bringing_back.copy_state
    held: list[int] = []

    def slow(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]  # whatever it is called with
        folder = place.store.make_run_folder(pending("work").key, 1)
        held.append(os.open(folder, os.O_RDONLY))
        fcntl.flock(held[0], fcntl.LOCK_EX)

    monkeypatch.setattr(bringing_back, "copy_state", slow)
    try:
        with pytest.raises(TaskNotFinished):
            restore_backup(backup, place.root, replace=True, at=AT)
    finally:
        os.close(held[0])


def test_the_last_good_one_is_never_removed(place: Place) -> None:
    good = backup_of(place)
    bad = backup_of(place, at=AT + 5000)
    (bad.path / MANIFEST).unlink()

    assert rotate(good.path.parent, 1) == []

    assert find_backup(good.path.parent, None).name == good.name
    [first, _] = all_backups(good.path.parent)
    assert first.name == bad.name
    assert first.problem is not None
    assert "no backup" in first.problem
    with pytest.raises(StoreUnavailable):
        find_backup(good.path.parent, bad.name)


def test_backups_of_another_state_directory_are_neither_removed_nor_taken_for_ones_own(
    tmp_path: Path,
) -> None:
    one, other = (open_at(tmp_path / name / "state", "json") for name in ("one", "other"))
    try:
        folder = tmp_path / "backups"
        old = make_backup(other, folder, open_at, at=AT, seen=as_recorded, keep=1)
        names = [
            make_backup(one, folder, open_at, at=AT + number, seen=as_recorded, keep=1).name
            for number in (5_000, 9_000)
        ]

        assert [backup.name for backup in all_backups(folder)] == [names[1], old.name]
        assert find_backup(folder, None, other.root).name == old.name
        assert find_backup(folder, None, one.root).name == names[1]
        assert rotate(folder, 1) == []
        with pytest.raises(InvalidArgument, match="several"):
            find_backup(folder, None)
    finally:
        one.close()
        other.close()


def test_the_newest_backup_of_another_state_directory_is_taken_by_its_path_only(
    place: Place, tmp_path: Path
) -> None:
    backup = backup_of(place)

    with pytest.raises(InvalidArgument, match=r"no backup of .*third") as refused:
        find_backup(backup.path.parent, None, tmp_path / "third")

    assert str(backup.path) in refused.value.hint
    assert find_backup(backup.path.parent, str(backup.path), tmp_path / "third").name == backup.name


@pytest.mark.parametrize(
    "damage", ["change", "cut", "remove", "add", "link", "manifest", "version", "path", "shape"]
)
def test_a_damaged_backup_is_named_and_restores_nothing(damage: str, place: Place, tmp_path: Path) -> None:
    backup = backup_of(place)
    victim = next(path for path in sorted((backup.path / "state").rglob("stdout")) if path.stat().st_size)
    manifest = backup.path / MANIFEST
    match damage:
        case "change":
            data = victim.read_bytes()
            victim.write_bytes(data[:-1] + b"\xff")
        case "cut":
            os.truncate(victim, 3)
        case "remove":
            victim.unlink()
        case "add":
            victim.with_name("stderr").write_bytes(b"planted")
        case "link":
            victim.unlink()
            victim.symlink_to("/etc/passwd")
        case "manifest":
            manifest.write_text("{")
        case "version":
            manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 9'))
        case "path":
            manifest.write_text(manifest.read_text().replace('"store.json"', '"../store.json"'))
        case _:
            manifest.write_text(json.dumps({"version": 1, "files": []}))
    with pytest.raises(StoreUnavailable):
        restore_backup(find_backup(backup.path.parent, backup.name), tmp_path / "new", replace=False, at=AT)

    assert not (tmp_path / "new").exists()


def test_a_store_that_is_there_is_set_aside_when_that_is_asked_for(place: Place) -> None:
    backup = backup_of(place)
    before = contents(place)
    add_finished(place, "later")
    place.close()
    with pytest.raises(InvalidArgument, match="not empty"):
        restore_backup(backup, place.root, replace=False, at=AT)

    aside = restore_backup(backup, place.root, replace=True, at=AT)

    assert aside is not None
    assert aside.is_dir()
    again, old = open_at(place.root, place.adapter), open_at(aside, place.adapter)
    try:
        assert contents(again) == before
        assert "somebody/later" in contents(old)
    finally:
        again.close()
        old.close()


def test_an_empty_folder_is_taken_and_a_file_is_not(place: Place, tmp_path: Path) -> None:
    backup = backup_of(place)
    (tmp_path / "new").mkdir()
    (tmp_path / "file").write_text("")

    assert restore_backup(backup, tmp_path / "new", replace=False, at=AT) is None
    with pytest.raises(InvalidArgument):
        restore_backup(backup, tmp_path / "file", replace=False, at=AT)


def test_a_store_in_which_a_command_runs_is_not_replaced(place: Place) -> None:
    backup = backup_of(place)
    task = add_running(place)
    folder = os.open(place.store.run_folder(task.key, 1), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(TaskNotFinished, match=task.key.task_id):
            restore_backup(backup, place.root, replace=True, at=AT)
    finally:
        os.close(folder)

    assert place.store.load(task.key) == task


def test_a_backup_is_not_made_inside_of_what_it_is_a_copy_of(place: Place) -> None:
    with pytest.raises(InvalidArgument):
        make_backup(place, place.root / "backups", open_at, at=AT, seen=as_recorded, keep=7)


def test_one_backup_at_a_time_and_what_a_killed_one_left_goes(place: Place) -> None:
    folder = backup_of(place).path.parent
    (folder / ".making-77" / "state").mkdir(parents=True)
    with ProcessLock(str(folder / ".lock"), 1).held(), pytest.raises(StoreBusy):
        backup_of(place)

    backup_of(place)

    assert not (folder / ".making-77").exists()


def test_nothing_is_left_of_a_backup_for_which_there_is_no_room(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = backup_of(place)

    def full(_source: str, _target: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "copy_file", full)
    with pytest.raises(StoreUnavailable, match="ENOSPC"):
        backup_of(place, at=AT + 1000, keep=1)

    assert sorted(os.listdir(good.path.parent)) == [".lock", good.name]
    check_backup(good)


def test_there_may_be_no_backup(tmp_path: Path) -> None:
    assert all_backups(tmp_path / "nowhere") == []
    for name in (None, "20231114T221320Z-1"):
        with pytest.raises(InvalidArgument):
            find_backup(tmp_path, name)


def test_a_copy_that_is_not_like_its_original_is_no_backup(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.copy_file

    def spoiled(source: str, target: str) -> int:
        size = real(source, target)
        if target.endswith("stdout"):
            Path(target).write_bytes(b"x" * size)
        return size

    monkeypatch.setattr(files, "copy_file", spoiled)
    with pytest.raises(StoreUnavailable, match="not like its original"):
        backup_of(place)

    assert place.store.load_session(WORK).title == "Work"
    assert all_backups(place.root.parent / "backups") == []
