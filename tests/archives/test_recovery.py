"""What a killed process leaves of an archive, and what the next cleanup makes of it; see also crash_rig."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from mcp_tasks.archives import SessionArchives, leaving, shelf
from mcp_tasks.archives.leaving import Leaving
from mcp_tasks.archives.returning import Returning
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import Draft, Session, SessionKey
from mcp_tasks.transfer import Place
from tests.archives.rig import archives_of
from tests.stores.records import OWNER
from tests.transfer.filled import AT, WORK, add_finished, contents, fill, open_at


class Killed(BaseException):
    """Nothing of what comes after it is done."""


def kill(*_: object, **__: object) -> NoReturn:
    raise Killed


@dataclass
class Rig:
    place: Place
    archives: SessionArchives

    def is_there(self) -> bool:
        return WORK in [session.key for session in self.place.store.sessions()]


@pytest.fixture(params=["json", "sqlite"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    place = open_at(tmp_path / "state", request.param)
    fill(place)
    yield Rig(place, archives_of(place))
    place.close()


def half_archived(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive is whole, and its session there still."""
    with monkeypatch.context() as patch:
        patch.setattr(Leaving, "_remove_session", kill)
        with pytest.raises(Killed):
            rig.archives.archive(WORK, at=AT)


def test_a_session_whose_archive_is_whole_is_put_away(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(rig.place)["somebody/work"]
    half_archived(rig, monkeypatch)

    [told] = rig.archives.recover()

    assert "away now" in told
    assert not rig.is_there()
    assert rig.archives.recover() == []
    rig.archives.restore(OWNER, "work", at=AT)
    after = contents(rig.place)["somebody/work"]
    assert (after["tasks"], after["files"]) == (before["tasks"], before["files"])


def test_a_session_that_was_used_since_stays_and_its_archive_goes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_archived(rig, monkeypatch)
    add_finished(rig.place, "work")

    [told] = rig.archives.recover()

    assert "not archived" in told
    assert rig.is_there()
    assert rig.archives.all() == []


def test_a_session_that_is_gone_already_needs_a_word_on_the_label_only(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_archived(rig, monkeypatch)
    rig.place.store.delete_session(WORK)

    rig.archives.recover()

    assert list(rig.place.journal.everything(WORK)) == []
    [archive] = rig.archives.all()
    assert archive.problem is None
    assert rig.archives.recover() == []


@pytest.mark.parametrize("whole", [True, False])
def test_an_archive_without_a_label_whose_session_is_there_goes(
    whole: bool, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_archived(rig, monkeypatch)
    [label] = rig.place.root.glob("archive/*/*.json")
    label.unlink()
    if not whole:
        [packed] = rig.place.root.glob("archive/*/*.tar.gz")
        os.truncate(packed, 100)

    [told] = rig.archives.recover()

    assert "still there" in told
    assert rig.is_there()
    assert rig.archives.all() == []


def test_an_archive_whose_session_left_stays_when_another_one_has_its_name_by_then(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(rig.place)["somebody/work"]
    with monkeypatch.context() as patch:
        patch.setattr(rig.place.journal, "delete", kill)
        with pytest.raises(Killed):
            rig.archives.archive(WORK, at=AT)
    assert not rig.is_there()
    rig.place.store.open_session(Session(WORK, AT + 50))
    task = add_finished(rig.place, "work")
    [said] = rig.place.journal.append([Draft(WORK, "user", "in the new one", AT + 99)])

    [told] = rig.archives.recover()

    assert "away now" in told
    assert rig.place.store.load(task.key) == task
    assert list(rig.place.journal.everything(WORK)) == [said]
    rig.archives.restore(OWNER, "work", at=AT, into="old")
    after = contents(rig.place)["somebody/old"]
    assert len(after["tasks"]) == len(before["tasks"])
    assert len(after["messages"]) == len(before["messages"])


def test_what_is_said_while_a_session_leaves_is_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rig.place.store.delete_session
    said = []

    def slow(key: SessionKey) -> int:
        said.extend(rig.place.journal.append([Draft(key, "user", "wait!", AT + 99)]))
        return real(key)

    monkeypatch.setattr(rig.place.store, "delete_session", slow)
    archive = rig.archives.archive(WORK, at=AT)

    assert archive.messages == 10
    assert list(rig.place.journal.everything(WORK)) == said


@pytest.mark.parametrize("label", ["{", '{"version": 99}'])
def test_an_archive_whose_label_cannot_be_read_is_never_taken_for_a_left_over(label: str, rig: Rig) -> None:
    empty = SessionKey(OWNER, "empty")
    rig.archives.archive(empty, at=AT)
    [path] = rig.place.root.glob("archive/*/*.json")
    path.write_text(label)
    rig.place.store.open_session(Session(empty, AT + 7))

    assert rig.archives.recover() == []
    assert len(rig.archives.all()) == 1


def test_a_restoration_that_was_all_but_over_is_ended_and_not_undone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.archives.archive(WORK, at=AT)
    with monkeypatch.context() as patch:
        patch.setattr(rig.place.journal, "touch", kill)
        patch.setattr(Returning, "_undo", lambda *_: "none")
        with pytest.raises(Killed):
            rig.archives.restore(OWNER, "work", at=AT)
    [said] = rig.place.journal.append([Draft(WORK, "user", "I am back", AT + 99)])

    [told] = rig.archives.recover()

    assert "is back" in told
    assert said in rig.place.journal.everything(WORK)
    assert len(list(rig.place.store.tasks(WORK))) == 4
    assert rig.archives.all() == []


def test_what_was_said_in_a_half_restored_session_stays(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.archives.archive(WORK, at=AT)
    with monkeypatch.context() as patch:
        patch.setattr(rig.place.store, "create_plan", kill)
        patch.setattr(Returning, "_undo", lambda *_: "none")
        with pytest.raises(Killed):
            rig.archives.restore(OWNER, "work", at=AT)
    [said] = rig.place.journal.append([Draft(WORK, "user", "where is my plan?", AT + 99)])

    [told] = rig.archives.recover()

    assert "in part" in told
    assert said in rig.place.journal.everything(WORK)
    assert len(rig.archives.all()) == 1


def test_half_a_restoration_is_undone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.archives.archive(WORK, at=AT)
    with monkeypatch.context() as patch:
        patch.setattr(rig.place.store, "create_plan", kill)
        patch.setattr(Returning, "_undo", lambda *_: "none")
        with pytest.raises(Killed):
            rig.archives.restore(OWNER, "work", at=AT)
    assert rig.is_there()

    [told] = rig.archives.recover()

    assert "undid" in told
    assert not rig.is_there()
    rig.archives.restore(OWNER, "work", at=AT)
    assert len(list(rig.place.store.tasks(WORK))) == 4
    assert rig.archives.all() == []


def test_what_was_started_in_a_half_restored_session_stays(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.archives.archive(WORK, at=AT)
    with monkeypatch.context() as patch:
        patch.setattr(rig.place.store, "create_plan", kill)
        patch.setattr(Returning, "_undo", lambda *_: "none")
        with pytest.raises(Killed):
            rig.archives.restore(OWNER, "work", at=AT)
    task = add_finished(rig.place, "work")

    rig.archives.recover()

    assert rig.place.store.load(task.key) == task
    assert len(rig.archives.all()) == 1


def test_a_note_of_a_restoration_that_cannot_be_read_is_dropped(rig: Rig) -> None:
    archive = rig.archives.archive(WORK, at=AT)
    [packed] = rig.place.root.glob("archive/*/*.tar.gz")
    packed.with_name(f"{archive.name}.restoring").write_text("{")

    rig.archives.recover()

    assert rig.archives.all() == [archive]
    assert not list(rig.place.root.glob("archive/*/*.restoring"))


def test_what_cannot_be_recovered_now_is_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    half_archived(rig, monkeypatch)

    def fail(*_: object) -> NoReturn:
        raise StoreUnavailable("not now")

    with monkeypatch.context() as patch:
        patch.setattr(leaving, "snapshot_of", fail)
        assert rig.archives.recover() == []

    assert len(rig.archives.recover()) == 1


def test_a_folder_that_cannot_be_read_is_no_empty_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.archives.archive(WORK, at=AT)

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for name in ("listdir", "scandir"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(StoreUnavailable, match="EIO"):
                rig.archives.all()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail)
        with pytest.raises(StoreUnavailable, match="EIO"):
            rig.archives.remove(OWNER, "work")
    assert len(rig.archives.all()) == 1
    [packed] = rig.place.root.glob("archive/*/*.tar.gz")
    with monkeypatch.context() as patch:
        patch.setattr(shelf, "digest_of", fail)
        assert any("cannot be read" in sentence for sentence in rig.archives.check())
    packed.unlink()
    os.mkfifo(packed)
    [problem] = rig.archives.check()
    assert "bytes" in problem
