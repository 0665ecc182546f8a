"""The task view: one flat JSON object, in which a field that has nothing to say is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_tasks.clock import Clock, rfc3339
from mcp_tasks.models import (
    Cancelled,
    DependencyFailed,
    Exited,
    Finished,
    Lost,
    Outcome,
    OutputLimit,
    Running,
    Signalled,
    SpawnFailure,
    State,
    TimedOut,
)
from mcp_tasks.output import OutputView, Shown
from mcp_tasks.ports import Supervised
from mcp_tasks.reconcile import Sight

__all__ = ["Extras", "Wait", "clipped", "fitting", "outcome_fields", "task_view"]

_FILE_CLOCK_MS = 20
_LIST_JSON = 50_000

ALWAYS = frozenset(
    {"task_id", "session", "state", "elapsed_ms", "stdout_bytes", "stderr_bytes", "next_cursor"}
)


@dataclass(frozen=True, slots=True)
class Wait:
    """What ended a wait: `exited`, `matched`, `idle`, `output`, `deadline`, or `none` without a wait.

    `clamped_to` is the longest wait allowed where more was asked for.
    """

    result: str = "none"
    waited_ms: int = 0
    clamped_to: int | None = None
    match: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Extras:
    """What a view says beside the task itself."""

    wait: Wait | None = None
    queue: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    reused: bool = False
    record: bool = False
    command_length: int = 4_000
    history: bool = False
    next: str = ""


def task_view(
    sight: Sight, output: OutputView, last_output_at: int | None, clock: Clock, extras: Extras
) -> dict[str, Any]:
    """Build the view of INTERFACE section 1; moments are RFC 3339, durations milliseconds."""
    task = sight.task
    now = clock.now_ms()
    started_at, elapsed = _times(sight, clock)
    last_output_at = _within(last_output_at, started_at, task.state)
    view: dict[str, Any] = {
        "task_id": task.key.task_id,
        "session": task.key.session,
        "state": task.state_name,
        "label": task.spec.label,
        **(outcome_fields(task.state) if isinstance(task.state, Finished) else {}),
        "elapsed_ms": elapsed,
        "idle_ms": None
        if task.is_final or started_at is None
        else _idle(started_at, last_output_at, now, elapsed),
        **_output(output),
        # The run whose output this is; while another is to come, it is the one before.
        "run": output.cursor.run if task.run > 1 or extras.history else None,
        "queue": extras.queue,
        "reused": extras.reused,
        "warning": "; ".join(extras.warnings),
        "next": extras.next,
    }
    if extras.wait is not None:
        view |= {
            "wait_result": extras.wait.result,
            "waited_ms": extras.wait.waited_ms,
            "max_wait_ms": extras.wait.clamped_to,
            "match": extras.wait.match,
        }
    if extras.record:
        view |= {
            "command": clipped(task.spec.command, extras.command_length),
            "cwd": task.spec.cwd,
            "key": task.spec.key,
            "created_at": rfc3339(task.created_at),
            "started_at": _moment(started_at),
            "ended_at": rfc3339(task.state.ended_at) if isinstance(task.state, Finished) else None,
            "last_output_at": _moment(last_output_at),
        }
    if extras.history:
        view["history"] = [
            {"state": change.state, "at": rfc3339(change.at), "reason": change.reason}
            for change in task.history
        ]
    return {name: value for name, value in view.items() if name in ALWAYS or _says_something(value)}


def _says_something(value: object) -> bool:
    # 0 says something: an exit code, a match on the first byte.
    return value is not None and value is not False and value not in ("", [], {})


def _times(sight: Sight, clock: Clock) -> tuple[int | None, int]:
    """When it started, and for how long it has been what it is."""
    match sight.task.state, sight.seen:
        case Finished(started_at=started_at, elapsed_ms=elapsed), _:
            return started_at, elapsed
        case Running(), Supervised(started_at, started_mono):
            return started_at, max(0, clock.mono_ms() - started_mono)
        case Running(claimed_at=claimed_at), _:
            # Claimed and not started yet, as far as can be seen: the time begins with the start.
            return claimed_at, 0
        case _:
            return None, max(0, clock.now_ms() - sight.task.created_at)


def _idle(started_at: int, last_output_at: int | None, now: int, elapsed: int) -> int:
    return min(elapsed, max(0, now - (last_output_at or started_at)))


def _within(moment: int | None, started_at: int | None, state: State) -> int | None:
    """A file's time, put right by what is known better.

    The kernel stamps files by a clock that lags behind the one that tells the time by some milliseconds.
    """
    if moment is None or started_at is None:
        return moment
    moment = max(moment, started_at)
    if isinstance(state, Finished) and state.ended_at < moment <= state.ended_at + _FILE_CLOCK_MS:
        return state.ended_at
    return moment


def fitting(views: Sequence[dict[str, Any]]) -> int:
    """How many of these views one answer can hold; at least one."""
    size = 0
    for index, view in enumerate(views):
        size += len(json.dumps(view)) + 2
        if size > _LIST_JSON and index:
            return index
    return len(views)


def clipped(text: str, length: int) -> str:
    """At most `length` characters of JSON of a text, and how much is not shown."""
    if len(json.dumps(text)) <= length:
        return text
    # A character is at most 6 of JSON, or 12 outside the basic plane.
    kept = text[: length // 12]
    return f"{kept}… ({len(text) - len(kept)} characters more)"


def outcome_fields(state: Finished) -> dict[str, Any]:
    """How a task has ended: outcome, exit code or signal, and the error where there is one."""
    outcome = state.outcome
    end: dict[str, Any] = {"outcome": outcome.kind}
    match outcome:
        case Exited(exit_code):
            end["exit_code"] = exit_code
        case Signalled(signal):
            end["signal"] = signal
        case TimedOut(exit_code, signal) | Cancelled(exit_code, signal) | OutputLimit(exit_code, signal):
            end |= {"exit_code": exit_code, "signal": signal}
        case _:
            pass
    end["error"] = _error(outcome)
    return end


def _error(outcome: Outcome) -> dict[str, str] | None:
    match outcome:
        case SpawnFailure(message, hint):
            return {"code": "spawn_failed", "message": message, "hint": hint}
        case OutputLimit(message=message):
            hint = "on_output_limit: keep_tail keeps head and tail and lets the command run on"
            return {"code": "limit_reached", "message": message, "hint": hint}
        case DependencyFailed(task_id):
            return {"code": "dependency_failed", "message": f"task {task_id} did not complete", "hint": ""}
        case Lost(reason):
            hint = "the output so far is kept; whether the command finished is unknown"
            return {"code": "lost", "message": reason, "hint": hint}
        case _:
            return None


def _output(view: OutputView) -> dict[str, Any]:
    shown = {name: [part.start, part.end] for name, part in _streams(view) if part.end > part.start}
    gaps = {name: list(part.gap) for name, part in _streams(view) if part.gap is not None}
    return {
        "stdout": view.stdout.text,
        "stderr": view.stderr.text,
        "stdout_bytes": view.stdout_bytes,
        "stderr_bytes": view.stderr_bytes,
        "shown": shown,
        "gap": gaps,
        "next_cursor": view.cursor.encode(),
        "truncated": view.truncated,
        "omitted_bytes": view.omitted_bytes or None,
        "more": view.more,
    }


def _streams(view: OutputView) -> tuple[tuple[str, Shown], tuple[str, Shown]]:
    return (("stdout", view.stdout), ("stderr", view.stderr))


def _moment(moment: int | None) -> str | None:
    return None if moment is None else rfc3339(moment)
