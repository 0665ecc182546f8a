from __future__ import annotations

import errno
import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mcp_tasks.archives import SessionArchives, folder, leaving, packing, unpacking
from mcp_tasks.archives.labels import read_label
from mcp_tasks.errors import (
    InvalidArgument,
    SessionNotFound,
    StoreBusy,
    StoreUnavailable,
    TaskNotFinished,
    TaskNotFound,
)
from mcp_tasks.models import Draft, SessionKey, Task, TaskKey
from mcp_tasks.stores.disk.locks import ProcessLock
from mcp_tasks.transfer import Place
from tests.archives.rig import archives_of
from tests.stores.journals import Scrambler
from tests.stores.records import OWNER, finished
from tests.transfer.filled import (
    AT,
    EMPTY,
    KINDS,
    PLAY,
    WORK,
    add_finished,
    add_pending,
    add_running,
    contents,
    fill,
    open_at,
)

LONG_OWNER = "somebody with a name that is longer than any folder may be called " * 3


@dataclass
class Rig:
    place: Place
    archives: SessionArchives

    @property
    def packed(self) -> Path:
        [path] = (self.place.root / "archive").rglob("*.tar.gz")
        return path

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.place.root / "archive").rglob("*") if path.is_file())


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    place = open_at(tmp_path / "state", request.param)
    fill(place)
    yield Rig(place, archives_of(place))
    place.close()


@pytest.fixture
def json_rig(tmp_path: Path) -> Iterator[Rig]:
    place = open_at(tmp_path / "state", "json")
    fill(place)
    yield Rig(place, archives_of(place))
    place.close()


@pytest.mark.parametrize("key", [WORK, PLAY, EMPTY], ids=lambda key: key.session)
def test_a_session_comes_back_as_it_was(key: SessionKey, rig: Rig) -> None:
    before = contents(rig.place)
    name = f"{key.owner}/{key.session}"

    archive = rig.archives.archive(key, at=AT + 1000)

    assert archive.name == f"{key.session}~{AT + 1000}"
    assert rig.archives.all(OWNER) == [archive]
    assert contents(rig.place) == {other: what for other, what in before.items() if other != name}
    assert list(rig.place.journal.everything(key)) == []
    assert list(rig.archives.check()) == []

    assert rig.archives.restore(OWNER, archive.name, at=AT + 2000) == key

    back = contents(rig.place)
    figures, old = back[name].pop("figures"), before[name].pop("figures")
    assert (figures.live + figures.folded, figures.active_at) == (old.live + old.folded, AT + 2000)
    assert back == before
    assert rig.archives.all() == []
    assert list(rig.place.store.verify()) == []


def test_the_listing_tells_what_is_in_an_archive_without_opening_it(rig: Rig) -> None:
    rig.archives.archive(WORK, at=AT + 1000)
    rig.packed.chmod(0)

    [archive] = rig.archives.all()

    assert (archive.tasks, archive.plans, archive.messages, archive.files) == (4, 1, 10, 10)
    assert (archive.title, archive.created_at, archive.active_at) == ("Work", AT, AT + 40)
    assert archive.bytes == rig.packed.stat().st_size
    assert rig.packed.stat().st_mode & 0o077 == 0


def test_a_session_can_come_back_under_another_name_and_its_archive_can_stay(rig: Rig) -> None:
    before = contents(rig.place)["somebody/work"]
    rig.archives.archive(WORK, at=AT)
    add_finished(rig.place, "work")

    with pytest.raises(InvalidArgument, match="--as"):
        rig.archives.restore(OWNER, "work", at=AT)
    key = rig.archives.restore(OWNER, "work", at=AT, into="Again", keep=True)

    assert key == SessionKey(OWNER, "Again")
    tasks = contents(rig.place)["somebody/Again"]["tasks"]
    assert [task.spec for task in tasks] == [task.spec for task in before["tasks"]]
    assert len(rig.archives.all()) == 1
    with pytest.raises(InvalidArgument, match="already"):
        rig.archives.restore(OWNER, "work", at=AT, into="third")
    with pytest.raises(InvalidArgument, match="name"):
        rig.archives.restore(OWNER, "work", at=AT, into="..")


@pytest.mark.parametrize("add", [add_running, add_pending])
def test_nothing_that_is_not_over_is_archived(add: type, rig: Rig) -> None:
    task = add(rig.place)

    with pytest.raises(TaskNotFinished, match=task.key.task_id):
        rig.archives.archive(WORK, at=AT)

    assert rig.files() == []
    assert rig.place.store.load(task.key) == task


