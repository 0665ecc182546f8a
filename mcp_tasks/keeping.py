"""What goes on beside the calls: ends are written down, and pending tasks get their turn."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from mcp_tasks.admission import Admission
from mcp_tasks.errors import TaskNotFound, TasksError
from mcp_tasks.models import Pending, Task, TaskKey
from mcp_tasks.ports import Executor, Store
from mcp_tasks.reconcile import Reconciler

__all__ = ["Keeping"]

_SWEEP_S = 5.0
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
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        reconciler: Reconciler,
        admission: Admission,
        group: anyio.abc.TaskGroup,
    ) -> None:
        self._store = store
        self._executor = executor
        self._reconciler = reconciler
        self._admission = admission
        self._group = group
        self._kept: set[TaskKey] = set()
        self._drain = anyio.Event()

    def start(self) -> None:
        """Begin with what earlier servers left, then keep sweeping."""
        self._group.start_soon(self._sweep)
        self._group.start_soon(self._drain_queue)

    def keep(self, task: Task) -> None:
        """Watch a task that has just been started, and write down its end."""
        if task.key not in self._kept:
            self._kept.add(task.key)
            self._group.start_soon(self._see_off, task)

    def queue_changed(self) -> None:
        """Something is pending, or a place may have become free."""
        self._drain.set()

    async def finish(self, cancel: list[TaskKey]) -> None:
        """Cancel what may not outlive this process, and write down what has ended already."""
        for key in cancel:
            await anyio.to_thread.run_sync(self._cancel, key)
        for key in cancel:
            while await self._settle(key) is False:  # noqa: ASYNC110 - what ends is in another process
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
        folder = self._store.run_folder(task.key, task.run)
        try:
            # The answer to whoever started it goes first.
            await anyio.sleep(_FIRST_LOOK_S)
            while True:
                await self._end_of(folder)
                # The place is free and the exit record on disk. The task's own record may come a moment
                # later, so that it does not compete with the next start for the disk.
                await anyio.sleep(_SETTLE_S)
                if (await self._settle(task.key)) is not False:
                    return
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

    async def _settle(self, key: TaskKey) -> bool | None:
        """Whether the task is final now; None when that cannot be said."""
        try:
            return (await anyio.to_thread.run_sync(self._reconciler.settle, key)).is_final
        except TaskNotFound:
            return None
        except TasksError as error:
            log.warning("the end of a task could not be written down yet: %s", error)
            return None
        except Exception:
            log.exception("the end of a task could not be written down")
            return None

    async def _sweep(self) -> None:
        try:
            await anyio.to_thread.run_sync(self._store.sweep)
        except TasksError as error:
            log.warning("what killed processes left could not be removed: %s", error)
        except Exception:
            log.exception("what killed processes left could not be removed")
        while True:
            try:
                unfinished = await anyio.to_thread.run_sync(self._store.unfinished)
            except TasksError as error:
                log.warning("the store could not be swept: %s", error)
                unfinished = []
            except Exception:
                log.exception("the store could not be swept")
                unfinished = []
            for key in unfinished:
                if key not in self._kept:
                    await self._settle(key)
            if unfinished:
                self.queue_changed()
            await anyio.sleep(_SWEEP_S)

    async def _drain_queue(self) -> None:
        """Start what is pending whenever something ends here, and look often while anything waits."""
        waiting = False
        while True:
            started: list[Task] = []
            try:
                if not waiting or await anyio.to_thread.run_sync(self._admission.has_place):
                    started = await anyio.to_thread.run_sync(self._admission.drain)
                    waiting = await anyio.to_thread.run_sync(self._is_anything_pending)
            except TasksError as error:
                log.warning("pending tasks could not be started: %s", error)
                waiting = True
            except Exception:
                log.exception("pending tasks could not be started")
                waiting = True
            for task in started:
                if not task.is_final:
                    self.keep(task)
            if waiting:
                with anyio.move_on_after(_QUEUE_S):
                    await self._drain.wait()
            else:
                await self._drain.wait()
            self._drain = anyio.Event()

    def _is_anything_pending(self) -> bool:
        return bool(self._store.pending())
