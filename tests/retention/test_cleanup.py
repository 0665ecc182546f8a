from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mcp_tasks.archives import SessionArchives
from mcp_tasks.errors import SessionNotFound, StoreBusy, StoreUnavailable
from mcp_tasks.models import Draft, Exited, Finished, SessionKey
from mcp_tasks.ports import Archive
from mcp_tasks.retention import Cleanup, CleanupRecord, Rules, read_record
from mcp_tasks.retention.history import write_record
from mcp_tasks.retention.schedule import DAY_MS, Moments, when_due
from mcp_tasks.stores.audit_file import AuditFile
from mcp_tasks.stores.disk.locks import ProcessLock
from mcp_tasks.transfer import Place
from tests.archives.rig import archives_of
from tests.stores.records import OWNER, pending
from tests.transfer.filled import AT, EMPTY, KINDS, PLAY, WORK, add_pending, add_running, fill, open_at


def utc(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


@dataclass
class Rig:
    place: Place
    archives: SessionArchives
    audit: AuditFile
    now: int = AT + 40 * DAY_MS
    rules: Rules = field(default_factory=lambda: Rules(30, 7, None))

    def cleanup(self) -> Cleanup:
        return Cleanup(
            self.place.root,
            self.place.store,
            self.place.journal,
            archives=self.archives,
            audit=self.audit,
            rules=self.rules,
            now_ms=lambda: self.now,
            local=utc,
        )

    def run(self, **days: float) -> None:
        self.now += int(timedelta(**days).total_seconds() * 1000)
        self.cleanup().run_when_due()

    @property
    def record(self) -> CleanupRecord:
        record = read_record(self.place.root)
        assert record is not None
        return record

    def sessions(self) -> list[str]:
        return [session.key.session for session in self.place.store.sessions()]


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    place = open_at(tmp_path / "state", request.param)
    fill(place)
    yield Rig(place, archives_of(place), AuditFile(place.root))
    place.close()


@pytest.fixture
def json_rig(tmp_path: Path) -> Iterator[Rig]:
    place = open_at(tmp_path / "state", "json")
    fill(place)
    yield Rig(place, archives_of(place), AuditFile(place.root))
    place.close()


def test_idle_sessions_are_archived_logged_counted_and_audited(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rig.run()

    assert rig.sessions() == []
    assert {archive.key for archive in rig.archives.all()} == {WORK, PLAY, EMPTY}
    assert rig.record.last.archived == rig.record.total.archived == 3
    assert rig.record.runs == 1
    assert "3 sessions archived" in caplog.text
    noted = rig.audit.read()
    assert [entry["action"] for entry in noted] == ["archived"] * 3
    assert {entry["by"] for entry in noted} == {"cleanup"}


def test_nothing_that_is_used_or_not_over_is_archived(rig: Rig) -> None:
    rig.place.journal.touch(PLAY, rig.now - DAY_MS)
    rig.place.journal.flush()
    task = add_running(rig.place)

    rig.run()

    assert rig.sessions() == ["Play", "work"]
    assert rig.place.store.load(task.key) == task


def test_the_end_of_a_task_counts_as_use_where_no_other_was_noted(rig: Rig) -> None:
    task = pending("work")
    late = rig.now - DAY_MS
    state = Finished(Exited(0), 1, late, late, 1)
    rig.place.store.create(replace(task, state=state, history=(replace(task.history[0], at=late),)))

    rig.run()

    assert rig.sessions() == ["work"]


def test_idle_journals_are_folded_once(rig: Rig) -> None:
    rig.rules = Rules(None, 7, None)
    rig.run()

    assert rig.place.journal.figures(WORK).live == 0
    assert rig.place.journal.figures(WORK).folded == 10
    assert rig.record.last.folded == 2
    rig.run(days=1)
    assert rig.record.last.folded == 0
    assert rig.record.total.folded == 2


def test_a_journal_that_is_used_is_not_folded(rig: Rig) -> None:
    rig.rules = Rules(None, 7, None)
    rig.place.journal.append([Draft(WORK, "user", "new", rig.now - 6 * DAY_MS)])

    rig.run()

    assert rig.place.journal.figures(WORK).live > 0


def test_old_archives_are_removed_when_that_is_asked_for_and_no_earlier(rig: Rig) -> None:
    rig.run()
    rig.run(days=400)
    assert len(rig.archives.all()) == 3

    rig.rules = Rules(30, 7, 10)
    rig.run(days=1)

    assert rig.archives.all() == []
    assert rig.record.last.removed == 3
    assert rig.record.last.freed_bytes > 0
    assert rig.audit.read()[0]["action"] == "archive_removed"


def test_it_is_done_once_a_day_at_its_hour(rig: Rig) -> None:
    rig.run()
    first = rig.record
    rig.run(minutes=10)
    assert rig.record == first

    rig.now = int(datetime(2024, 3, 1, 2, 59, tzinfo=UTC).timestamp() * 1000)
    rig.run()
    early = rig.record
    assert early.runs == 2  # that of the day before was overdue
    rig.run(minutes=2)
    assert rig.record.runs == 3
    rig.run(hours=23)
    assert rig.record.runs == 3


@pytest.mark.parametrize(
    ("last", "now", "due"),
    [
        ("2024-03-01T03:00", "2024-03-01T23:00", False),
        ("2024-03-01T02:59", "2024-03-01T03:00", True),
        ("2024-03-01T02:59", "2024-03-01T02:59", False),
        ("2024-02-29T03:01", "2024-03-01T02:59", False),
        ("2024-02-29T02:59", "2024-03-01T02:59", True),
        ("2024-03-01T05:00", "2024-03-01T04:00", False),
    ],
)
def test_when_it_is_due(last: str, now: str, due: bool) -> None:
    was, moment = (
        int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000) for text in (last, now)
    )
    found = when_due(moment, CleanupRecord(was), 3, utc)
    assert found == (Moments(moment, was) if due else None)


def test_whoever_is_first_does_it_and_the_others_do_not_wait(json_rig: Rig) -> None:
    with ProcessLock(str(json_rig.place.root / "cleanup.lock"), 1).held():
        json_rig.run()
        assert read_record(json_rig.place.root) is None
        with pytest.raises(StoreBusy):
            json_rig.cleanup().run_now()

    json_rig.run()
    assert json_rig.record.runs == 1


def test_a_clock_that_jumps_ahead_archives_and_removes_nothing_young(rig: Rig) -> None:
    rig.now = AT + DAY_MS
    rig.rules = Rules(30, 7, 30)
    rig.archives.archive(EMPTY, at=rig.now)
    rig.run()

    rig.run(days=3650)
    assert rig.sessions() == ["Play", "work"]
    assert len(rig.archives.all()) == 1
    assert rig.place.journal.figures(WORK).live > 0

    rig.run(days=-3650)
    assert rig.record.last_at == rig.now
    rig.run(days=1)
    assert rig.sessions() == ["Play", "work"]
    assert len(rig.archives.all()) == 1


def test_a_machine_that_was_off_for_long_catches_up_a_day_later(rig: Rig) -> None:
    rig.now = AT + DAY_MS
    rig.run()
    rig.run(days=300)
    assert rig.sessions() == ["Play", "empty", "work"]

    rig.run(days=1)

    assert rig.sessions() == []


def test_a_clock_that_goes_back_a_little_changes_nothing(rig: Rig) -> None:
    rig.run()
    before = rig.record
    rig.run(minutes=-30)
    assert rig.record == before


def test_by_hand_it_is_done_at_once(rig: Rig) -> None:
    rig.rules = Rules(0, 0, 0)
    rig.now = AT + DAY_MS

    counts = rig.cleanup().run_now()

    assert (counts.archived, counts.folded) == (3, 0)
    assert rig.cleanup().run_now().removed == 0
    rig.now += 1
    assert rig.record.runs == 2


def test_one_session_that_cannot_be_archived_does_not_keep_the_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SessionArchives.archive

    def archive(self: SessionArchives, session: SessionKey, *, at: int) -> Archive:
        if session == WORK:
            raise StoreUnavailable("the disk is full")
        if session == EMPTY:
            raise SessionNotFound("empty")
        return real(self, session, at=at)

    monkeypatch.setattr(SessionArchives, "archive", archive)
    rig.run()

    assert (rig.record.last.archived, rig.record.last.failed) == (1, 1)
    assert "Play" not in rig.sessions()


def test_what_cannot_be_folded_or_removed_is_counted_and_tried_again(
    json_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise StoreUnavailable("not now")

    json_rig.rules = Rules(None, 7, 1)
    json_rig.archives.archive(EMPTY, at=AT)
    monkeypatch.setattr(type(json_rig.place.journal), "prune", fail)
    json_rig.run()
    assert json_rig.record.last.failed == 2
    monkeypatch.undo()

    monkeypatch.setattr(SessionArchives, "remove", fail)
    json_rig.run(days=1)
    assert (json_rig.record.last.failed, json_rig.record.last.folded) == (1, 2)
    monkeypatch.undo()

    json_rig.run(days=1)
    assert (json_rig.record.last.failed, json_rig.record.last.removed) == (0, 1)


def test_an_archive_that_somebody_else_removed_is_no_failure(
    json_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> int:
        raise SessionNotFound("gone")

    json_rig.rules = Rules(None, None, 0)
    json_rig.archives.archive(EMPTY, at=AT)
    monkeypatch.setattr(SessionArchives, "remove", gone)

    assert json_rig.cleanup().run_now().failed == 0


def test_a_damaged_archive_is_never_removed(json_rig: Rig) -> None:
    json_rig.archives.archive(EMPTY, at=AT)
    for path in (json_rig.place.root / "archive").rglob("*.json"):
        path.write_text("{")
    json_rig.rules = Rules(None, None, 0)

    assert json_rig.cleanup().run_now().removed == 0
    assert len(json_rig.archives.all(OWNER)) == 1


def test_rules_that_say_never_do_nothing(rig: Rig) -> None:
    rig.rules = Rules(None, None, None)
    rig.run(days=4000)

    assert rig.sessions() == ["Play", "empty", "work"]
    assert rig.record.last == type(rig.record.last)()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"last_at": "x"}'])
def test_a_record_that_cannot_be_read_counts_as_none(text: str, json_rig: Rig) -> None:
    (json_rig.place.root / "cleanup.json").write_text(text)
    assert read_record(json_rig.place.root) is None

    json_rig.run()

    assert json_rig.record.runs == 1


def test_what_a_killed_process_left_half_archived_is_finished_by_the_cleanup(json_rig: Rig) -> None:
    task = add_pending(json_rig.place)
    json_rig.place.store.delete(task.key)
    json_rig.archives.archive(WORK, at=AT)
    json_rig.archives.restore(OWNER, "work", at=AT, keep=True)
    for label in (json_rig.place.root / "archive").rglob("*.json"):
        label.write_text(label.read_text().replace('"away"', '"leaving"'))
    json_rig.rules = Rules(None, None, None)

    json_rig.run()

    assert json_rig.sessions() == ["Play", "empty"]
    assert json_rig.record.last.recovered == 1


def test_the_record_survives(tmp_path: Path) -> None:
    record = CleanupRecord(5, 6, 7)
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
