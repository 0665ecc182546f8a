"""What goes on beside the calls: ends are written down, and what waits gets its turn."""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from mcp_tasks.admission import Admission, Turn
from mcp_tasks.clock import Clock
from mcp_tasks.errors import TaskNotFound, TasksError
from mcp_tasks.models import Pending, Running, Task, TaskKey
from mcp_tasks.parking import Parking, needs_somebody, retriable
from mcp_tasks.ports import Executor, Store
from mcp_tasks.reconcile import Reconciler

__all__ = ["Keeping"]

_SWEEP_S = 5.0
_TIDY_S = 2.0
_QUEUE_S = 0.2
_STARTING_S = 0.01
_SETTLE_S = 0.1
_FIRST_LOOK_S = 0.005
_GRACE_MS = 1_000

log = logging.getLogger(__name__)


class Keeping:
    """Background work of one process, in a task group that the composition root owns.

    A task that this process started is watched until its end, which is then written into the store;
    one of another process is found by the sweep. Nothing here is needed for an answer to be true,
    because an end is told from the exit record (see `reconcile`). So whatever goes wrong here is for the
    log, and is tried again.

    `is_awaited` says whether somebody has to stay though nothing is left to be started. Blocking.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        clock: Clock,
        *,
        reconciler: Reconciler,
        admission: Admission,
        parking: Parking,
        group: anyio.abc.TaskGroup,
        is_awaited: Callable[[], bool],
    ) -> None:
        self._store = store
        self._executor = executor
        self._clock = clock
        self._reconciler = reconciler
        self._admission = admission
        self._parking = parking
        self._group = group
        self._is_awaited = is_awaited
        self._kept: set[TaskKey] = set()
        self._drain = anyio.Event()
        self._failures = 0
        self._turned = anyio.Event()

    def start(self) -> None:
        """Begin with what earlier servers left, then keep sweeping."""
        self._group.start_soon(self._tidy)
        self._group.start_soon(self._sweep)
        self._group.start_soon(self._drain_queue)

    def keep(self, task: Task) -> None:
        """Watch a task that has just been started, and write down its end."""
        if task.key not in self._kept:
            self._kept.add(task.key)
            self._group.start_soon(self._see_off, task)

    def queue_changed(self) -> None:
        """Something waits that did not, or what it waits for may have come."""
        self._drain.set()

    def look_around(self) -> None:
        """Another process has started, registered or ended something that others wait for."""
        self._drain.set()

    async def until_nothing_waits(self) -> None:
        """Wait until nothing of the whole store is left to be started or told, now or later."""
        while True:
            turned = self._turned
            try:
                if not await anyio.to_thread.run_sync(self._needs_somebody):
                    return
                for task in await anyio.to_thread.run_sync(retriable, self._store):
                    self.keep(task)
            except TasksError as error:
                log.warning("nobody can tell whether something is left to be started: %s", error)
            await turned.wait()

    def _needs_somebody(self) -> bool:
        return needs_somebody(self._store) or self._is_awaited()

    async def finish(self, cancel: list[TaskKey]) -> None:
        """Cancel what may not outlive this process, and write down what has ended already."""
        for key in cancel:
            await anyio.to_thread.run_sync(self._cancel, key)
        for key in cancel:
            while (task := await self._settle(key)) is not None and not task.is_final:
                if isinstance(task.state, Pending):
                    # A run of it failed by itself just before, and there is to be no other.
                    await anyio.to_thread.run_sync(self._cancel, key)
                await anyio.sleep(_STARTING_S)
        for key in self._kept.difference(cancel):
            await self._settle(key)

    def _cancel(self, key: TaskKey) -> None:
        try:
            task = self._store.load(key)
            if isinstance(task.state, Pending):
                self._admission.withdraw(task, "its server ended")
            else:
                self._executor.cancel(self._store.run_folder(key, task.run), _GRACE_MS, signal.SIGTERM)
        except TasksError as error:
            log.warning("a task could not be cancelled at the end: %s", error)

    async def _see_off(self, task: Task) -> None:
        seen: Task | None = task
        try:
            # The answer to whoever started it goes first.
            await anyio.sleep(_FIRST_LOOK_S)
            while seen is not None and isinstance(seen.state, Running):
                await self._end_of(self._store.run_folder(seen.key, seen.run))
                # The place is free and the exit record on disk. The task's own record may come a moment
                # later, so that it does not compete with the next start for the disk.
                await anyio.sleep(_SETTLE_S)
                seen = await self._settle(task.key)
        finally:
            self._kept.discard(task.key)
            self.queue_changed()

    async def _end_of(self, folder: Path) -> None:
        """Wait until a run has ended, or cannot be watched at this moment."""
        try:
            wire = self._executor.watch(folder)
            if wire is None:
                return
            try:
                await anyio.wait_readable(wire)
            finally:
                os.close(wire)
        except (TasksError, OSError) as error:
            log.warning("a running task cannot be watched now: %s", error)
        else:
            self.queue_changed()

    async def _settle(self, key: TaskKey) -> Task | None:
        """The task as it is now, written down; None when that cannot be said."""
        return await anyio.to_thread.run_sync(self._settled, key)

    def _settled(self, key: TaskKey) -> Task | None:
        try:
            return self._reconciler.settle(key)
        except TaskNotFound:
            return None
        except TasksError as error:
            log.warning("the end of a task could not be written down yet: %s", error)
            return None
        except Exception:
            log.exception("the end of a task could not be written down")
            return None

    async def _tidy(self) -> None:
        # The first answers go first: it looks at every run there is.
        await anyio.sleep(_TIDY_S)
        try:
            await anyio.to_thread.run_sync(self._store.sweep)
        except TasksError as error:
            log.warning("what killed processes left could not be removed: %s", error)
        except Exception:
            log.exception("what killed processes left could not be removed")

    async def _sweep(self) -> None:
        while True:
            found: list[Task] = []
            try:
                found = await anyio.to_thread.run_sync(self._look_through)
            except TasksError as error:
                log.warning("the store could not be swept: %s", error)
            except Exception:
                log.exception("the store could not be swept")
            for task in found:
                if isinstance(task.state, Running) and task.run <= task.spec.retries:
                    # Whoever started it may be gone when it fails and is to run again.
                    self.keep(task)
            if found:
                self.queue_changed()
            else:
                self._has_turned()
            await anyio.sleep(_SWEEP_S)

    def _look_through(self) -> list[Task]:
        """Every task that is not final or was not until now, but for those that are watched anyway."""
        kept = self._kept.copy()  # the event loop changes it
        unfinished = [key for key in self._store.unfinished() if key not in kept]
        found = [task for key in unfinished if (task := self._settled(key)) is not None]
        if any(isinstance(task.state, Pending) for task in found):
            self._parking.have_steward()
        return found

    async def _drain_queue(self) -> None:
        """Start what waits whenever something ends here or a moment has come.

        Only for a place among the running, which tasks of other servers give back, it is looked often.
        """
        turn = Turn()
        called = True
        while True:
            self._drain = anyio.Event()
            if called or self._is_due(turn) or await self._has_place():
                turn = await self._take_turn()
            with anyio.move_on_after(self._until_next(turn)) as pause:
                await self._drain.wait()
            called = not pause.cancelled_caught

    async def _take_turn(self) -> Turn:
        turn = Turn(waits=True, failed=True)
        try:
            turn = await anyio.to_thread.run_sync(self._admission.drain)
        except TasksError as error:
            log.warning("pending tasks could not be started: %s", error)
        except Exception:
            log.exception("pending tasks could not be started")
        self._failures = self._failures + 1 if turn.failed else 0
        for task in (*turn.started, *turn.watched):
            self.keep(task)
        self._has_turned()
        return turn

    def _has_turned(self) -> None:
        self._turned.set()
        self._turned = anyio.Event()

    async def _has_place(self) -> bool:
        try:
            return await anyio.to_thread.run_sync(self._admission.has_place)
        except TasksError as error:
            log.warning("nobody can tell whether there is a place: %s", error)
            return False

    def _is_due(self, turn: Turn) -> bool:
        return turn.next_moment is not None and turn.next_moment <= self._clock.now_ms()

    def _until_next(self, turn: Turn) -> float:
        """Seconds until it is worth looking again."""
        pause = min(_QUEUE_S * 2 ** min(self._failures, 10), _SWEEP_S) if turn.waits else math.inf
        if turn.next_moment is not None:
            pause = min(pause, max(0.0, (turn.next_moment - self._clock.now_ms()) / 1000))
        return pause
