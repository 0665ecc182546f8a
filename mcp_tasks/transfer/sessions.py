"""One session from one place to another: record, tasks with their output, plans, journal; and the check."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from mcp_tasks.errors import PlanNotFound, StoreUnavailable, TaskNotFinished, TaskNotFound
from mcp_tasks.models import Plan, PlanKey, Session, SessionKey, Task
from mcp_tasks.stores.disk.durable import unavailable
from mcp_tasks.transfer.files import Copied, copy_run, digest_of, run_files
from mcp_tasks.transfer.places import Place
from mcp_tasks.transfer.unfinished import as_copied

__all__ = ["Seen", "Totals", "Transfer"]

Seen: TypeAlias = Callable[[Task], Task]
"""Tells a task as it really is, from what its store says; writes nothing. Raises StoreUnavailable."""

_MOST_CONNECTIONS = 1_000


@dataclass(frozen=True, slots=True)
class Totals:
    """What was carried over."""

    sessions: int = 0
    tasks: int = 0
    plans: int = 0
    messages: int = 0
    files: int = 0
    bytes: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.sessions + other.sessions,
            self.tasks + other.tasks,
            self.plans + other.plans,
            self.messages + other.messages,
            self.files + other.files,
            self.bytes + other.bytes,
        )


@dataclass(frozen=True, slots=True)
class Transfer:
    """Carries sessions from one place to another; done again after a kill, it goes on.

    Attributes:
        at: Moment of the copy, ms since the epoch.
        live: The original goes on being used: what is not over there is over in the copy.
        seen: How to look at a task that is not final by its record.
        compare: Output that is there already is compared byte for byte: a power cut may have spoilt it.
    """

    source: Place
    target: Place
    at: int
    live: bool
    seen: Seen
    compare: bool = False

    def copy(self, session: Session) -> Totals:
        """Bring a session and all that belongs to it over; what is there already stays.

        Raises:
            TaskNotFinished: Something in it is pending or running, and the copy is not a live one.
            StoreUnavailable: Either side failed; what was copied is whole, and stays.
        """
        key = session.key
        # A plan is written after its tasks, so the tasks of each plan seen here are found below.
        plans = list(self.source.store.plans(key))
        self._copy_record(session)
        tasks, copied = 0, Copied()
        for task in self.source.store.tasks(key):
            files = self.copy_task(task)
            if files is not None:
                tasks, copied = tasks + 1, copied + files
        for plan in plans:
            self._copy_plan(plan)
        messages = self._copy_journal(key)
        return Totals(1, tasks, len(plans), messages, copied.files, copied.bytes)

    def copy_task(self, task: Task) -> Copied | None:
        """Bring one task over, its output first.

        Returns:
            The output that was copied; None for a task that was cleared meanwhile.

        Raises:
            TaskNotFinished, StoreUnavailable: As `copy`.
        """
        if not task.is_final:
            task = self.seen(task)
            if not task.is_final and not self.live:
                raise TaskNotFinished(
                    f"task {task.key.task_id} is {task.state_name}", "wait for its end, or cancel it"
                )
        copied, ended = Copied(), False
        for run in range(1, task.run + 1):
            folder = os.fspath(self.source.store.run_folder(task.key, run))
            if not run_files(folder):
                continue
            target = os.fspath(self.target.store.make_run_folder(task.key, run))
            copied += copy_run(folder, target, compare=self.compare)
            ended = run == task.run and os.path.lexists(f"{target}/exit.json")
        if self.live and self._was_cleared(task):
            return None
        # The record comes last, so that one that is there says that its output is.
        wanted = as_copied(task, ended=ended, at=self.at)
        self._put(wanted)
        if self.live:
            # The original may be another one in a moment, so this is the time to compare.
            for difference in self._differences(wanted):
                raise StoreUnavailable(f"the copy is not like its original: {difference}", "try again")
        return copied

    def check(self, session: Session) -> Iterator[str]:
        """Compare a session that was copied with its original; one sentence for each difference."""
        key, what = session.key, f"session {session.key.session}"
        there = self.target.store.load_session(key)
        if replace(there, revision=0) != replace(session, revision=0):
            yield f"{what}: its record differs"
        tasks = 0
        for task in self.source.store.tasks(key):
            tasks += 1
            yield from self._differences(task if task.is_final else self.seen(task))
        if (found := sum(1 for _ in self.target.store.tasks(key))) < tasks:
            yield f"{what}: {tasks} tasks, {found} in the copy"
        for plan in self.source.store.plans(key):
            if self._plan(plan.key) != plan:
                yield f"{what}: the plan {plan.key.plan_id} differs"
        ours, theirs = self.source.journal.everything(key), self.target.journal.everything(key)
        copies = {message.message_id: message for message in theirs}
        for message in ours:
            copy = copies.get(message.message_id)
            if copy is None or replace(copy, seq=message.seq) != message:
                yield f"{what}: the message {message.message_id} differs"

    def _copy_record(self, session: Session) -> None:
        store = self.target.store
        stored = store.open_session(session)
        if replace(stored, revision=0) != replace(session, revision=0):
            store.replace_session(replace(session, revision=stored.revision))

    def _was_cleared(self, task: Task) -> bool:
        try:
            self.source.store.load(task.key)
        except TaskNotFound:
            return True
        return False

    def _put(self, task: Task) -> None:
        store = self.target.store
        try:
            stored = store.load(task.key)
        except TaskNotFound:
            store.create(task)
            return
        if stored == task:
            return
        # Copied by an earlier attempt, and changed at the source since. A final record stays final.
        if stored.is_final and not task.is_final:
            return
        store.replace(replace(task, revision=stored.revision))

    def _copy_plan(self, plan: Plan) -> None:
        if self._plan(plan.key) is None:
            self.target.store.create_plan(plan)

    def _plan(self, key: PlanKey) -> Plan | None:
        try:
            return self.target.store.load_plan(key)
        except PlanNotFound:
            return None

    def _copy_journal(self, key: SessionKey) -> int:
        source, target = self.source.journal, self.target.journal
        target.restore(key, source.everything(key))
        live = source.figures(key).live
        if target.figures(key).live > live:
            target.prune(key, live)
        for session, active_at in source.active_at([key]).items():
            target.touch(session, active_at)
        for connection in reversed(source.connections(key.owner, key.session, limit=_MOST_CONNECTIONS)):
            target.connect(connection)
        figures = target.figures(key)
        return figures.live + figures.folded

    def _differences(self, task: Task) -> Iterator[str]:
        what = f"task {task.key.task_id}"
        try:
            copy = self.target.store.load(task.key)
        except TaskNotFound:
            yield f"{what}: it is missing in the copy"
            return
        if replace(copy, revision=0) != replace(task, revision=0):
            yield f"{what}: its record differs"
        for run in range(1, task.run + 1):
            origin = os.fspath(self.source.store.run_folder(task.key, run))
            folder = os.fspath(self.target.store.run_folder(task.key, run))
            for name in run_files(origin):
                if self.live and not os.path.lexists(f"{folder}/{name}"):
                    continue  # written since, or gone before it could be copied
                if not _is_prefix(f"{folder}/{name}", f"{origin}/{name}", gone=self.live):
                    yield f"{what}: its file {name} of run {run} differs"


def _is_prefix(copy: str, origin: str, *, gone: bool) -> bool:
    """Whether a copy is what its original begins with; a process in the background may still write on.

    `gone` is the answer where there is no original any more, as with an old piece of a tail.
    """
    try:
        size, digest = digest_of(copy)
        return digest_of(origin, size) == (size, digest)
    except FileNotFoundError:
        return gone
    except ValueError as error:
        raise StoreUnavailable(f"a file of a run cannot be read: {error}") from error
    except OSError as error:
        raise unavailable("comparing output", error) from error
