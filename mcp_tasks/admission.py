"""Who runs now and who waits: first come, first served, fair between sessions, over all servers.

A place among the running is a lock that passes to the supervisor (see `executors.slots`), so there is
nothing to count and nothing to give back. While anything is pending, what comes later waits behind it.
What waits for more than a place (see `holding`) stands in nobody's way until it is ready.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
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
from mcp_tasks.holding import Holding, Round
from mcp_tasks.lifecycle import Claimed, Refused, Returned, Withdrawn, transition
from mcp_tasks.models import (
    DependencyFailed,
    Pending,
    Plan,
    Running,
    SessionKey,
    SpawnFailure,
    Task,
    TaskKey,
)
from mcp_tasks.parking import Limits, Parking, forget_next_run, remove_empty
from mcp_tasks.ports import Executor, Launch, Store

__all__ = ["Admission", "Turn"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one look at the queue has done, and when to look again.

    Attributes:
        started: Tasks that run now.
        watched: Running tasks that others wait for.
        waits: Whether more would start if there were a place.
        next_moment: When something becomes ready by itself, in milliseconds since the epoch.
        failed: Whether something went wrong that is to be tried again, though not at once.
    """

    started: Sequence[Task] = field(default=())
    watched: Sequence[Task] = field(default=())
    waits: bool = False
    next_moment: int | None = None
    failed: bool = False


