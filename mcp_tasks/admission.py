"""Who runs now and who waits: first come, first served, fair between sessions, over all servers.

A place among the running is a lock that passes to the supervisor (see `executors.slots`), so there is
nothing to count and nothing to give back. While anything is pending, what comes later waits behind it.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mcp_tasks.clock import Clock
from mcp_tasks.errors import (
    InvalidArgument,
    LimitReached,
    RevisionConflict,
    SpawnFailed,
    StoreUnavailable,
    TaskNotFound,
    TasksError,
)
from mcp_tasks.lifecycle import Claimed, Refused, Returned, Withdrawn, transition
from mcp_tasks.models import Pending, SessionKey, SpawnFailure, Task, TaskKey
from mcp_tasks.ports import Executor, Launch, Store

__all__ = ["Admission", "CannotWait", "Limits"]

log = logging.getLogger(__name__)


class CannotWait(StoreUnavailable):
    """There is no place for the task now, and no room to keep it until there is one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What stands in the way of one more task, over all servers of a store.

    Attributes:
        running: Tasks that may run.
        pending: Tasks that may wait.
        free_bytes: Of the disk, under which no task is taken.
    """

    running: int
    pending: int
    free_bytes: int = 0


class Admission:
    """Starts tasks as far as there are places for them. Blocking.

    Args:
        call_steward: Sees to it that pending tasks are started even when no server lives.
    """

    def __init__(
        self, store: Store, executor: Executor, clock: Clock, limits: Limits, call_steward: Callable[[], None]
    ) -> None:
        self._store = store
        self._executor = executor
        self._clock = clock
        self._limits = limits
        self._call_steward = call_steward

    def admit(self, task: Task, launch: Launch) -> Task:
        """Register a new task durably and start it, or let it wait.

        Returns the task as registered. Raises KeyConflict, LimitReached, SpawnFailed and
        StoreUnavailable, each of which means that the command did not run and nothing is left of it.
        """
        self._leave_free()
        if not self._store.pending():
            started = self._start_new(task, launch, self._store.slots)
            if started is not None:
                return started
        with self._store.admission():
            self._park(task, launch)
        self._have_steward()
        return task

    def admit_now(self, task: Task, launch: Launch, slots: Path) -> Task:
        """Register and start a task that cannot wait. Raises as `admit` does."""
        started = self._start_new(task, launch, slots)
        if started is None:
            raise LimitReached(f"{self._limits.running} tasks are running already", "wait for some to end")
        return started

    def _start_new(self, task: Task, launch: Launch, slots: Path) -> Task | None:
        folder = self._make_folder(task)
        try:
            reservation = self._executor.reserve(folder, launch, slots, self._limits.running)
        except BaseException:
            _remove_empty(folder)
            raise
        if reservation is None:
            _remove_empty(folder)
            return None
        claimed = transition(task, Claimed(self._clock.now_ms(), self._clock.boot_id))
        try:
            # Receipt and claim in one durable write, while the supervisor makes itself ready.
            self._store.create(claimed)
        except BaseException:
            reservation.abandon()
            _remove_empty(folder)
            raise
        try:
            reservation.go()
        except (SpawnFailed, StoreUnavailable):
            try:
                self._store.delete(claimed.key)
            except StoreUnavailable as error:
                # It stays as a task that is lost, which is true of it.
                log.warning("a task that could not be started could not be removed: %s", error)
            raise
        return claimed

    def _leave_free(self) -> None:
        if not self._limits.free_bytes:
            return
        try:
            disk = os.statvfs(self._store.slots)
        except OSError:
            return
        if (free := disk.f_bavail * disk.f_frsize) < self._limits.free_bytes:
            raise LimitReached(
                f"the disk has {free} bytes free, fewer than the {self._limits.free_bytes} to be left free",
                "free some space, or set MCP_TASKS_MIN_FREE_BYTES",
            )

    def _park(self, task: Task, launch: Launch) -> None:
        """Register a task that waits. The caller holds the right to admit, so that the limit is exact."""
        waiting = len(self._store.pending())
        if waiting >= self._limits.pending:
            raise LimitReached(
                f"{waiting} tasks are pending already, the most that may wait",
                "wait for some to end, or cancel what is not needed",
            )
        folder = self._make_folder(task)
        try:
            self._executor.park(folder, launch)
            self._store.create(task)
        except BaseException as error:
            self._executor.tidy(folder)
            _remove_empty(folder)
            if isinstance(error, OSError | StoreUnavailable):
                why = error.message if isinstance(error, StoreUnavailable) else error.strerror
                raise CannotWait(f"every place is taken, and no task can be kept waiting ({why})") from error
            raise

    def _have_steward(self) -> None:
        try:
            self._call_steward()
        except (OSError, subprocess.SubprocessError) as error:
            # The task is registered, and this server will start it. Only nobody stands in for the server.
            log.warning("no steward could be started: %s", error)

    def _make_folder(self, task: Task) -> Path:
        return self._store.make_run_folder(task.key, task.run)

    def has_place(self) -> bool:
        """Whether one more task could run now. Costs less than to look who would be next."""
        return self._executor.has_place(self._store.slots, self._limits.running)

    def drain(self) -> list[Task]:
        """Start pending tasks until the places or the tasks run out. Returns those that were started."""
        started: list[Task] = []
        if not self._store.pending():
            return started
        with self._store.admission():
            waiting = self._store.pending()
            busy = self._busy_sessions(waiting)
            while waiting:
                # The oldest task of the session that has the fewest running.
                key = min(waiting, key=lambda key: (busy[key.session_key], key.task_id))
                waiting.remove(key)
                try:
                    claimed = self._claim(key)
                except (TaskNotFound, RevisionConflict):
                    # Cancelled or cleared in this very moment.
                    continue
                except TasksError as error:
                    log.warning("a pending task could not be started now: %s", error)
                    continue
                if claimed is None:
                    break
                busy[key.session_key] += 1
                started.append(claimed)
        return started

    def _busy_sessions(self, waiting: list[TaskKey]) -> Counter[SessionKey]:
        pending = set(waiting)
        return Counter(key.session_key for key in self._store.unfinished() if key not in pending)

    def _claim(self, key: TaskKey) -> Task | None:
        """Start one pending task. None when there is no place for it now."""
        task = self._store.load(key)
        if not isinstance(task.state, Pending):
            return task
        folder = self._store.run_folder(key, task.run)
        try:
            launch = self._executor.parked(folder)
        except StoreUnavailable as error:
            if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
                raise  # for want of a descriptor, say: it may be read the next time
            return self._refuse(task, folder, error)
        try:
            reservation = self._executor.reserve(folder, launch, self._store.slots, self._limits.running)
        except InvalidArgument as error:
            return self._refuse(task, folder, error)
        if reservation is None:
            return None
        try:
            claimed = self._store.replace(
                transition(task, Claimed(self._clock.now_ms(), self._clock.boot_id))
            )
        except BaseException:
            reservation.abandon()
            raise
        try:
            reservation.go()
        except (SpawnFailed, StoreUnavailable) as error:
            # Nothing ran, and the launch is still there: it is the next one's turn to try.
            self._store.replace(transition(claimed, Returned(self._clock.now_ms(), error.message)))
            raise
        return claimed

    def _refuse(self, task: Task, folder: Path, error: TasksError) -> Task:
        """End a pending task that can never be started."""
        outcome = SpawnFailure(error.message, error.hint or "start it again")
        refused = self._store.replace(transition(task, Refused(self._clock.now_ms(), outcome)))
        self._executor.tidy(folder)
        return refused

    def withdraw(self, task: Task, reason: str) -> Task | None:
        """Cancel a pending task. None when somebody claimed it first."""
        try:
            withdrawn = self._store.replace(transition(task, Withdrawn(self._clock.now_ms(), reason)))
        except RevisionConflict:
            return None
        self._executor.tidy(self._store.run_folder(task.key, task.run))
        return withdrawn

    def positions(self) -> dict[TaskKey, int]:
        """Where in the queue the pending tasks stand, 1 for the next."""
        return {key: place for place, key in enumerate(self._store.pending(), 1)}


def _remove_empty(folder: Path) -> None:
    """Take back the folder of a run that never came to be, if nothing is in it."""
    with suppress(OSError):
        folder.rmdir()
