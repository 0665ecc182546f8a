"""Looking at everything in a place, and bringing back from a backup what was found broken."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from mcp_tasks.errors import PlanNotFound, SessionNotFound, StoreUnavailable, TaskNotFound
from mcp_tasks.models import Finished, Lost, Plan, Session, SessionKey, Task
from mcp_tasks.stores.disk.durable import unavailable
from mcp_tasks.stores.disk.folder_names import session_folder
from mcp_tasks.stores.disk.removal import remove_tree
from mcp_tasks.transfer.backups import STATE, Backup
from mcp_tasks.transfer.beside import ARCHIVES
from mcp_tasks.transfer.bringing_back import check_backup, copy_state
from mcp_tasks.transfer.files import Copied, copy_file, copy_run, digest_of, open_to_read, run_files
from mcp_tasks.transfer.places import OpenPlace, Place
from mcp_tasks.transfer.sessions import Transfer

__all__ = ["Checked", "repair", "verify"]

_EXIT = "exit.json"
_MOST_EXIT = 16_384


class Checked(Protocol):
    """What can look at itself."""

    def check(self) -> Iterator[str]:
        """One sentence for each thing that is wrong."""
        ...


def verify(place: Place, archives: Checked) -> Iterator[str]:
    """Look at every record, journal, run and archive of a place; one sentence for each thing that is wrong.

    What is broken is set aside, as any reading would; nothing else is changed.

    Raises:
        StoreUnavailable: The disk refuses, so that nothing can be said.
    """
    told: set[str] = set()
    for sentence in place.store.verify():
        told.add(sentence)
        yield sentence
    for session in place.store.sessions():
        for task in place.store.tasks(session.key):
            yield from _run_problems(place, task)
        yield from _journal_problems(place, session.key)
    for sentence in (*place.journal.verify(), *place.store.problems(), *place.journal.problems()):
        if sentence not in told:
            told.add(sentence)
            yield sentence
    yield from archives.check()


def _run_problems(place: Place, task: Task) -> Iterator[str]:
    state = task.state
    if not isinstance(state, Finished) or state.started_at is None or isinstance(state.outcome, Lost):
        return
    folder = os.fspath(place.store.run_folder(task.key, state.run))
    what = f"run {state.run} of task {task.key.task_id}"
    try:
        names = run_files(folder)
        if _EXIT not in names:
            yield f"{what}: its exit record is missing"
        elif not _is_exit_record(f"{folder}/{_EXIT}"):
            yield f"{what}: its exit record is damaged"
        for name in names:
            os.close(open_to_read(f"{folder}/{name}"))
    except (OSError, ValueError) as error:
        yield f"{what}: it cannot be read ({error.strerror if isinstance(error, OSError) else error})"


def _is_exit_record(path: str) -> bool:
    descriptor = open_to_read(path)
    try:
        return "outcome" in json.loads(os.read(descriptor, _MOST_EXIT))
    except (ValueError, TypeError):
        return False
    finally:
        os.close(descriptor)


def _journal_problems(place: Place, key: SessionKey) -> Iterator[str]:
    try:
        for _ in place.journal.everything(key):
            pass
    except StoreUnavailable as error:
        yield f"the journal of session {key.session}: {error.message}"


def repair(place: Place, backup: Backup, open_place: OpenPlace, *, at: int) -> list[str]:
    """Bring back from a backup what was set aside as broken, and what is missing of finished runs.

    What was cleared or deleted on purpose stays away: only what the quarantine names comes back, or,
    where a whole database lies there, everything that is missing since.

    Args:
        place: Where `verify` found something.
        backup: Compared with its manifest first.
        open_place: Opens a copy of it; the backup itself is not touched.
        at: Now, ms since the epoch.

    Returns:
        One sentence for each thing that came back.

    Raises:
        StoreUnavailable: The backup is damaged, or the disk refused. What came back is whole, and stays.
    """
    manifest = check_backup(backup)
    draft = place.root.with_name(f".{place.root.name}.repairing")
    remove_tree(draft)
    try:
        try:
            copy_state(backup.path / STATE, draft, manifest)
        except OSError as error:
            raise unavailable("opening a backup", error) from error
        source = open_place(draft, manifest.adapter)
        try:
            done = list(_Repair(source, place, at).done())
        finally:
            source.close()
        done += _archives_back(backup, place.root)
        return done
    finally:
        with suppress(StoreUnavailable):
            remove_tree(draft)


class _Repair:
    def __init__(self, source: Place, target: Place, at: int) -> None:
        self._source = source
        self._target = target
        self._transfer = Transfer(source, target, at, live=True, seen=lambda task: task)
        self._aside = _quarantine(target.root)
        self._records_lost = any(
            name.endswith(".db") and not name.endswith("journal.db") for name in self._aside
        )

    def done(self) -> Iterator[str]:
        for session in self._source.store.sessions():
            yield from self._record(session)
            plans = list(self._source.store.plans(session.key))
            for task in self._source.store.tasks(session.key):
                yield from self._task(task)
            for plan in plans:
                yield from self._plan(plan)
            yield from self._journal(session.key)

    def _is_aside(self, label: str) -> bool:
        return self._records_lost or any(
            name.endswith((f"~{label}.json", f"-{label}.json")) for name in self._aside
        )

    def _record(self, session: Session) -> Iterator[str]:
        store, name = self._target.store, session.key.session
        if not self._is_aside(f"{session_folder(name)}~session"):
            return
        try:
            there = store.load_session(session.key)
        except SessionNotFound:
            if next(iter(self._source.store.tasks(session.key)), None) is None and not self._records_lost:
                return
            store.open_session(session)
            yield f"session {name}"
            return
        # Written anew with nothing in it, when the broken one was set aside.
        bare = Session(there.key, there.created_at, there.revision, state=there.state)
        if there == bare and replace(session, revision=there.revision, state=there.state) != bare:
            store.replace_session(replace(session, revision=there.revision))
            yield f"the record of session {name}"

    def _task(self, task: Task) -> Iterator[str]:
        what = f"task {task.key.task_id}"
        try:
            there = self._target.store.load(task.key)
        except TaskNotFound:
            if self._is_aside(task.key.task_id):
                self._transfer.copy_task(task)
                yield what
            return
        if there.is_final and (files := self._missing_files(there)).files:
            yield f"{files.files} files of {what}"

    def _missing_files(self, task: Task) -> Copied:
        """Bring the output and exit records of a final task back that are not there, or are damaged."""
        copied = Copied()
        for run in range(1, task.run + 1):
            origin = os.fspath(self._source.store.run_folder(task.key, run))
            folder = os.fspath(self._target.store.run_folder(task.key, run))
            there = set(run_files(folder))
            if _EXIT in there and not _is_exit_record(f"{folder}/{_EXIT}"):
                os.unlink(f"{folder}/{_EXIT}")
                there.discard(_EXIT)
            if set(run_files(origin)) - there:
                copied += copy_run(
                    origin, os.fspath(self._target.store.make_run_folder(task.key, run)), but=there
                )
        return copied

    def _plan(self, plan: Plan) -> Iterator[str]:
        try:
            self._target.store.load_plan(plan.key)
        except PlanNotFound:
            if self._is_aside(plan.key.plan_id):
                self._target.store.create_plan(plan)
                yield f"plan {plan.key.plan_id}"

    def _journal(self, key: SessionKey) -> Iterator[str]:
        if not any(name.endswith("journal.db") for name in self._aside):
            return
        if found := self._target.journal.restore(key, self._source.journal.everything(key)):
            yield f"{found} messages of session {key.session}"


def _quarantine(root: Path) -> list[str]:
    try:
        return os.listdir(root / "quarantine")
    except FileNotFoundError:
        return []


def _archives_back(backup: Backup, root: Path) -> Iterator[str]:
    manifest = backup.manifest or check_backup(backup)
    for name, (size, sha256) in manifest.files.items():
        target = root / name
        if not name.startswith(f"{ARCHIVES}/") or not os.path.lexists(target):
            continue  # one that is gone was removed or brought back
        if digest_of(os.fspath(target)) != (size, sha256):
            copy_file(os.fspath(backup.path / STATE / name), os.fspath(target))
            yield f"archive {Path(name).name}"