class Admission:
    """Starts tasks as far as there are places for them. Blocking."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        clock: Clock,
        *,
        limits: Limits,
        parking: Parking,
        holding: Holding,
    ) -> None:
        self._store = store
        self._executor = executor
        self._clock = clock
        self._limits = limits
        self._parking = parking
        self._holding = holding
        self._crowded = False

    def admit(self, task: Task, launch: Launch) -> Task:
        """Register a new task durably and start it, or let it wait.

        Returns the task as registered. Raises KeyConflict, LimitReached, SpawnFailed and
        StoreUnavailable, each of which means that the command did not run and nothing is left of it.
        """
        self._leave_free()
        # Tasks that became ready and found no place are before what comes now.
        if not task.is_held and not self._crowded and not self._store.pending():
            started = self._start_new(task, launch, self._store.slots)
            if started is not None:
                return started
        with self._store.admission():
            self._parking.keep_waiting(task, launch)
        self._parking.have_steward()
        return task

    def admit_plan(
        self, plan: Plan, tasks: Sequence[tuple[Task, Launch]], registered: Callable[[], Plan | None]
    ) -> Plan:
        """Register a plan with all its tasks, which wait; or find the one that is there already.

        Args:
            plan: Its record, which makes the others count.
            tasks: All its tasks, held by it.
            registered: Tells which plan is there already. While it looks, no other is registered.

        Returns:
            The plan of the two that is registered. Raises as `admit` does: then nothing is left of any.
        """
        self._leave_free()
        with self._store.admission():
            found = registered()
            if found is not None:
                return found
            self._parking.keep_plan(plan, tasks)
        self._parking.have_steward()
        return plan

    def forget_plan(self, session: SessionKey, plan_id: str) -> None:
        """Remove the tasks of a plan that was never registered. The caller holds the right to admit."""
        # The first task has the key of the plan. It goes last, so that a kill leaves the rest to be found.
        for key in reversed(self._store.held()):
            with suppress(TaskNotFound):
                if key.session_key == session and self._store.load(key).spec.plan == plan_id:
                    self._parking.forget(key)

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
            remove_empty(folder)
            raise
        if reservation is None:
            remove_empty(folder)
            return None
        claimed = transition(task, Claimed(self._clock.now_ms(), self._clock.boot_id))
        try:
            self._parking.keep_next_run(task, launch)
            # Receipt and claim in one durable write, while the supervisor makes itself ready.
            self._store.create(claimed)
        except BaseException:
            reservation.abandon()
            forget_next_run(self._store, self._executor, task)
            remove_empty(folder)
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
        if task.spec.retries:
            # Its next run may be due when no server lives.
            self._parking.have_steward()
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

    def _make_folder(self, task: Task) -> Path:
        return self._store.make_run_folder(task.key, task.run)

    def has_place(self) -> bool:
        """Whether one more task could run now. Costs less than to look who would be next."""
        return self._executor.has_place(self._store.slots, self._limits.running)

    def drain(self) -> Turn:
        """Start what waits until the places or the tasks run out; end what will never start."""
        found = self._holding.look()
        self._end_hopeless(found)
        started: list[Task] = []
        orphans: list[Task] = []
        failed = False
        waits = bool(found.ready or self._store.pending())
        # Without a place there is nothing to decide, and a server that is stopped (SIGSTOP) while it holds
        # the right to decide keeps it from all others.
        if found.orphans or (waits and self.has_place()):
            with self._store.admission():
                # Whoever registers a plan holds this right until it counts. He may have been slow, not dead.
                orphans = [task for task in found.orphans if self._holding.is_orphan(task)]
                for task in orphans:
                    self._parking.forget(task.key)
                started, waits, failed = self._start_waiting(found)
        self._crowded = waits
        gone = {task.key for task in (*started, *orphans, *(task for task, _ in found.hopeless))}
        if (gone and not waits and found.held <= gone) or any(key in found.awaited for key in gone):
            # It may go now, or has to see the end of what others wait for if this process is killed.
            self._parking.tell_steward()
        return Turn(started, found.watched, waits, found.next_moment, failed)

    def _end_hopeless(self, found: Round) -> None:
        """Tell tasks whose dependency failed, and all that wait for them, as failed."""
        for task, culprit in found.hopeless:
            refused = Refused(self._clock.now_ms(), DependencyFailed(culprit))
            try:
                self._store.replace(transition(task, refused))
            except (TaskNotFound, RevisionConflict):
                self._holding.forget(task.key)
                continue
            self._executor.tidy(self._store.run_folder(task.key, task.run))

    def _start_waiting(self, found: Round) -> tuple[list[Task], bool, bool]:
        """Start pending and ready tasks.

        Returns those that run, whether any is left, and whether that is for no want of a place.
        """
        ready = {task.key: task for task in found.ready}
        waiting = sorted([*self._store.pending(), *ready], key=lambda key: key.task_id)
        busy = self._busy_sessions(found.held.union(waiting)) if waiting else Counter[SessionKey]()
        started: list[Task] = []
        left = failed = False
        while waiting:
            # The oldest task of the session that has the fewest running.
            key = min(waiting, key=lambda key: (busy[key.session_key], key.task_id))
            waiting.remove(key)
            try:
                task = self._claim(key, ready.get(key))
            except (TaskNotFound, RevisionConflict):
                # Cancelled, cleared or started by somebody else in this very moment.
                self._holding.forget(key)
                left = left or key in ready
                continue
            except TasksError as error:
                log.warning("a pending task could not be started now: %s", error)
                left = failed = True
                continue
            if task is None:
                return started, True, False
            if isinstance(task.state, Running):
                busy[key.session_key] += 1
                started.append(task)
            else:
                left = True  # what waits for one that has been refused is to be told so
        return started, left, failed

    def _busy_sessions(self, waiting: frozenset[TaskKey]) -> Counter[SessionKey]:
        return Counter(key.session_key for key in self._store.unfinished() if key not in waiting)

    def _claim(self, key: TaskKey, ready: Task | None) -> Task | None:
        """Start one waiting task, unless it is not what it was when it was found `ready`.

        None when there is no place for it now. Raises RevisionConflict, TaskNotFound.
        """
        task = self._store.load(key)
        if not isinstance(task.state, Pending):
            return task
        if (ready.revision != task.revision) if ready is not None else task.is_held:
            raise RevisionConflict(f"task {key.task_id} waits for something else by now")
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
            self._parking.keep_next_run(task, launch)
            claimed = self._store.replace(
                transition(task, Claimed(self._clock.now_ms(), self._clock.boot_id))
            )
        except BaseException:
            reservation.abandon()
            # Where it has not been cancelled, it is kept anew with the next claim.
            forget_next_run(self._store, self._executor, task)
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
        last = self._store.run_folder(task.key, task.begun)
        if not self._executor.lingers(last):
            self._executor.tidy(last)
        self._parking.tell_steward()
        return withdrawn

    def awaited_in(self, session: SessionKey) -> frozenset[str]:
        """The ids of the tasks of a session that others still wait for. See `Holding.awaited_in`."""
        return self._holding.awaited_in(session)

    def positions(self) -> Mapping[TaskKey, int]:
        """Where in the queue the waiting tasks stand, 1 for the next; held ones are behind all others."""
        return {key: place for place, key in enumerate([*self._store.pending(), *self._store.held()], 1)}