def test_nothing_that_left_processes_behind_is_archived(rig: Rig) -> None:
    with pytest.raises(TaskNotFinished, match="background"):
        archives_of(rig.place, left_alive=True).archive(WORK, at=AT)


def test_a_record_that_has_not_caught_up_is_settled_first(rig: Rig) -> None:
    task = add_running(rig.place)

    def settle(key: TaskKey) -> Task:
        return rig.place.store.replace(finished(rig.place.store.load(key)))

    archives = SessionArchives(
        rig.place.root,
        rig.place.store,
        rig.place.journal,
        settle=settle,
        left_alive=lambda _task: False,
        sealer=Scrambler(),
    )

    assert archives.archive(task.key.session_key, at=AT).tasks == 5


def test_a_task_that_is_cleared_in_this_moment_is_no_obstacle(rig: Rig) -> None:
    task = add_pending(rig.place)

    def settle(key: TaskKey) -> Task:
        rig.place.store.delete(key)
        raise TaskNotFound(key.task_id)

    archives = SessionArchives(
        rig.place.root,
        rig.place.store,
        rig.place.journal,
        settle=settle,
        left_alive=lambda _task: False,
    )
    archives.archive(task.key.session_key, at=AT)


@pytest.mark.parametrize("what", ["task", "message", "record"])
def test_a_session_that_is_used_meanwhile_stays_and_its_archive_goes(
    what: str, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = packing.pack

    def slow(*args: object, **kwargs: object) -> object:
        packed = real(*args, **kwargs)  # type: ignore[arg-type]  # whatever it is called with
        match what:
            case "task":
                add_finished(rig.place, "work")
            case "message":
                rig.place.journal.append([Draft(WORK, "user", "wait!", AT)])
            case _:
                session = rig.place.store.load_session(WORK)
                rig.place.store.replace_session(replace(session, title="new"))
        return packed

    monkeypatch.setattr(leaving, "pack", slow)
    with pytest.raises(TaskNotFinished, match="meanwhile"):
        rig.archives.archive(WORK, at=AT)

    assert rig.files() == []
    assert len(list(rig.place.store.tasks(WORK))) == (5 if what == "task" else 4)


def test_what_is_sealed_in_a_journal_is_sealed_in_its_archive(rig: Rig) -> None:
    rig.archives.archive(PLAY, at=AT)

    assert b"nobody's business" not in gzip.decompress(rig.packed.read_bytes())
    rig.archives.restore(OWNER, "Play", at=AT)
    [message] = rig.place.journal.everything(PLAY)
    assert (message.text, message.sealed) == ("nobody's business", True)


def test_without_a_key_a_sealed_journal_stays_where_it_is(rig: Rig) -> None:
    keyless = SessionArchives(
        rig.place.root,
        rig.place.store,
        rig.place.journal,
        settle=rig.place.store.load,
        left_alive=lambda _task: False,
    )
    with pytest.raises(StoreUnavailable, match="no key"):
        keyless.archive(PLAY, at=AT)
    assert rig.files() == []

    rig.archives.archive(PLAY, at=AT)
    with pytest.raises(StoreUnavailable, match="no key"):
        keyless.restore(OWNER, "Play", at=AT)
    assert [session.key for session in rig.place.store.sessions()] == [EMPTY, WORK]
    rig.archives.restore(OWNER, "Play", at=AT)


@pytest.mark.parametrize("damage", ["change", "cut", "remove", "label", "newer", "other"])
def test_a_damaged_archive_is_named_and_left(damage: str, json_rig: Rig) -> None:
    rig = json_rig
    rig.archives.archive(WORK, at=AT)
    packed, label = rig.packed, rig.packed.with_name(f"work~{AT}.json")
    data, text = packed.read_bytes(), label.read_text()
    match damage:
        case "change":
            packed.write_bytes(data[:-20] + b"x" + data[-19:])
        case "cut":
            packed.write_bytes(data[: len(data) // 2])
        case "remove":
            packed.unlink()
        case "label":
            label.write_text("{")
        case "newer":
            label.write_text(text.replace('"version": 1', '"version": 2'))
        case _:
            label.write_text(text.replace('"work"', '"other"'))
    left = rig.files()

    assert any(f"work~{AT}" in sentence for sentence in rig.archives.check())
    rig.archives.recover()
    if damage in ("label", "newer", "other"):
        # The archive itself is well, so it can be had all the same.
        rig.archives.restore(OWNER, "work", at=AT, keep=True)
        assert len(list(rig.place.store.tasks(WORK))) == 4
    else:
        with pytest.raises(StoreUnavailable, match=f"work~{AT} is damaged"):
            rig.archives.restore(OWNER, "work", at=AT)
        assert [session.key for session in rig.place.store.sessions()] == [PLAY, EMPTY]

    assert rig.files() == left


def test_an_archive_that_lost_its_label_can_be_restored(json_rig: Rig) -> None:
    rig = json_rig
    rig.archives.archive(WORK, at=AT)
    rig.packed.with_name(f"work~{AT}.json").unlink()

    [archive] = rig.archives.all()
    assert archive.problem == "it has no label"
    rig.archives.recover()
    rig.archives.restore(OWNER, "work", at=AT)

    assert len(list(rig.place.store.tasks(WORK))) == 4
    assert rig.files() == []


def _tar(members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.type = len(data), kind
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"session.json": b"{"},
        {"../../planted": b"x"},
        {"/etc/planted": b"x"},
        {"tasks/x.json": b"{}"},
        {"runs/" + "0" * 36 + ".1/../../x": b""},
        {"journal.jsonl": b"nonsense\n"},
    ],
)
def test_a_forged_archive_restores_nothing(members: dict[str, bytes], json_rig: Rig) -> None:
    rig = json_rig
    place = rig.place.root / "archive" / "somebody"
    place.mkdir(parents=True)
    good = rig.place.root / "session.json"
    (place / f"forged~{AT}.tar.gz").write_bytes(_tar(members))

    with pytest.raises(StoreUnavailable, match="damaged"):
        rig.archives.restore(OWNER, "forged", at=AT)

    assert not good.exists()
    assert not (rig.place.root.parent / "planted").exists()
    assert "somebody/forged" not in contents(rig.place)


def test_a_forged_member_after_good_ones_takes_back_what_was_restored(json_rig: Rig) -> None:
    rig = json_rig
    rig.archives.archive(WORK, at=AT)
    members: dict[str, bytes] = {}
    with tarfile.open(rig.packed) as tar:
        for entry in tar:
            data = tar.extractfile(entry)
            assert data is not None
            members[entry.name] = data.read()
    rig.packed.write_bytes(_tar({**members, "planted": b"x"}))
    rig.packed.with_name(f"work~{AT}.json").unlink()

    with pytest.raises(StoreUnavailable, match="planted"):
        rig.archives.restore(OWNER, "work", at=AT)

    assert "somebody/work" not in contents(rig.place)
    assert list(rig.place.journal.everything(WORK)) == []
    assert rig.files() == [f"work~{AT}.tar.gz"]


def test_holes_in_an_archive_are_refused_before_they_fill_the_disk(json_rig: Rig) -> None:
    place = json_rig.place.root / "archive" / "somebody"
    place.mkdir(parents=True)
    entry = tarfile.TarInfo("runs/" + "0" * 36 + ".1/stdout")
    entry.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(2**60)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(entry)
    (place / f"forged~{AT}.tar.gz").write_bytes(out.getvalue())

    with pytest.raises(StoreUnavailable, match="damaged"):
        json_rig.archives.restore(OWNER, "forged", at=AT)

    assert "somebody/forged" not in contents(json_rig.place)


def test_more_output_than_the_label_says_is_refused(json_rig: Rig) -> None:
    archive = json_rig.archives.archive(WORK, at=AT)
    label = json_rig.packed.with_name(f"{archive.name}.json")
    fields = json.loads(label.read_bytes())
    fields["archive"]["output_bytes"] -= 1
    label.write_text(json.dumps(fields))

    with pytest.raises(StoreUnavailable, match="more output"):
        json_rig.archives.restore(OWNER, "work", at=AT)


def test_the_output_of_a_task_whose_record_was_set_aside_goes_along(json_rig: Rig) -> None:
    rig = json_rig
    task = add_finished(rig.place, "work", output=b"all that is left")
    [record] = rig.place.root.glob(f"sessions/*/work/tasks/{task.key.task_id}.json")
    record.write_bytes(b"broken")
    os.utime(rig.place.store.run_folder(task.key, 1), (AT // 1000, AT // 1000))

    archive = rig.archives.archive(WORK, at=AT)
    rig.archives.restore(OWNER, "work", at=AT)

    assert archive.tasks == 4
    assert (rig.place.store.run_folder(task.key, 1) / "stdout").read_bytes() == b"all that is left"


def test_links_in_an_archive_are_refused(json_rig: Rig) -> None:
    place = json_rig.place.root / "archive" / "somebody"
    place.mkdir(parents=True)
    (place / f"forged~{AT}.tar.gz").write_bytes(_tar({"session.json": b""}, tarfile.SYMTYPE))

    with pytest.raises(StoreUnavailable, match="no file"):
        json_rig.archives.restore(OWNER, "forged", at=AT)


def test_what_is_larger_than_any_record_is_not_read(json_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    json_rig.archives.archive(WORK, at=AT)
    monkeypatch.setattr(unpacking, "_MOST_RECORD", 10)

    with pytest.raises(StoreUnavailable, match="larger"):
        json_rig.archives.restore(OWNER, "work", at=AT)


def test_an_archive_that_holds_less_than_its_label_says_is_damaged(json_rig: Rig) -> None:
    json_rig.archives.archive(WORK, at=AT)
    label = json_rig.packed.with_name(f"work~{AT}.json")
    data = json.loads(label.read_text())
    data["archive"]["tasks"] += 1
    label.write_text(json.dumps(data))

    with pytest.raises(StoreUnavailable, match="less"):
        json_rig.archives.restore(OWNER, "work", at=AT)


def test_archives_of_others_are_not_found(rig: Rig) -> None:
    rig.archives.archive(WORK, at=AT)

    assert rig.archives.all("else") == []
    for name in ("work", f"work~{AT}"):
        with pytest.raises(SessionNotFound):
            rig.archives.find("else", name)
        with pytest.raises(SessionNotFound):
            rig.archives.restore("else", name, at=AT)
    with pytest.raises(SessionNotFound):
        rig.archives.archive(SessionKey("else", "work"), at=AT)


def test_an_owner_whose_folder_is_a_hash_is_known_from_the_label(rig: Rig) -> None:
    key = SessionKey(LONG_OWNER, "work")
    task = finished(replace(add_pending(rig.place), key=TaskKey(LONG_OWNER, "work", "0" * 36)))
    rig.place.store.create(task)
    rig.archives.archive(key, at=AT)

    assert [archive.key for archive in rig.archives.all()] == [key]
    assert rig.archives.restore(LONG_OWNER, "work", at=AT) == key


def test_the_newest_archive_of_a_session_is_meant_and_moments_never_meet(rig: Rig) -> None:
    first = rig.archives.archive(WORK, at=AT)
    add_finished(rig.place, "work")
    second = rig.archives.archive(WORK, at=AT)

    assert (first.name, second.name) == (f"work~{AT}", f"work~{AT + 1}")
    assert rig.archives.find(OWNER, "work") == second
    assert rig.archives.find(OWNER, first.name) == first
    assert rig.archives.remove(OWNER, "work") == second.bytes
    assert rig.archives.all() == [first]


def test_one_process_at_a_time(json_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_LOCK_S", 0.05)
    archives = archives_of(json_rig.place)
    with (
        ProcessLock(str(json_rig.place.root / "archive.lock"), 1).held(),
        pytest.raises(StoreBusy),
    ):
        archives.archive(WORK, at=AT)


def test_without_room_nothing_changes(json_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(json_rig.place)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(leaving, "pack", full)
    with pytest.raises(StoreUnavailable, match="ENOSPC"):
        json_rig.archives.archive(WORK, at=AT)
    monkeypatch.undo()
    assert json_rig.files() == []
    assert contents(json_rig.place) == before

    archive = json_rig.archives.archive(WORK, at=AT)
    monkeypatch.setattr(unpacking, "_write", full)
    with pytest.raises(StoreUnavailable, match="ENOSPC"):
        json_rig.archives.restore(OWNER, "work", at=AT)
    monkeypatch.undo()
    assert json_rig.archives.all() == [archive]
    assert "somebody/work" not in contents(json_rig.place)
    json_rig.archives.restore(OWNER, "work", at=AT)


def test_other_files_among_the_archives_are_left_alone(json_rig: Rig) -> None:
    json_rig.archives.archive(WORK, at=AT)
    packed = json_rig.packed
    for name in ("README", "work~soon.json", "~1.tar.gz"):
        packed.with_name(name).write_text("mine")

    assert len(json_rig.archives.all()) == 1
    json_rig.archives.recover()
    assert len(json_rig.files()) == 5
    with pytest.raises(FileNotFoundError):
        read_label(packed.with_name("README"), OWNER)


def test_with_no_archives_there_is_nothing_to_recover(json_rig: Rig) -> None:
    assert json_rig.archives.recover() == []
    assert json_rig.archives.all() == []
    assert json_rig.archives.all(OWNER) == []
    assert list(json_rig.archives.check()) == []
