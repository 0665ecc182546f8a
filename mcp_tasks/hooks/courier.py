"""Telling what is to be told: who does it, when it is tried again, and what the journal says of it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread

from mcp_tasks.errors import StoreUnavailable, TasksError
from mcp_tasks.hooks.armed import Armed, Notice
from mcp_tasks.hooks.due import Seen, earliest, first_due, is_over, next_moment, noticed
from mcp_tasks.hooks.outbox import Outbox
from mcp_tasks.hooks.pace import Pace
from mcp_tasks.hooks.surroundings import Surroundings
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


@dataclass(frozen=True, slots=True)
class _Found:
    """What one look at a task has shown.

    Attributes:
        armed: With a notice for whatever has happened, as it is on the disk.
        running: The task, where it runs.
        missing: Whether there is no such task, and nobody is about to register it.
    """

    armed: Armed
    seen: Seen | None
    running: Task | None = None
    missing: bool = False


class Courier:
    """Looks after what is armed, each task by itself, a few at once. On the event loop.

    What it waits for it counts on the clock that nobody sets; only what others are to wait for as well, over
    restarts, is a moment of the wall clock.
    """

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
        self._unwritten: dict[str, Notice] = {}
        self._limit = anyio.CapacityLimiter(_AT_ONCE)

    def see_to(self, armed: Mapping[str, bool], urgent: Collection[str]) -> float:
        """Begin with what is due of these tasks, with those that have ended since, and with what is `urgent`.

        Returns:
            Seconds until something else is.
        """
        now = self._around.clock.mono_ms()
        for known in (self._next, self._missing, self._unwritten):
            for task_id in known.keys() - armed.keys() - self._busy:
                del known[task_id]
        self._running.intersection_update(armed)
        self._again.update(self._busy.intersection(urgent))
        for task_id, ended in armed.items():
            if task_id in self._busy:
                continue
            # Who saw the end may have been another process, which left before it could tell of it.
            news = task_id in urgent or (ended and task_id in self._running)
            if ended:
                self._running.discard(task_id)  # that is news once
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
        if pause is None:
            pause = _LOOK_MS  # it is in the listing until there is another
        self._next[task_id] = self._around.clock.mono_ms() + pause
        self._ring()

    async def _see_off(self, task_id: str) -> int | None:
        """Tell what is due of one task. Returns the ms until it is worth looking again, None for never."""
        held = await anyio.to_thread.run_sync(self._outbox.take, task_id)
        if held is None:
            return _OTHERS_MS  # somebody else is at it
        with held:
            while True:
                found = await anyio.to_thread.run_sync(self._look, task_id)
                if found is None:
                    return None
                self._has_seen(task_id, found)
                now = self._around.clock.now_ms()
                notice = first_due(found.armed, now)
                if notice is not None:
                    await self._tell(found.armed, notice)
                elif is_over(found.armed, found.seen, lost=self._is_lost(task_id)):
                    await anyio.to_thread.run_sync(self._finish, found)
                    self._around.settled()
                    return None
                else:
                    return self._pause(found.armed, found.seen, now)

    def _has_seen(self, task_id: str, found: _Found) -> None:
        """Remember what the next look needs to know of this one."""
        self._unwritten.pop(task_id, None)
        if found.missing:
            self._missing.setdefault(task_id, self._around.clock.mono_ms())
        elif found.seen is not None:
            self._missing.pop(task_id, None)
        if found.seen is not None and not found.seen.final:
            self._running.add(task_id)
        else:
            self._running.discard(task_id)
        if found.running is not None:
            self._around.keep(found.running)

    def _pause(self, armed: Armed, seen: Seen | None, now: int) -> int:
        """Milliseconds until it is worth looking again; of the end of a task `TaskHooks.ended` hears."""
        longest = _LOOK_MS
        if seen is None:
            if not armed.notices:
                longest = _NOT_YET_MS  # it is just being registered, or never will be
        elif seen.started_at is None and (span := earliest(armed, seen)) is not None:
            longest = min(max(span, _PENDING_MS), _LOOK_MS)  # it may start in the very next moment
        moment = next_moment(armed, seen, now)
        return longest if moment is None else min(max(0, moment - now), longest)

    def _look(self, task_id: str) -> _Found | None:
        """Look at a task, and write down what is to be told of it. None where nothing is armed for it."""
        kept = self._outbox.read(task_id)
        if kept is None:
            self._outbox.remove(task_id)  # what is left of it
            return None
        found = self._now(kept)
        armed = noticed(self._with_unwritten(kept), found.seen, self._around.clock.now_ms())
        if armed != kept:
            self._outbox.write(armed)
        return replace(found, armed=armed)

    def _now(self, armed: Armed) -> _Found:
        """How the task is now, or was at its end: it may have been cleared since."""
        if (end := self._outbox.end_of(armed.key.task_id)) is not None:
            return _Found(armed, Seen(end, final=True, run=1))
        found = self._around.look(armed.key)
        if found is None:
            if not self._outbox.nobody_arms():
                return _Found(armed, None)
            found = self._around.look(armed.key)  # it may have been registered just before
        if found is None:
            return _Found(armed, None, missing=True)
        task, seen = found
        return _Found(armed, seen, running=task if isinstance(task.state, Running) else None)

    def _with_unwritten(self, armed: Armed) -> Armed:
        """With what came of an attempt that could not be written down: nobody is told twice for that."""
        tried = self._unwritten.get(armed.key.task_id)
        if tried is None:
            return armed
        kept = armed.newest(tried.hook, tried.event)
        if kept is None or kept.notice_id != tried.notice_id or kept.attempts >= tried.attempts:
            return armed  # somebody else has been at it since
        return armed.with_notice(tried)

    def _is_lost(self, task_id: str) -> bool:
        """Whether a task has not been there for so long that it is not just being moved."""
        since = self._missing.get(task_id)
        return since is not None and self._around.clock.mono_ms() - since >= _LOST_MS

    def _finish(self, found: _Found) -> None:
        task_id = found.armed.key.task_id
        if found.seen is None and not found.armed.notices:
            log.warning("task %s is not there any more, and nothing was told of it", task_id)
        self._outbox.remove(task_id)
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
        self._unwritten[armed.key.task_id] = tried
        with anyio.CancelScope(shield=True):  # what has been done is written down, though the server ends
            if tried.next_at is None or tried.attempts == 1:
                await anyio.to_thread.run_sync(self._note, armed, hook, tried, what)
            await anyio.to_thread.run_sync(self._outbox.write, armed.with_notice(tried))
            del self._unwritten[armed.key.task_id]

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
        late = now + after > tried.at + pace.give_up_ms
        if hook.kind == "webhook" or failure.patient:
            hopeless = late and tried.attempts >= pace.at_least
        else:
            hopeless = late or tried.attempts >= pace.programs
        if failure.final or hopeless:
            return tried.over(told=False)
        return replace(tried, next_at=now + after)

    def _note(self, armed: Armed, hook: Hook, notice: Notice, what: str) -> None:
        times = "" if notice.attempts == 1 else f" after {notice.attempts} attempts"
        ending = (
            "" if notice.told else ", and is given up" if notice.next_at is None else ", and is tried again"
        )
        entry = Draft(
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
        with suppress(TasksError):  # a session that is gone has no journal any more
            self._around.note(entry)
