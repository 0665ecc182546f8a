from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from mcp_tasks.errors import InvalidArgument, StoreBusy, StoreUnavailable, TaskNotFinished
from mcp_tasks.models import Cancelled, Draft, Finished, Lost, Running, Session
from mcp_tasks.stores.disk.locks import ProcessLock
from mcp_tasks.transfer import Place, Totals, adapter_of, migrate, migrating, refuse_nested
from mcp_tasks.transfer.sessions import Transfer
from tests.stores.records import pending
from tests.transfer.filled import (
    AT,
    KINDS,
    WORK,
    add_finished,
    add_pending,
    add_running,
    as_recorded,
    contents,
    fill,
    open_at,
)

PAIRS = [pair for pair in itertools.product(KINDS, KINDS) if pair[0] != pair[1]] + [("json", "json")]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Place]:
    place = open_at(tmp_path / "source", "json")
    fill(place)
    yield place
    place.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Place]:
    place = open_at(tmp_path / "target", "json")
    yield place
    place.close()


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_everything_arrives_as_it_was_and_the_source_stays_as_it_is(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    source, target = (open_at(tmp_path / f"{n}-{kind}", kind) for n, kind in enumerate(pair))
    try:
        fill(source)
        before = contents(source)

        done = migrate(source, target, at=AT, seen=as_recorded)

        assert done.differences == ()
        assert not done.resumed
        assert done.totals == Totals(3, 5, 1, 11, 13, done.totals.bytes)
        assert done.totals.bytes > 5_000_000
        assert contents(source) == before
        assert contents(target) == before
    finally:
        source.close()
        target.close()


def test_done_again_it_copies_nothing_twice_and_brings_what_is_new(source: Place, target: Place) -> None:
    migrate(source, target, at=AT, seen=as_recorded)
    add_finished(source, "work")
    source.journal.append([Draft(WORK, "user", "one more", AT + 99)])

    again = migrate(source, target, at=AT, seen=as_recorded)

    assert again.resumed
    assert again.differences == ()
    assert again.totals.files == 2
    assert contents(target) == contents(source)


def test_holes_stay_holes_and_moments_stay(source: Place, target: Place) -> None:
    migrate(source, target, at=AT, seen=as_recorded)

    sparse = next((target.root / "sessions").rglob("stdout.0*"))
    assert sparse.stat().st_size == 5_000_000
    assert sparse.stat().st_blocks * 512 < 1_000_000
    for path in (target.root / "sessions").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_other_sessions_of_the_same_names_are_refused_before_anything_is_copied(
    source: Place, target: Place
) -> None:
    add_finished(target, "work")
    before = contents(target)

    with pytest.raises(InvalidArgument, match="work"):
        migrate(source, target, at=AT, seen=as_recorded)

    assert contents(target) == before


def test_a_session_that_has_a_title_and_nothing_else_counts_as_other_data(
    source: Place, target: Place
) -> None:
    target.store.open_session(Session(WORK, AT, title="mine"))

    with pytest.raises(InvalidArgument, match="work"):
        migrate(source, target, at=AT, seen=as_recorded)


def test_an_empty_session_of_the_same_name_is_no_obstacle(source: Place, target: Place) -> None:
    target.store.open_session(Session(WORK, AT + 77))

    migrate(source, target, at=AT, seen=as_recorded)

    assert contents(target) == contents(source)


def test_sessions_of_other_names_stay_and_a_third_source_is_refused(
    source: Place, target: Place, tmp_path: Path
) -> None:
    add_finished(target, "other")
    migrate(source, target, at=AT, seen=as_recorded)
    third = open_at(tmp_path / "third", "sqlite")
    try:
        add_finished(third, "work")
        with pytest.raises(InvalidArgument, match="same names: work"):
            migrate(third, target, at=AT, seen=as_recorded)
    finally:
        third.close()

    assert len(contents(target)) == 4


@pytest.mark.parametrize("add", [add_running, add_pending])
def test_what_is_not_over_is_refused_before_anything_is_copied(
    add: type, source: Place, target: Place
) -> None:
    task = add(source)

    with pytest.raises(TaskNotFinished, match=task.key.task_id):
        migrate(source, target, at=AT, seen=as_recorded)

    assert contents(target) == {}


def test_many_that_are_not_over_are_named_in_part(source: Place, target: Place) -> None:
    for _ in range(7):
        add_pending(source)

    with pytest.raises(TaskNotFinished, match="and 2 more"):
        migrate(source, target, at=AT, seen=as_recorded)


def test_live_what_runs_is_lost_in_the_copy_and_what_waits_is_cancelled(source: Place, target: Place) -> None:
    runs, waits = add_running(source), add_pending(source)
    ended = add_running(source)
    (source.store.run_folder(ended.key, 1) / "exit.json").write_text("{}")
    before = contents(source)

    done = migrate(source, target, at=AT + 50, seen=as_recorded, live=True)

    assert done.differences == ()
    assert contents(source) == before
    lost, cancelled = target.store.load(runs.key), target.store.load(waits.key)
    assert isinstance(lost.state, Finished)
    assert isinstance(lost.state.outcome, Lost)
    assert isinstance(cancelled.state, Finished)
    assert isinstance(cancelled.state.outcome, Cancelled)
    assert (target.store.run_folder(runs.key, 1) / "stdout").read_bytes() == b"so far"
    assert not list((target.root / "sessions").rglob("launch"))
    assert not list((target.root / "sessions").rglob("started"))
    # Its exit record came with it, so whoever opens the copy learns from that how it ended.
    assert isinstance(target.store.load(ended.key).state, Running)


def test_a_retry_that_waits_in_the_original_is_not_made_in_the_copy(source: Place, target: Place) -> None:
    task = replace(add_running(source), spec=replace(pending("work").spec, retries=5))
    task = source.store.replace(task)

    migrate(source, target, at=AT, seen=as_recorded, live=True)

    assert target.store.load(task.key).state_name == "lost"
    assert target.store.pending() == []
    assert target.store.held() == []


def test_a_live_copy_that_is_resumed_takes_over_how_things_ended(source: Place, target: Place) -> None:
    runs = add_running(source)
    migrate(source, target, at=AT, seen=as_recorded, live=True)
    state = Finished(Lost("gone"), 1, None, AT + 3, 3)
    source.store.replace(replace(source.store.load(runs.key), state=state))

    migrate(source, target, at=AT + 9, seen=as_recorded, live=True)

    assert target.store.load(runs.key).state == state


def test_a_task_that_is_cleared_meanwhile_is_left_out_of_a_live_copy(source: Place, target: Place) -> None:
    task = add_finished(source, "work")
    transfer = Transfer(source, target, AT, live=True, seen=as_recorded)
    target.store.open_session(source.store.load_session(WORK))
    source.store.delete(task.key)

    assert transfer.copy_task(task) is None


def test_a_running_task_stops_a_copy_that_is_not_live(source: Place, target: Place) -> None:
    task = add_running(source)
    transfer = Transfer(source, target, AT, live=False, seen=as_recorded)

    with pytest.raises(TaskNotFinished):
        transfer.copy_task(task)


def test_what_differs_in_the_copy_is_named(source: Place, target: Place) -> None:
    migrate(source, target, at=AT, seen=as_recorded)
    [gone, changed, cut, *_] = source.store.tasks(WORK)
    transfer = Transfer(source, target, AT, live=False, seen=as_recorded)
    target.store.delete(gone.key)
    relabelled = replace(changed.spec, label="another")
    target.store.replace(replace(target.store.load(changed.key), spec=relabelled))
    (target.store.run_folder(cut.key, 1) / "stdout").write_bytes(b"other")
    (target.store.run_folder(changed.key, 1) / "exit.json").unlink()
    [plan] = target.store.plans(WORK)
    target.store.delete_plan(plan.key)
    target.journal.delete(WORK)
    session = target.store.load_session(WORK)
    target.store.replace_session(replace(session, title="another"))

    told = "\n".join(transfer.check(source.store.load_session(WORK)))

    assert "its record differs" in told
    assert f"task {gone.key.task_id}: it is missing" in told
    assert f"task {changed.key.task_id}: its record differs" in told
    assert f"task {changed.key.task_id}: its file exit.json of run 1 differs" in told
    assert f"task {cut.key.task_id}: its file stdout of run 1 differs" in told
    assert "4 tasks, 3 in the copy" in told
    assert f"the plan {plan.key.plan_id} differs" in told
    assert told.count("the message") == 10


def test_archives_audit_and_cleanups_come_along(source: Place, target: Place) -> None:
    folder = source.root / "archive" / "somebody"
    folder.mkdir(parents=True)
    (folder / "old~1.tar.gz").write_bytes(b"packed")
    (folder / "old~1.json").write_bytes(b"{}")
    (folder / ".half~2.part").write_bytes(b"half")
    (source.root / "audit.jsonl").write_bytes(b"{}\n")
    os.symlink(folder, source.root / "archive" / "planted")

    migrate(source, target, at=AT, seen=as_recorded)

    there = target.root / "archive"
    assert sorted(path.name for path in there.rglob("*")) == ["old~1.json", "old~1.tar.gz", "somebody"]
    assert (target.root / "audit.jsonl").read_bytes() == b"{}\n"


def test_a_link_where_an_archive_should_be_is_not_followed(source: Place, target: Place) -> None:
    folder = source.root / "archive" / "somebody"
    folder.mkdir(parents=True)
    os.symlink("/etc/passwd", folder / "old~1.tar.gz")

    with pytest.raises(StoreUnavailable):
        migrate(source, target, at=AT, seen=as_recorded)


def test_two_copies_into_one_place_at_once_are_refused(source: Place, target: Place) -> None:
    with ProcessLock(str(target.root / "transfer.lock"), 1).held(), pytest.raises(StoreBusy):
        migrate(source, target, at=AT, seen=as_recorded)


def test_a_ledger_that_cannot_be_read_is_no_reason_to_guess(source: Place, target: Place) -> None:
    (target.root / "transfer.json").write_text("{")

    with pytest.raises(StoreUnavailable, match=r"transfer\.json"):
        migrate(source, target, at=AT, seen=as_recorded)


@pytest.mark.parametrize(("one", "other"), [("a", "a"), ("a/b", "a"), ("a", "a/b"), ("a", "link/b")])
def test_a_place_is_not_copied_into_itself(one: str, other: str, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    os.symlink(tmp_path / "a", tmp_path / "link")

    with pytest.raises(InvalidArgument):
        refuse_nested(tmp_path / one, tmp_path / other)


def test_a_place_knows_its_adapter(source: Place, tmp_path: Path) -> None:
    assert adapter_of(source.root) == "json"
    assert adapter_of(tmp_path / "nowhere") is None
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(InvalidArgument):
            adapter_of(path)
    (source.root / "store.json").write_text("[]")
    assert adapter_of(source.root) == "json"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "store.json").write_text("[]")
    with pytest.raises(StoreUnavailable):
        adapter_of(tmp_path / "empty")


def test_a_copy_waits_for_the_disk_a_few_times_however_much_it_is(
    source: Place, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(20):
        add_finished(source, "work")
    waits: list[int] = []
    monkeypatch.setattr(os, "fsync", waits.append)

    assert migrate(source, target, at=AT, seen=as_recorded).differences == ()

    assert len(waits) < 20


@pytest.mark.parametrize(("boot", "comes_again"), [("another", True), (None, False)])
def test_output_that_a_power_cut_may_have_spoilt_is_compared_when_a_copy_goes_on(
    boot: str | None, comes_again: bool, source: Place, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = add_finished(source, "work", output=b"as it was")
    with monkeypatch.context() as patch:
        patch.setattr(migrating, "copy_beside", _die)
        with pytest.raises(KeyboardInterrupt):
            migrate(source, target, at=AT, seen=as_recorded)
    copy = target.store.run_folder(task.key, 1) / "stdout"
    moment = copy.stat().st_mtime_ns
    copy.write_bytes(bytes(9))
    os.utime(copy, ns=(moment, moment))
    if boot is not None:
        monkeypatch.setattr(migrating, "boot_id", lambda: boot)
        with monkeypatch.context() as patch:
            patch.setattr(migrating, "copy_beside", _die)
            patch.setattr(Transfer, "copy_task", _die)
            with pytest.raises(KeyboardInterrupt):  # the doubt lasts until a copy is whole
                migrate(source, target, at=AT, seen=as_recorded)

    done = migrate(source, target, at=AT, seen=as_recorded)

    assert (copy.read_bytes() == b"as it was") is comes_again
    assert (done.differences == ()) is comes_again


def test_a_disk_that_refuses_at_the_end_of_a_copy_is_told(
    source: Place, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def refused(_: object) -> Iterator[None]:
        yield
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(migrating, "synced_once", refused)
        with pytest.raises(StoreUnavailable, match="EIO"):
            migrate(source, target, at=AT, seen=as_recorded)

    assert migrate(source, target, at=AT, seen=as_recorded).resumed


def _die(*_: object) -> NoReturn:
    raise KeyboardInterrupt
