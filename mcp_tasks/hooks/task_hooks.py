"""The hooks of a server: armed by calls in threads, looked after by one background task."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from mcp_tasks.errors import TasksError
from mcp_tasks.hooks.outbox import Outbox
from mcp_tasks.hooks.signing_secret import SigningSecret
from mcp_tasks.hooks.surroundings import Surroundings
from mcp_tasks.models import Hook, Task, TaskKey

if TYPE_CHECKING:
    from mcp_tasks.hooks.courier import Courier
    from mcp_tasks.hooks.pace import Pace

__all__ = ["TaskHooks"]

log = logging.getLogger(__name__)

_FIRST_S: Final = 1.0
_EVERY_S: Final = 5.0


class TaskHooks:
    """Implements `ports.Hooks`."""

    def __init__(
        self, outbox: Outbox, surroundings: Surroundings, secret: SigningSecret, pace: Pace | None = None
    ) -> None:
        """Nothing is read or started yet.

        Args:
            outbox: Where everything is kept.
            surroundings: What else there is.
            secret: What webhooks are signed with from now on.
            pace: How often telling is tried.
        """
        self._outbox = outbox
        self._around = surroundings
        self._secret = secret
        self._pace = pace
        self._urgent: set[str] = set()
        self._bell: int | None = None
        self._guard = threading.Lock()

    @contextmanager
    def armed(self, keys: Sequence[TaskKey], hooks: Sequence[Hook]) -> Iterator[None]:
        """See `ports.Hooks`. The secret of this process goes with them: another one may tell them."""
        if not hooks:
            yield
            return
        from mcp_tasks.hooks.armed import Armed  # costs start-up time

        around = self._around
        posts = any(hook.kind == "webhook" for hook in hooks)
        secret = around.sealer.seal(self._secret.current()) if posts else None
        with self._outbox.arming():
            try:
                for key in keys:
                    self._outbox.write(Armed(key, around.clock.now_ms(), tuple(hooks), secret))
                around.call_steward()
                yield
            except BaseException:
                self.disarm(keys)
                raise
        self._ring(*(key.task_id for key in keys))

    def disarm(self, keys: Sequence[TaskKey]) -> None:
        """See `ports.Hooks`."""
        gone = [key.task_id for key in keys if self._outbox.has(key.task_id)]
        for task_id in gone:
            self._outbox.remove(task_id)
        if gone:
            self._around.tell_steward()

    def ended(self, task: Task) -> None:
        """See `ports.Hooks`."""
        task_id = task.key.task_id
        if not self._outbox.has(task_id):
            return
        try:
            self._outbox.keep_end(task_id, self._around.describe(task))
        except TasksError as error:
            log.warning("how task %s ended is not on disk for its hooks: %s", task_id, error)
        except Exception:
            log.exception("how task %s ended is told from its record, if that is there", task_id)
        self._ring(task_id)

    def waiting(self) -> bool:
        """See `ports.Hooks`."""
        try:
            return bool(self._outbox.listing())
        except TasksError as error:
            log.warning("nobody can say whether anything is to be told: %s", error)
            return False

    async def attend(self) -> None:
        """Tell what is to be told, until cancelled.

        The first look is a moment after the start: who comes for one call only has left by then.
        """
        ear, bell = _pipe()
        try:
            with self._guard:
                self._bell = bell
            await _heard(ear, _FIRST_S)
            await anyio.to_thread.run_sync(self._outbox.sweep)
            async with anyio.create_task_group() as group:
                courier: Courier | None = None
                armed: Mapping[str, bool] = {}
                listed_at = -math.inf
                while True:
                    with self._guard:
                        urgent, self._urgent = self._urgent, set()
                    # Each look at a task rings as well, and that alone makes no new ones.
                    if urgent or time.monotonic() - listed_at >= _EVERY_S:
                        listed_at = time.monotonic()
                        armed = await anyio.to_thread.run_sync(self._armed)
                    pause = math.inf
                    if armed:
                        courier = courier or self._courier(group)
                        pause = courier.see_to(armed, urgent)
                    await _heard(ear, min(pause, _EVERY_S))
        finally:
            with self._guard:
                self._bell = None
            os.close(ear)
            os.close(bell)

    def _courier(self, group: anyio.abc.TaskGroup) -> Courier:
        from mcp_tasks.hooks.courier import Courier  # costs start-up time
        from mcp_tasks.hooks.pace import Pace

        return Courier(self._outbox, self._around, group, ring=self._ring, pace=self._pace or Pace())

    def _armed(self) -> Mapping[str, bool]:
        try:
            return self._outbox.listing()
        except TasksError as error:
            log.warning("nobody can say whether anything is to be told: %s", error)
            return {}

    def _ring(self, *task_ids: str) -> None:
        """Have the background task look at once, at these tasks whatever they were to wait for."""
        with self._guard:
            self._urgent.update(task_ids)
            if self._bell is not None:
                with suppress(BlockingIOError):  # it was rung often enough
                    os.write(self._bell, b"!")


async def _heard(ear: int, seconds: float) -> None:
    """Wait until the bell is rung, or so long."""
    with anyio.move_on_after(max(0.0, seconds)):
        await anyio.wait_readable(ear)
    with suppress(BlockingIOError):
        while os.read(ear, 4_096):
            pass


def _pipe() -> tuple[int, int]:
    """Both ends of a pipe that never blocks and that nobody inherits."""
    ear, bell = os.pipe()
    os.set_blocking(ear, False)
    os.set_blocking(bell, False)
    return ear, bell
