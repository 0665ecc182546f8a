"""From what is known of a task to the view of it: the excerpt, the warnings, what to do next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from mcp_tasks.clock import Clock, rfc3339
from mcp_tasks.holding import Holding
from mcp_tasks.models import Pending, Running, Task, TaskKey
from mcp_tasks.output import (
    STREAMS,
    Cursor,
    OutputView,
    RunOutput,
    Shown,
    Stream,
    view_new,
    view_none,
    view_tail,
)
from mcp_tasks.ports import Ended, Executor, Store
from mcp_tasks.reconcile import Sight
from mcp_tasks.views import Extras, Wait, task_view

__all__ = ["Presenter", "Show"]

Show = Literal["new", "tail", "none"]

_COMMAND_IN_LIST = 1_000
_NAMED = 3


class Presenter:
    """Builds views. Reads output and processes, changes nothing."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        clock: Clock,
        *,
        positions: Callable[[], Mapping[TaskKey, int]],
        max_running: int,
        holding: Holding,
        is_fallback: Callable[[TaskKey], bool],
    ) -> None:
        self._store = store
        self._executor = executor
        self._clock = clock
        self._positions = positions
        self._max_running = max_running
        self._holding = holding
        self._is_fallback = is_fallback

    def output(self, task: Task) -> RunOutput:
        """The captured output of the newest run that has begun."""
        return self._output_of(task, task.begun)

    def _output_of(self, task: Task, run: int) -> RunOutput:
        return RunOutput(self._store.run_folder(task.key, run))

    def newest_output(self, task: Task) -> tuple[RunOutput, int]:
        """The captured output of the newest run that has any, and the number of that run."""
        for run in range(task.begun, 0, -1):
            output = self._output_of(task, run)
            if _has_any(output):
                return output, run
        return self.output(task), task.begun

    def new(
        self,
        task: Task,
        cursor: Cursor,
        max_bytes: int,
        *,
        ansi: Literal["strip", "keep"],
        encoding: Literal["text", "base64"] = "text",
        streams: tuple[Stream, ...] = STREAMS,
    ) -> OutputView:
        """What came after a cursor, which may be in a run before the newest: one run after the other."""
        cursor = replace(cursor, run=min(max(cursor.run, 1), task.begun))
        output = self._output_of(task, cursor.run)
        while cursor.run < task.begun and all(output.size(name) <= cursor.of(name) for name in streams):
            cursor = Cursor(cursor.run + 1)
            output = self._output_of(task, cursor.run)
        is_past = cursor.run < task.begun
        view = view_new(
            output,
            cursor,
            max_bytes,
            final=task.is_final or is_past,
            ansi=ansi,
            encoding=encoding,
            streams=streams,
        )
        later = range(cursor.run + 1, task.begun + 1)
        if is_past and not view.more and any(_has_any(self._output_of(task, run)) for run in later):
            return replace(view, more=True)
        return view

    def excerpt(
        self, sight: Sight, show: Show, cursor: Cursor | None, max_bytes: int, ansi: Literal["strip", "keep"]
    ) -> OutputView:
        """The part of the output that a poll shows."""
        task = sight.task
        output = self.output(task)
        if cursor is not None and cursor.run != task.begun and show != "new":
            cursor = None  # it says nothing about this run
        match show:
            case "none":
                return view_none(output, task.begun, cursor)
            case "tail":
                return view_tail(output, task.begun, max_bytes, since=cursor, final=_is_over(task), ansi=ansi)
            case "new":
                return self.new(task, cursor or Cursor(task.begun), max_bytes, ansi=ansi)

    def view(
        self,
        sight: Sight,
        excerpt: OutputView,
        *,
        wait: Wait | None = None,
        reused: bool = False,
        record: bool = False,
        history: bool = False,
        warnings: tuple[str, ...] = (),
        read_on: str = "",
        max_wait_ms: int = 25_000,
    ) -> dict[str, Any]:
        """The view of a task, with everything that is to be said beside it.

        `read_on` are the arguments that the next page of the same reading takes beside its cursor,
        `max_wait_ms` is the longest wait that the caller can ask for next.
        """
        extras = Extras(
            wait=wait,
            queue=self._queue(sight.task, None),
            warnings=(*self._warnings(sight, excerpt), *warnings),
            reused=reused,
            record=record,
            history=history,
            next=_next(sight.task, excerpt, read_on, max_wait_ms),
        )
        return task_view(sight, excerpt, self.output(sight.task).last_output_at(), self._clock, extras)

    def unseen(
        self, task: Task, why: str = "", *, reused: bool = False, max_wait_ms: int = 25_000
    ) -> dict[str, Any]:
        """The view of a task that has just been registered and not been looked at.

        `why` tells what kept us from looking, where it was not for haste.
        """
        nothing = Shown("", 0, 0)
        excerpt = OutputView(nothing, nothing, 0, 0, Cursor(task.begun), omitted_bytes=0, more=False)
        warnings = self._not_durable(task)
        if why:
            warnings.append(f"it has been started, and more cannot be told now ({why})")
        extras = Extras(
            wait=None if why else Wait(),
            warnings=tuple(warnings),
            reused=reused,
            next=_next(task, excerpt, "", max_wait_ms),
        )
        return task_view(Sight(task, None), excerpt, None, self._clock, extras)

    def summaries(self, sights: Sequence[Sight]) -> list[dict[str, Any]]:
        """The views of tasks in a list: their records, none of their output."""
        waiting = any(isinstance(sight.task.state, Pending) for sight in sights)
        positions = self._positions() if waiting else {}
        return [self._summary(sight, positions) for sight in sights]

    def _summary(self, sight: Sight, positions: Mapping[TaskKey, int]) -> dict[str, Any]:
        excerpt = view_none(self.output(sight.task), sight.task.begun)
        queue = self._queue(sight.task, positions)
        warnings = self._warnings(sight, excerpt)
        extras = Extras(queue=queue, warnings=warnings, record=True, command_length=_COMMAND_IN_LIST)
        view = task_view(sight, excerpt, self.output(sight.task).last_output_at(), self._clock, extras)
        view.pop("more", None)
        return view

    def _queue(self, task: Task, positions: Mapping[TaskKey, int] | None) -> dict[str, Any] | None:
        if not isinstance(task.state, Pending):
            return None
        if positions is None:
            positions = self._positions()
        return {"position": positions.get(task.key, 1), "waiting_for": self._waiting_for(task)}

    def _waiting_for(self, task: Task) -> str:
        """What a pending task waits for, in words: tasks, a moment, its plan, or a place."""
        found = self._holding.hindrance(task)
        reasons = []
        if found.tasks:
            named = ", ".join(found.tasks[:_NAMED])
            more = f" and {len(found.tasks) - _NAMED} more" if len(found.tasks) > _NAMED else ""
            reasons.append(f"task{'s' if len(found.tasks) > 1 else ''} {named}{more} to end")
        if found.until is not None:
            reasons.append(f"{rfc3339(found.until)}{_of_run(task)}")
        if found.plan:
            reasons.append("its plan to be registered")
        return " and ".join(reasons) or f"one of {self._max_running} places among the running"

    def _warnings(self, sight: Sight, excerpt: OutputView) -> tuple[str, ...]:
        task = sight.task
        found = self._not_durable(task)
        total, limit = excerpt.stdout_bytes + excerpt.stderr_bytes, task.spec.max_output_bytes
        if (
            isinstance(task.state, Running)
            and limit
            and total >= limit // 2
            and not isinstance(sight.seen, Ended)
        ):
            ending = (
                "its middle is dropped" if task.spec.on_output_limit == "keep_tail" else "the task is ended"
            )
            if total <= limit:
                found.append(f"{total} of at most {limit} bytes of output captured; at the limit {ending}")
        if task.spec.on_output_limit == "keep_tail" and total > limit > 0:
            found += self._holes(task)
        if task.is_final and (alive := self.left_alive(task)):
            named = ", ".join(alive[:5])
            found.append(f"{_counted(alive)} in the background ({named}); cancel_task ends them")
        return tuple(found)

    def _holes(self, task: Task) -> list[str]:
        output = self.output(task)
        return [
            f"bytes {start} to {end} of {stream} were dropped (keep_tail) and are gone"
            for stream in STREAMS
            for start, end in output.holes(stream)
        ]

    def _not_durable(self, task: Task) -> list[str]:
        if not self._is_fallback(task.key):
            return []
        return ["not durable: the store cannot be written, so this task and its output end with the server"]

    def left_alive(self, task: Task) -> list[str]:
        """The processes that a finished task left in the background, as `pid name`."""
        folder = self._store.run_folder(task.key, task.begun)
        return self._executor.background(folder) if self._executor.lingers(folder) else []


def _counted(alive: list[str]) -> str:
    return "1 process of it still runs" if len(alive) == 1 else f"{len(alive)} processes of it still run"


def _next(task: Task, excerpt: OutputView, read_on: str, max_wait_ms: int) -> str:
    """What an agent would sensibly call next, with the arguments filled in."""
    task_id = task.key.task_id
    if not task.is_final and not (read_on and excerpt.more):
        return f'poll_task(task_id="{task_id}", cursor="{excerpt.cursor.encode()}", wait_ms={max_wait_ms})'
    if excerpt.more:
        return f'get_result(task_id="{task_id}", cursor="{excerpt.cursor.encode()}"{read_on})'
    if excerpt.truncated:
        return f'get_result(task_id="{task_id}", offset=0)'
    return ""


def _of_run(task: Task) -> str:
    return f", when run {task.run} of {task.spec.retries + 1} begins" if task.run > 1 else ""


def _is_over(task: Task) -> bool:
    """Whether the newest run that has begun writes no more."""
    return task.is_final or task.begun < task.run


def _has_any(output: RunOutput) -> bool:
    return any(output.size(name) for name in STREAMS)
