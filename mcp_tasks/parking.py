"""How a task is registered that cannot start now: its launch is kept beside it until it can.

Whatever is registered here is started by some server, or by the steward where none lives.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mcp_tasks.errors import LimitReached, StoreUnavailable, TaskNotFound, TasksError
from mcp_tasks.models import Plan, Running, Task, TaskKey
from mcp_tasks.ports import Executor, Launch, Store

__all__ = [
    "CannotWait",
    "Limits",
    "Parking",
    "forget_next_run",
    "needs_somebody",
    "remove_empty",
    "retriable",
]

log = logging.getLogger(__name__)


class CannotWait(StoreUnavailable):
    """There is no place for the task now, and no room to keep it until there is one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What stands in the way of one more task, over all servers of a store.

    Attributes:
        running: Tasks that may run.
        pending: Tasks that may wait, for whatever it is.
        free_bytes: Of the disk, under which no task is taken.
    """

    running: int
    pending: int
    free_bytes: int = 0


class Parking:
    """Registers tasks that wait. Blocking; the caller holds the right to admit (`Store.admission`).

    Args:
        call_steward: Sees to it that waiting tasks are started even when no server lives.
        ring: Tells who does that, if there is anybody, that there may be less to do.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        limits: Limits,
        *,
        call_steward: Callable[[], None],
        ring: Callable[[], None],
    ) -> None:
        self._store = store
        self._executor = executor
        self._limits = limits
        self._call_steward = call_steward
        self._ring = ring

    def keep_waiting(self, task: Task, launch: Launch) -> None:
        """Register one task durably. Raises KeyConflict, LimitReached, CannotWait: nothing is left of it."""
        self._leave_room(1)
        folder = self._store.make_run_folder(task.key, task.run)
        try:
            self._executor.park(folder, launch)
            self._store.create(task)
        except BaseException as error:
            self._executor.tidy(folder)
            remove_empty(folder)
            if isinstance(error, OSError | StoreUnavailable):
                why = error.message if isinstance(error, StoreUnavailable) else error.strerror
                raise CannotWait(f"it cannot start now, and no task can be kept waiting ({why})") from error
            raise

    def keep_plan(self, plan: Plan, tasks: Sequence[tuple[Task, Launch]]) -> None:
        """Register a plan with its tasks. The plan's own record comes last, and only then do they count.

        Raises as `keep_waiting` does, and then nothing is left of any.
        """
        self._leave_room(len(tasks))
        registered: list[TaskKey] = []
        folders: list[Path] = []
        try:
            for task, _ in tasks:
                folders.append(self._store.make_run_folder(task.key, task.run))
            launches = [launch for _, launch in tasks]
            self._executor.park_all(list(zip(folders, launches, strict=True)))
            for task, _ in tasks:
                self._store.create(task)
                registered.append(task.key)
            self._store.create_plan(plan)
        except BaseException:
            for key in reversed(registered):
                self.forget(key)
            for folder in folders:
                self._executor.tidy(folder)
                remove_empty(folder)
            raise

    def keep_next_run(self, task: Task, launch: Launch) -> None:
        """Keep the launch of the run that follows where this one fails. Raises StoreUnavailable."""
        if task.run > task.spec.retries:
            return
        folder = self._store.make_run_folder(task.key, task.run + 1)
        # What a killed server left half written. Nobody starts that run before this one is over.
        self._executor.tidy(folder)
        self._executor.park(folder, launch)

    def forget(self, key: TaskKey) -> None:
        """Remove a task that has never run and never will."""
        try:
            self._store.delete(key)
        except TaskNotFound:
            pass
        except TasksError as error:
            log.warning("a task that will never run could not be removed: %s", error)

    def have_steward(self) -> None:
        """Tell somebody who outlives this process that there is something to start."""
        try:
            self._call_steward()
        except (OSError, subprocess.SubprocessError) as error:
            # The task is registered, and this server will start it. Only nobody stands in for the server.
            log.warning("no steward could be started: %s", error)

    def tell_steward(self) -> None:
        """Something does not wait any more, so there may be no need of a steward."""
        with suppress(OSError):
            self._ring()

    def _leave_room(self, more: int) -> None:
        waiting = len(self._store.pending()) + len(self._store.held())
        if waiting + more <= self._limits.pending:
            return
        if more > 1:
            raise LimitReached(
                f"{waiting} tasks are pending already, and {more} more are over the {self._limits.pending}"
                " that may wait",
                "give a shorter plan, or wait for some to end",
            )
        raise LimitReached(
            f"{waiting} tasks are pending already, the most that may wait",
            "wait for some to end, or cancel what is not needed",
        )


def forget_next_run(store: Store, executor: Executor, task: Task) -> None:
    """Remove the launch of a run that will not come."""
    if task.spec.retries:
        folder = store.run_folder(task.key, task.run + 1)
        executor.tidy(folder)
        remove_empty(folder)


def needs_somebody(store: Store) -> bool:
    """Whether anything waits to be started, or will when a run of it fails. Raises StoreUnavailable."""
    return bool(store.pending() or store.held() or retriable(store))


def retriable(store: Store) -> list[Task]:
    """The tasks that run and are run again if they fail. Raises StoreUnavailable."""
    found: list[Task] = []
    waiting = {*store.pending(), *store.held()}
    for key in store.unfinished():
        if key in waiting:
            continue  # not read, because there may be many
        with suppress(TasksError):
            task = store.load(key)
            if isinstance(task.state, Running) and task.run <= task.spec.retries:
                found.append(task)
    return found


def remove_empty(folder: Path) -> None:
    """Take back the folder of a run that never came to be, if nothing is in it."""
    with suppress(OSError):
        folder.rmdir()
