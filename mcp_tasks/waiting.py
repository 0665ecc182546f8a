"""Waiting for what happens to a task: bounded, cancellable, and without a thread that blocks."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import anyio
import anyio.to_thread

from mcp_tasks.models import Running, StateName, TaskKey
from mcp_tasks.output import Cursor, RunOutput
from mcp_tasks.output.search import Match, Pattern, PatternWatch
from mcp_tasks.ports import Executor, Starting, Store
from mcp_tasks.reconcile import Reconciler, Sight
from mcp_tasks.views import Wait

__all__ = ["Condition", "Progress", "Waiting"]

Progress: TypeAlias = Callable[[int, int, str], Awaitable[None]]
"""Called with the milliseconds waited, those allowed, and a sentence."""

_LOOK_AGAIN_S = 0.02
_LOOK_SOON_S = 0.003
_LOOK_SELDOM_S = 0.1
_LOOK_RARELY_S = 0.5
_SOON_S = 0.1
_LOOK_COST_S = 0.001
_SEARCH_S = 5.0
_SEARCHES = 4
_PROGRESS_S = 5.0


@dataclass(frozen=True, slots=True)
class Condition:
    """What ends a wait beside the task's end and the deadline.

    Attributes:
        pattern: Looked for from `since` on, in each run anew.
        since: Output after this position counts as new; None means from now on, for a pattern from the
            first byte of the run.
        known: State and number of the run that are known already: of `state`, which ends with any other.
    """

    until: Literal["exit", "output", "idle", "pattern", "state"] = "exit"
    idle_ms: int = 0
    pattern: Pattern | None = None
    since: Cursor | None = None
    known: tuple[StateName, int] | None = None

    @property
    def is_of_output(self) -> bool:
        """Whether it looks at the output, of which nothing tells that it has grown."""
        return self.until not in ("exit", "state")


@dataclass(slots=True)
class _Look:
    """What one wait has seen so far."""

    run: int
    sizes: tuple[int, int]
    changed_at: float
    watch: PatternWatch | None = None
    searched: tuple[int, int] | None = None
    match: Match | None = None
    paused: bool = False
    behind: bool = False
    """Whether there is output that has not been searched."""
    lags: bool = False
    """The same of a task that is over, so that only the search is waited for."""


class Waiting:
    """Waits for tasks of any server, in any state.

    A running task is waited for by its FIFO, whose end of file wakes within a millisecond; only what
    has no such wire (a pending task, growing files) is looked at again and again while the wait lasts,
    the less often the more there are, so that a thousand cost no more than fifty.
    """

    def __init__(self, store: Store, executor: Executor, reconciler: Reconciler) -> None:
        self._store = store
        self._executor = executor
        self._reconciler = reconciler
        self._searches = anyio.CapacityLimiter(_SEARCHES)
        self._looking = 0

    async def until(
        self,
        key: TaskKey,
        condition: Condition,
        wait_ms: int,
        progress: Progress | None = None,
    ) -> tuple[Sight, Wait]:
        """Wait at most `wait_ms` for the end of the task, or for the condition. Never ends the task."""
        began = time.monotonic()
        deadline = began + wait_ms / 1000
        next_progress = began + _PROGRESS_S
        sight = self._reconciler.look(key)
        look = self._first_look(sight, condition)
        while True:
            await self._search(sight, condition, look)
            result: str | None = self._result(sight, condition, look)
            now = time.monotonic()
            if result is None and now >= (deadline if not look.lags else max(deadline, began + _SEARCH_S)):
                if wait_ms and isinstance(sight.seen, Starting):
                    # What was seen of it is as old as this wait, and it has begun long ago.
                    sight = self._reconciler.look(key)
                    result = self._result(sight, condition, look)
                result = result or ("deadline" if wait_ms else "none")
            if result is not None:
                # Looking takes its time too, and is no wait.
                waited = max(1, int((now - began) * 1000)) if look.paused else 0
                return sight, Wait(result, waited, None, _as_fields(look.match))
            if progress is not None and now >= next_progress:
                next_progress = now + _PROGRESS_S
                await progress(int((now - began) * 1000), wait_ms, f"{sight.task.state_name}, waiting")
            until = min(deadline, next_progress) if progress is not None else deadline
            look.paused = True
            if look.lags or await self._pause(sight, condition, look, until):
                sight = self._reconciler.look(key)

    def _first_look(self, sight: Sight, condition: Condition) -> _Look:
        run, since = sight.task.begun, condition.since
        if since is not None and since.run != run:
            since = Cursor(run)  # all that this run has written came after it
        sizes = (0, 0)
        if since is not None and condition.until == "output":
            sizes = (since.stdout, since.stderr)
        elif condition.until in ("output", "idle"):  # nobody else asks how much there is
            sizes = self._sizes(sight)
        return _Look(run, sizes, time.monotonic(), self._watch(sight, condition, since))

    def _watch(self, sight: Sight, condition: Condition, since: Cursor | None) -> PatternWatch | None:
        if condition.pattern is None:
            return None
        return PatternWatch(self._output(sight), condition.pattern, since or Cursor(sight.task.begun))

    def _next_run(self, sight: Sight, condition: Condition, look: _Look) -> None:
        """What was waited for in the run before is waited for in this one from its beginning."""
        look.run, look.sizes, look.searched = sight.task.begun, (0, 0), None
        look.changed_at = time.monotonic()
        look.behind = look.lags = False
        look.watch = self._watch(sight, condition, None)

    async def _search(self, sight: Sight, condition: Condition, look: _Look) -> None:
        """Take one step of the watch for a pattern where there is something new to be searched."""
        if sight.task.begun > look.run:
            self._next_run(sight, condition, look)
        if look.watch is None:
            return
        sizes = self._sizes(sight)
        if sizes == look.searched and not look.behind:
            return
        if sizes != look.searched:
            look.changed_at = time.monotonic()
        look.searched = sizes
        # In a thread, because one step may take a good part of a second.
        look.match = await anyio.to_thread.run_sync(look.watch.advance, limiter=self._searches)
        look.behind = look.match is None and look.watch.behind
        look.lags = look.behind and sight.task.is_final

    def _result(
        self, sight: Sight, condition: Condition, look: _Look
    ) -> Literal["exited", "matched", "idle", "output", "changed"] | None:
        if look.match is not None:
            return "matched"
        if sight.task.is_final:
            return None if look.lags else "exited"
        if condition.until == "state" and (sight.task.state_name, sight.task.run) != condition.known:
            return "changed"
        if condition.until in ("output", "idle"):
            sizes = self._sizes(sight)
            if sizes != look.sizes:
                look.sizes, look.changed_at = sizes, time.monotonic()
                if condition.until == "output":
                    return "output"
            elif (
                condition.until == "idle" and sight.seen is not None and not self._until_idle(condition, look)
            ):
                return "idle"
        return None

    def _until_idle(self, condition: Condition, look: _Look) -> float:
        """Seconds until the task counts as idle."""
        return max(0.0, look.changed_at + condition.idle_ms / 1000 - time.monotonic())

    async def _pause(self, sight: Sight, condition: Condition, look: _Look, until: float) -> bool:
        """Sleep until something may have changed, at the latest at `until`; whether the state may have."""
        if look.behind:
            return True
        wire = self._executor.watch(self._folder(sight)) if isinstance(sight.task.state, Running) else None
        looks = condition.is_of_output or wire is None
        self._looking += looks
        try:
            return await self._sleep(sight, condition, look, until, wire)
        finally:
            self._looking -= looks

    async def _sleep(
        self, sight: Sight, condition: Condition, look: _Look, until: float, wire: int | None
    ) -> bool:
        seconds = max(0.0, until - time.monotonic())
        if condition.is_of_output or wire is None:
            # What is asked for tends to come at once, or not for a long time.
            quiet = time.monotonic() - look.changed_at
            seldom = _LOOK_RARELY_S if condition.until == "state" else _LOOK_SELDOM_S
            often = _LOOK_SOON_S if quiet < _SOON_S else min(max(_LOOK_AGAIN_S, quiet / 50), seldom)
            seconds = min(seconds, max(often, self._looking * _LOOK_COST_S))
        if condition.until == "idle" and sight.seen is not None:
            seconds = min(seconds, self._until_idle(condition, look) + 0.0005)
        if wire is None:
            await anyio.sleep(seconds)
            return True
        try:
            with anyio.move_on_after(seconds) as patience:
                await anyio.wait_readable(wire)
        finally:
            os.close(wire)
        return not patience.cancelled_caught

    def _sizes(self, sight: Sight) -> tuple[int, int]:
        output = self._output(sight)
        return output.size("stdout"), output.size("stderr")

    def _output(self, sight: Sight) -> RunOutput:
        return RunOutput(self._folder(sight))

    def _folder(self, sight: Sight) -> Path:
        return self._store.run_folder(sight.task.key, sight.task.begun)


def _as_fields(match: Match | None) -> dict[str, object] | None:
    if match is None:
        return None
    line = {} if match.line is None else {"line": match.line}  # nobody knows it after a hole
    return {"stream": match.stream, "offset": match.offset, **line, "text": match.text}
