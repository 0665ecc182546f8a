"""Bringing back from a backup what was found broken in a place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mcp_tasks.errors import PlanNotFound, SessionNotFound, StoreUnavailable, TaskNotFound
from mcp_tasks.models import Plan, Session, SessionKey, Task
from mcp_tasks.stores.disk.durable import unavailable
from mcp_tasks.stores.disk.folder_names import session_folder
from mcp_tasks.stores.disk.quarantine import SetAside, set_aside_in
from mcp_tasks.stores.disk.removal import remove_tree
from mcp_tasks.transfer.backups import STATE, Backup
from mcp_tasks.transfer.beside import ARCHIVES
from mcp_tasks.transfer.bringing_back import check_backup, copy_state
from mcp_tasks.transfer.checking import EXIT, exit_record
from mcp_tasks.transfer.files import Copied, copy_file, copy_run, digest_of, run_files
from mcp_tasks.transfer.places import OpenPlace, Place
from mcp_tasks.transfer.sessions import Transfer

__all__ = ["Repaired", "repair"]

# What is made anew by itself, or is only derived from records, which are looked at anyway.
_MADE_ANEW = re.compile(r"\d+-[0-9a-f]{8}-(?:keys~.*|store\.json|[a-z]+\.db)")


@dataclass(frozen=True, slots=True)
class Repaired:
    """What came of it.

    Attributes:
        back: One sentence for each thing that came back.
        made_up_for: What lies in the quarantine, and is whole in the place again.
    """

    back: list[str]
    made_up_for: list[SetAside]


def repair(place: Place, backup: Backup, open_place: OpenPlace, *, at: int) -> Repaired:
    """Bring back from a backup what was set aside as broken, and what is missing of finished runs.

    What was cleared or deleted on purpose stays away: only what the quarantine names comes back, or,
    where a whole database lies there, everything that is missing since.

    Args:
        place: Where `verify` found something.
        backup: Compared with its manifest first.
        open_place: Opens a copy of it; the backup itself is not touched.
        at: Now, ms since the epoch.

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
            work = _Repair(source, place, at)
            done = list(work.done())
            made_up_for = work.made_up_for()
        finally:
            source.close()
        done += _archives_back(backup, place.root)
        return Repaired(done, made_up_for)
    finally:
        with suppress(StoreUnavailable):
            remove_tree(draft)


class _Repair:
    def __init__(self, source: Place, target: Place, at: int) -> None:
        self._source = source
        self._target = target
        self._transfer = Transfer(source, target, at, live=True, seen=lambda task: task)
        self._set_aside = set_aside_in(target.root)
        self._aside = [one.name for one in self._set_aside]
        self._records_lost = any(
            name.endswith(".db") and not name.endswith("journal.db") for name in self._aside
        )
        self._bare: set[str] = set()

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

    def made_up_for(self) -> list[SetAside]:
        """What was set aside and is in its place again, or needs not be."""
        whole = list(self._whole_records()) if self._set_aside else []
        return [
            one
            for one in self._set_aside
            if _MADE_ANEW.fullmatch(one.name)
            or any(one.name.endswith((f"~{label}.json", f"-{label}.json")) for label in whole)
        ]

    def _whole_records(self) -> Iterator[str]:
        """What the names of records in the quarantine end in, of those that are whole in the place."""
        for session in self._target.store.sessions():
            label = f"{session_folder(session.key.session)}~session"
            if session != _bare(session) or label in self._bare:
                yield label
            yield from (task.key.task_id for task in self._target.store.tasks(session.key))
            yield from (plan.key.plan_id for plan in self._target.store.plans(session.key))

    def _record(self, session: Session) -> Iterator[str]:
        store, name = self._target.store, session.key.session
        label = f"{session_folder(name)}~session"
        if not self._is_aside(label):
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
        bare = _bare(there)
        if replace(session, revision=there.revision, state=there.state) == bare:
            self._bare.add(label)
        elif there == bare:
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
        """Bring the output and exit records of a final task back that are not there, damaged or cut short."""
        copied = Copied()
        for run in range(1, task.run + 1):
            origin = os.fspath(self._source.store.run_folder(task.key, run))
            folder = os.fspath(self._target.store.run_folder(task.key, run))
            there = set(run_files(folder))
            if EXIT in there and exit_record(Path(folder)) is None:
                os.unlink(f"{folder}/{EXIT}")
                there.discard(EXIT)
            there -= {name for name in there if name != EXIT and _is_longer(origin, folder, name)}
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


def _bare(session: Session) -> Session:
    """The record of a session as it is written anew when the old one was set aside."""
    return Session(session.key, session.created_at, session.revision, state=session.state)


def _is_longer(origin: str, folder: str, name: str) -> bool:
    """Whether there is more of a file in the backup; output only ever grows."""
    with suppress(FileNotFoundError):
        return os.lstat(f"{origin}/{name}").st_size > os.lstat(f"{folder}/{name}").st_size
    return False


def _archives_back(backup: Backup, root: Path) -> Iterator[str]:
    manifest = backup.manifest or check_backup(backup)
    for name, (size, sha256) in manifest.files.items():
        target = root / name
        if not name.startswith(f"{ARCHIVES}/") or not os.path.lexists(target):
            continue  # one that is gone was removed or brought back
        if digest_of(os.fspath(target)) != (size, sha256):
            copy_file(os.fspath(backup.path / STATE / name), os.fspath(target))
            yield f"archive {Path(name).name}"
