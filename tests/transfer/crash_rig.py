"""Kills a process at system calls of migration, backup, archiving and restoration, and looks at what is left.

`python -m tests.transfer.crash_rig FOLDER POINTS` kills each at POINTS calls, spread over all of them, and
fails at the first contradiction. A program of its own, because it forks and wants no threads.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.archives import SessionArchives, labels, leaving, packing, returning, shelf, unpacking
from mcp_tasks.archives import folder as archives_folder
from mcp_tasks.errors import InvalidArgument
from mcp_tasks.transfer import (
    all_backups,
    backups,
    beside,
    bringing_back,
    check_backup,
    files,
    find_backup,
    make_backup,
    manifest,
    migrate,
    restore_backup,
)
from tests.archives.rig import archives_of
from tests.stores.faulty_os import MODULES, FaultyOs, die, sync_nothing
from tests.stores.records import OWNER
from tests.transfer.filled import AT, WORK, as_recorded, contents, fill, open_at

ARCHIVES = (archives_folder, labels, leaving, packing, returning, shelf, unpacking)
OURS = (*ARCHIVES, backups, beside, bringing_back, files, manifest)
_BACKUP = "20231114T221320Z-1"

Contents = dict[str, Any]


@contextmanager
def faulty(at: int) -> Iterator[FaultyOs]:
    """Let call number `at` of all modules that touch the disk be the last one."""
    stand_in = FaultyOs(at, die)
    with pytest.MonkeyPatch.context() as patch:
        for module in (*MODULES, *OURS):
            if hasattr(module, "os"):
                patch.setattr(module, "os", stand_in)
        yield stand_in
        stand_in.armed = False


def _contents(root: Path, kind: str = "json") -> Contents:
    place = open_at(root, kind)
    try:
        assert list(place.store.verify()) == []
        return contents(place)
    finally:
        place.close()


@contextmanager
def _archives(root: Path) -> Iterator[SessionArchives]:
    place = open_at(root, "json")
    try:
        yield archives_of(place)
    finally:
        place.close()


def _same(found: Contents, before: Contents) -> None:
    for session in (*found.values(), *before.values()):
        session.pop("figures", None)
    assert found.keys() == before.keys(), "a session is missing, or too many"
    for name, session in before.items():
        for what, value in session.items():
            assert found[name][what] == value, f"{what} of {name}: {found[name][what]!r}, not {value!r}"


def _migrate(place: Path) -> None:
    source, target = open_at(place / "state", "json"), open_at(place / "target", "sqlite")
    try:
        done = migrate(source, target, at=AT, seen=as_recorded)
        assert done.differences == ()
    finally:
        source.close()
        target.close()


def _migrated(place: Path, before: Contents) -> None:
    _same(_contents(place / "state"), dict(before))
    _migrate(place)
    _same(_contents(place / "target", "sqlite"), before)


def _backup(place: Path) -> None:
    source = open_at(place / "state", "json")
    try:
        make_backup(source, place / "backups", open_at, at=AT, seen=as_recorded, keep=2)
    finally:
        source.close()


def _backed_up(place: Path, before: Contents) -> None:
    for backup in all_backups(place / "backups"):
        check_backup(backup)
    _backup(place)
    assert not [name for name in os.listdir(place / "backups") if name.startswith(".making")]
    restore_backup(find_backup(place / "backups", None), place / "new", replace=False, at=AT)
    _same(_contents(place / "new"), before)


def _archive(place: Path) -> None:
    with _archives(place / "state") as ours:
        ours.archive(WORK, at=AT + 1)


def _archived(place: Path, before: Contents) -> None:
    with _archives(place / "state") as ours:
        ours.recover()
        left = ours.all(OWNER)
        assert [archive.problem for archive in left] in ([], [None])
        assert list(ours.check()) == []
        if left:
            ours.restore(OWNER, "work", at=AT)
    _same(_contents(place / "state"), before)
    assert not list((place / "state" / "archive").rglob("*~*"))


def _restore(place: Path) -> None:
    with _archives(place / "archived") as ours:
        ours.restore(OWNER, "work", at=AT)


def _restored(place: Path, before: Contents) -> None:
    with _archives(place / "archived") as ours:
        ours.recover()
        if ours.all(OWNER):
            with suppress(InvalidArgument):  # it is there, and its archive was about to go
                ours.restore(OWNER, "work", at=AT)
    _same(_contents(place / "archived"), before)


def _replace(place: Path) -> None:
    backup = find_backup(place / "backed", _BACKUP)
    restore_backup(backup, place / "state", replace=True, at=AT)


def _replaced(place: Path, before: Contents) -> None:
    if (place / "state").exists():
        _same(_contents(place / "state"), dict(before))
    else:
        [aside] = place.glob("state.replaced-*")
        _same(_contents(aside), dict(before))
        _replace(place)
    _same(_contents(place / "state"), before)


@dataclass(frozen=True)
class Scenario:
    """What is being done when the process is killed, and what must hold afterwards."""

    name: str
    act: Callable[[Path], None]
    check: Callable[[Path, Contents], None]


SCENARIOS = (
    Scenario("migrate", _migrate, _migrated),
    Scenario("backup", _backup, _backed_up),
    Scenario("archive", _archive, _archived),
    Scenario("restore an archive", _restore, _restored),
    Scenario("restore a backup", _replace, _replaced),
)


def prepare(place: Path) -> Contents:
    """A store, the same with a session archived, and a backup of it."""
    state = open_at(place / "state", "json")
    fill(state)
    make_backup(state, place / "backed", open_at, at=AT, seen=as_recorded, keep=2)
    before = contents(state)
    state.close()
    shutil.copytree(place / "state", place / "archived", symlinks=True)
    with _archives(place / "archived") as ours:
        ours.archive(WORK, at=AT + 1)
    return before


def crash(scenario: Scenario, place: Path, at: int) -> tuple[bool, int]:
    """Act in a child that dies at call `at`. Returns whether it died, and how many calls there were."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            with faulty(at) as counted:
                scenario.act(place)
            os.write(writer, b"%d" % counted.calls)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    calls = int(os.read(reader, 100) or b"0")
    os.close(reader)
    if status not in (0, 9):
        raise AssertionError(f"{scenario.name}: the child failed by itself at call {at}")
    return status == 9, calls


def main(folder: Path, points: int) -> int:
    """Kill each scenario at `points` moments."""
    sync_nothing()
    template = folder / "template"
    template.mkdir()
    before = prepare(template)
    for scenario in SCENARIOS:
        trial = folder / "trial"
        shutil.copytree(template, trial, symlinks=True)
        _, calls = crash(scenario, trial, 10**9)
        scenario.check(trial, _copy(before))
        shutil.rmtree(trial)
        step = max(1, calls // points)
        moments = [number + random.randrange(step) for number in range(1, calls + 1, step)]
        deaths = 0
        for at in moments:
            shutil.copytree(template, trial, symlinks=True)
            died, _ = crash(scenario, trial, at)
            deaths += died
            try:
                scenario.check(trial, _copy(before))
            except BaseException:
                sys.stderr.write(f"{scenario.name}: killed at call {at} of {calls}\n")
                raise
            shutil.rmtree(trial)
        sys.stdout.write(f"{scenario.name}: {deaths} deaths at {calls} calls\n")
    return 0


def _copy(before: Contents) -> Contents:
    return {name: dict(session) for name, session in before.items()}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
