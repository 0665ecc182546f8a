"""Telling what is to be told: who does it, when it is tried again, and what the journal says of it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread

from mcp_tasks.errors import StoreUnavailable, TasksError
from mcp_tasks.hooks.armed import Armed, Notice
from mcp_tasks.hooks.due import Seen, first_due, is_over, next_moment, noticed
from mcp_tasks.hooks.outbox import Outbox
from mcp_tasks.hooks.pace import Pace
from mcp_tasks.hooks.task_hooks import Surroundings
from mcp_tasks.hooks.telling import NotTold, Telling
from mcp_tasks.models import Draft, Hook, Running, Task

__all__ = ["Courier"]

log = logging.getLogger(__name__)

_AT_ONCE: Final = 16
_OTHERS_MS: Final = 1_000
_TROUBLE_MS: Final = 5_000
_LOOK_MS: Final = 30_000
_NOT_YET_MS: Final = 200
_LOST_MS: Final = 2_000
_PENDING_MS: Final = 1_000


class Courier:
    """Looks after what is armed, each task by itself, a few at once. On the event loop."""

    def __init__(
        self,
        outbox: Outbox,
        surroundings: Surroundings,
        group: anyio.abc.TaskGroup,
        *,
        ring: Callable[[], None],
        pace: Pace,
    ) -> None:
        self._outbox = outbox
        self._around = surroundings
        self._group = group
        self._ring = ring
        self._pace = pace
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._next: dict[str, int] = {}
        self._missing: dict[str, int] = {}
        self._running: set[str] = set()
        self._limit = anyio.CapacityLimiter(_AT_ONCE)

    def see_to(self, armed: Mapping[str, bool], urgent: Collection[str]) -> float:
        """Begin with what is due of these tasks, with those that have ended since, and with what is `urgent`.

        Returns:
            Seconds until something else is.
        """
        now = self._around.clock.now_ms()
        self._next = {task_id: at for task_id, at in self._next.items() if task_id in armed}
        self._again.update(self._busy.intersection(urgent))
        self._running.intersection_update(armed)
        for task_id, ended in armed.items():
            if task_id in self._busy:
                continue
            # Who saw the end may have been another process, which left before it could tell of it.
            news = task_id in urgent or (ended and task_id in self._running)
            if news or self._next.get(task_id, 0) <= now:
                self._busy.add(task_id)
                self._group.start_soon(self._attend_to, task_id)
        waiting = [at for task_id, at in self._next.items() if task_id not in self._busy]
        return max(0, min(waiting) - now) / 1000 if waiting else math.inf

    async def _attend_to(self, task_id: str) -> None:
        pause: int | None = _TROUBLE_MS
        try:
            async with self._limit:
                pause = await self._see_off(task_id)
        except TasksError as error:
            log.warning("what is to be told of task %s has to wait: %s", task_id, error)
        except Exception:
            log.exception("what is to be told of task %s has to wait", task_id)
        finally:
            self._busy.discard(task_id)
        if task_id in self._again:
            self._again.discard(task_id)
            pause = 0
        if pause is not None:
            self._next[task_id] = self._around.clock.now_ms() + pause
        self._ring()

    async def _see_off(self, task_id: str) -> int | None:
        """Tell what is due of one task. Returns the ms until it is worth looking again, None for never."""
        held = await anyio.to_thread.run_sync(self._outbox.take, task_id)
        if held is None:
            return _OTHERS_MS  # somebody else is at it
        with held:
            while True:
                armed, seen, running = await anyio.to_thread.run_sync(self._look, task_id)
                if armed is None:
                    return None
                if running is not None:
                    self._around.keep(running)
                now = self._around.clock.now_ms()
                notice = first_due(armed, now)
                if notice is not None:
                    await self._tell(armed, notice)
                elif is_over(armed, seen, lost=seen is None and self._is_lost(task_id, now)):
                    await anyio.to_thread.run_sync(self._finish, armed, seen)
                    self._around.settled()
                    return None
                else:
                    return self._pause(armed, seen, now)

    def _pause(self, armed: Armed, seen: Seen | None, now: int) -> int:
        """Milliseconds until it is worth looking again; of the end of a task `TaskHooks.ended` hears."""
        longest = _LOOK_MS
        if seen is None:
            if not armed.notices:
                longest = _NOT_YET_MS  # it is just being registered, or never will be
        elif seen.started_at is None and any(hook.on != ("end",) for hook in armed.hooks):
            longest = _PENDING_MS
        moment = next_moment(armed, seen, now)
        return longest if moment is None else min(max(0, moment - now), longest)

    def _look(self, task_id: str) -> tuple[Armed | None, Seen | None, Task | None]:
        """What is armed, with a notice for whatever has happened; the task, and once more if it runs."""
        armed = self._outbox.read(task_id)
        if armed is None:
            self._outbox.remove(task_id)  # what is left of it
            return None, None, None
        seen: Seen | None = None
        running: Task | None = None
        if (end := self._outbox.end_of(task_id)) is not None:
            # It may have been cleared since.
            self._running.discard(task_id)
            seen = Seen(end, final=True, run=1)
        elif (found := self._around.look(armed.key)) is not None:
            task, seen = found
            running = task if isinstance(task.state, Running) else None
            self._missing.pop(task_id, None)
            self._running.add(task_id)
        elif self._outbox.nobody_arms():
            # It may have been registered between the look and the question.
            found = self._around.look(armed.key)
            if found is None:
                self._missing.setdefault(task_id, self._around.clock.now_ms())
        known = noticed(armed, seen, self._around.clock.now_ms())
        if known != armed:
            self._outbox.write(known)
        return known, seen, running

    def _is_lost(self, task_id: str, now: int) -> bool:
        """Whether a task has not been there for so long that it is not just being moved."""
        return now - self._missing.get(task_id, now) >= _LOST_MS

    def _finish(self, armed: Armed, seen: Seen | None) -> None:
        self._missing.pop(armed.key.task_id, None)
        if seen is None and not armed.notices:
            log.warning("task %s is not there any more, and nothing was told of it", armed.key.task_id)
        self._outbox.remove(armed.key.task_id)
        self._around.tell_steward()

    async def _tell(self, armed: Armed, notice: Notice) -> None:
        """Try once, and keep what came of it."""
        hook = armed.hooks[notice.hook]
        tried = replace(notice, attempts=notice.attempts + 1)
        try:
            await self._carry(armed, hook, Telling.of(notice))
        except NotTold as failure:
            tried = self._after(failure, hook, tried)
            what = f"could not be told: {failure.reason}"
            if tried.next_at is not None:
                log.warning("%s of task %s %s", hook.kind, armed.key.task_id, what)
        else:
            tried = tried.over(told=True)
            what = "was told"
        await anyio.to_thread.run_sync(self._outbox.write, armed.with_notice(tried))
        if tried.next_at is None or tried.attempts == 1:
            self._note(armed, hook, tried, what)

    async def _carry(self, armed: Armed, hook: Hook, telling: Telling) -> None:
        from mcp_tasks.hooks import programs

        if hook.target is None:
            await programs.notify(telling, self._around.environment, self._pace.notify_s)
            return
        target = await self._unsealed(hook.target)
        if hook.kind == "command":
            command: str | Sequence[str] = json.loads(target)
            await programs.run(command, telling, self._around.environment, self._pace.command_s)
        else:
            from mcp_tasks.hooks.webhook import post

            secret = None if armed.secret is None else await self._unsealed(armed.secret)
            await post(json.loads(target), telling, secret)

    async def _unsealed(self, text: str) -> str:
        try:
            return await anyio.to_thread.run_sync(self._around.sealer.unseal, text)
        except StoreUnavailable as error:
            raise NotTold(error.message, patient=True) from None  # its key may come back

    def _after(self, failure: NotTold, hook: Hook, tried: Notice) -> Notice:
        """A notice after an attempt that failed: when it is tried again, or that it is given up."""
        pace, now = self._pace, self._around.clock.now_ms()
        after = max(pace.pause(tried.attempts), int(failure.after_s * 1000))
        counted = hook.kind != "webhook" and not failure.patient
        hopeless = counted and tried.attempts >= pace.programs
        if failure.final or hopeless or now + after > tried.at + pace.give_up_ms:
            return tried.over(told=False)
        return replace(tried, next_at=now + after)

    def _note(self, armed: Armed, hook: Hook, notice: Notice, what: str) -> None:
        times = "" if notice.attempts == 1 else f" after {notice.attempts} attempts"
        ending = (
            "" if notice.told else ", and is given up" if notice.next_at is None else ", and is tried again"
        )
        self._around.note(
            Draft(
                armed.key.session_key,
                "event",
                f"{hook.kind} for {notice.event} {what}{times}{ending}",
                self._around.clock.now_ms(),
                task_id=armed.key.task_id,
                data={
                    "event": "hook_told" if notice.told else "hook_failed",
                    "hook": hook.kind,
                    "on": notice.event,
                    "message_id": notice.notice_id,
                    "attempts": notice.attempts,
                },
            )
        )
