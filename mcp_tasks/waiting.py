"""Waiting for what happens to a task: bounded, cancellable, and without a thread that blocks."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import anyio

from mcp_tasks.models import TaskKey
from mcp_tasks.output import Cursor, RunOutput
from mcp_tasks.ports import Executor, Store
from mcp_tasks.reconcile import Reconciler, Sight
from mcp_tasks.search import Match, PatternWatch
from mcp_tasks.views import Wait

__all__ = ["Condition", "Progress", "Waiting"]

Progress: TypeAlias = Callable[[int, int, str], Awaitable[None]]
"""Called with the milliseconds waited, those allowed, and a sentence."""

_LOOK_AGAIN_S = 0.02
_LOOK_SOON_S = 0.003
_SOON_S = 0.1
_PROGRESS_S = 5.0


@dataclass(frozen=True, slots=True)
class Condition:
    """What ends a wait beside the task's end and the deadline.

    Attributes:
        since: Output after this position counts as new; None means from now on.
    """

    until: Literal["exit", "output", "idle", "pattern"] = "exit"
    idle_ms: int = 0
    watch: PatternWatch | None = None
    since: Cursor | None = None


@dataclass(slots=True)
class _Look:
    """What one wait has seen so far."""

    sizes: tuple[int, int]
    changed_at: float
    match: Match | None = None
    started: float = field(default_factory=time.monotonic)


class Waiting:
    """Waits for tasks of any server, in any state.

    A running task is waited for by its FIFO, whose end of file wakes within a millisecond; only what
    has no such wire (a pending task, growing files) is looked at again and again while the wait lasts.
    """

    def __init__(self, store: Store, executor: Executor, reconciler: Reconciler) -> None:
        self._store = store
        self._executor = executor
        self._reconciler = reconciler

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
            result: str | None = self._result(sight, condition, look)
            now = time.monotonic()
            if result is None and now >= deadline:
                result = "deadline" if wait_ms else "none"
            if result is not None:
                waited = int((now - began) * 1000)
                return sight, Wait(result, waited, None, _as_fields(look.match))
            if progress is not None and now >= next_progress:
                next_progress = now + _PROGRESS_S
                await progress(int((now - began) * 1000), wait_ms, f"{sight.task.state_name}, waiting")
            until = min(deadline, next_progress) if progress is not None else deadline
            if await self._pause(sight, condition, until, now - began):
                sight = self._reconciler.look(key)

    def _first_look(self, sight: Sight, condition: Condition) -> _Look:
        output = self._output(sight)
        sizes = (output.size("stdout"), output.size("stderr"))
        if condition.since is not None and condition.until == "output":
            sizes = (condition.since.stdout, condition.since.stderr)
        return _Look(sizes, time.monotonic())

    def _result(
        self, sight: Sight, condition: Condition, look: _Look
    ) -> Literal["exited", "matched", "idle", "output"] | None:
        if condition.watch is not None and look.match is None:
            look.match = condition.watch.advance()
            while look.match is None and condition.watch.behind and sight.task.is_final:
                look.match = condition.watch.advance()
            if look.match is not None:
                return "matched"
        if sight.task.is_final:
            return "exited"
        if condition.until in ("output", "idle"):
            output = self._output(sight)
            sizes = (output.size("stdout"), output.size("stderr"))
            if sizes != look.sizes:
                look.sizes, look.changed_at = sizes, time.monotonic()
                if condition.until == "output":
                    return "output"
            elif condition.until == "idle" and sight.seen is not None:
                last = max(look.changed_at, look.started)
                if (time.monotonic() - last) * 1000 >= condition.idle_ms:
                    return "idle"
        return None

    async def _pause(self, sight: Sight, condition: Condition, until: float, waited: float) -> bool:
        """Sleep until something may have changed, at the latest at `until`; whether the state may have."""
        wire = self._executor.watch(self._folder(sight)) if sight.seen is not None else None
        polled = condition.until != "exit"
        behind = condition.watch is not None and condition.watch.behind
        seconds = max(0.0, until - time.monotonic())
        if behind:
            seconds = 0.0
        elif polled or wire is None:
            # A fresh wait looks more often: what is asked for tends to come at once.
            seconds = min(seconds, _LOOK_SOON_S if waited < _SOON_S else _LOOK_AGAIN_S)
        if wire is None:
            await anyio.sleep(seconds)
            return True
        try:
            with anyio.move_on_after(seconds) as patience:
                await anyio.wait_readable(wire)
        finally:
            os.close(wire)
        return not patience.cancelled_caught

    def _output(self, sight: Sight) -> RunOutput:
        return RunOutput(self._folder(sight))

    def _folder(self, sight: Sight) -> Path:
        return self._store.run_folder(sight.task.key, sight.task.run)


def _as_fields(match: Match | None) -> dict[str, object] | None:
    if match is None:
        return None
    return {"stream": match.stream, "offset": match.offset, "line": match.line, "text": match.text}
