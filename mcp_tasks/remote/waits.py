"""Waits as long as they are meant, made of waits as short as a connection bears.

A server waits no longer than it has been set to, and a connection that died without a word is noticed only
when an answer is overdue. So each question waits for a while, and is asked again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from mcp_tasks.errors import TaskNotFinished
from mcp_tasks.output import Cursor
from mcp_tasks.requests import EndSession, PlanProgress, PollTask, WaitTasks

__all__ = ["end_of", "ended", "plan_over", "polled", "waited"]

_WHILE_MS: Final = 20_000

View = dict[str, Any]


def end_of(view: View) -> Cursor:
    """How far the output of the newest run reached when a view was made that shows no earlier one."""
    # Where nothing is shown, next_cursor is no further than what has been seen; its run is the one.
    return Cursor(Cursor.parse(view["next_cursor"]).run, view["stdout_bytes"], view["stderr_bytes"])


class _Clock:
    """How much is left of a wait."""

    def __init__(self, wait_ms: int) -> None:
        self._began = time.monotonic()
        self._wait_ms = wait_ms

    @property
    def spent_ms(self) -> int:
        return int((time.monotonic() - self._began) * 1000)

    @property
    def left_ms(self) -> int:
        return max(0, self._wait_ms - self.spent_ms)

    @property
    def next_ms(self) -> int:
        return min(self.left_ms, _WHILE_MS)


async def polled(ask: Callable[[PollTask], Awaitable[View]], request: PollTask, wait_ms: int) -> View:
    """A poll_task that waits for `wait_ms` in all."""
    clock = _Clock(wait_ms)
    if request.idle_ms is not None and request.pattern is None and wait_ms > _WHILE_MS:
        result = await _until_idle(ask, request, clock, request.idle_ms)
        view = await ask(request.model_copy(update={"wait_ms": 0}))
        return _as_one({**view, "wait_result": result, "waited_ms": clock.spent_ms}, clock)
    while True:
        view = await ask(request.model_copy(update={"wait_ms": clock.next_ms}))
        if view.get("wait_result") != "deadline" or not clock.left_ms:
            return _as_one(view, clock)
        if request.until == "output" and request.cursor is None:
            # New is what came after the first look, and not after the one that comes now.
            request = request.model_copy(
                update={"cursor": end_of(view).encode(), "show": request.show or "tail"}
            )


async def _until_idle(
    ask: Callable[[PollTask], Awaitable[View]], request: PollTask, clock: _Clock, idle_ms: int
) -> str:
    """Wait until a task has been silent for so long, in however many questions; what ended the wait."""
    looking = PollTask(task_id=request.task_id, until="output", show="none")
    silent_since = clock.spent_ms
    while True:
        silent_ms = clock.spent_ms - silent_since
        if silent_ms >= idle_ms or not clock.left_ms:
            return "idle" if silent_ms >= idle_ms else "deadline"
        view = await ask(looking.model_copy(update={"wait_ms": min(clock.next_ms, idle_ms - silent_ms)}))
        if view["wait_result"] == "output":
            silent_since = clock.spent_ms
        elif view["wait_result"] != "deadline":
            return str(view["wait_result"])
        looking = looking.model_copy(update={"cursor": end_of(view).encode()})


async def waited(ask: Callable[[WaitTasks], Awaitable[View]], request: WaitTasks, wait_ms: int) -> View:
    """A wait_tasks that waits for `wait_ms` in all."""
    clock = _Clock(wait_ms)
    while True:
        view = await ask(request.model_copy(update={"wait_ms": clock.next_ms}))
        if view.get("wait_result") != "deadline" or not clock.left_ms:
            return _as_one(view, clock)


async def plan_over(
    ask: Callable[[PlanProgress], Awaitable[View]], request: PlanProgress, wait_ms: int
) -> View:
    """A plan_progress that waits for `wait_ms` in all."""
    clock = _Clock(wait_ms)
    while True:
        view = await ask(request.model_copy(update={"wait_ms": clock.next_ms}))
        if view["state"] not in ("pending", "running") or not clock.left_ms:
            return view


async def ended(ask: Callable[[EndSession], Awaitable[View]], request: EndSession, wait_ms: int) -> View:
    """An end_session that waits for `wait_ms` in all for what still runs."""
    clock = _Clock(wait_ms)
    while True:
        try:
            return await ask(request.model_copy(update={"wait_ms": clock.next_ms}))
        except TaskNotFinished:
            if not clock.left_ms:
                raise


def _as_one(view: View, clock: _Clock) -> View:
    """The last answer as that of one wait: the limit of the server did not shorten it."""
    told = {name: value for name, value in view.items() if name != "max_wait_ms"}
    if view.get("waited_ms"):
        told["waited_ms"] = clock.spent_ms
    return told
