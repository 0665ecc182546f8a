"""The one door through which a task changes: a pure function of task and event.

    submitted            claimed                 ended
──────────────▶ Pending ────────▶ Running(run) ────────▶ Finished(outcome)
                   ◀──── returned ─────┤ vanished ─────▶ Finished(Lost)
                   ◀─ failed, retried ─┤
                   ├── withdrawn ─────────────────────▶ Finished(Cancelled)
                   └── refused ◀───────┘ ─────────────▶ Finished(SpawnFailure, DependencyFailed)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from mcp_tasks.models import (
    Cancelled,
    Change,
    DependencyFailed,
    Exited,
    Finished,
    Lost,
    Outcome,
    OutputLimit,
    Pending,
    Running,
    Signalled,
    SpawnFailure,
    Spec,
    State,
    Task,
    TaskKey,
    TimedOut,
)

__all__ = [
    "Claimed",
    "Concluded",
    "Event",
    "IllegalMove",
    "Refused",
    "Returned",
    "Vanished",
    "Withdrawn",
    "submitted",
    "transition",
]


_FIRST_BACKOFF_MS = 1_000
_LONGEST_BACKOFF_MS = 60_000


@dataclass(frozen=True, slots=True)
class Claimed:
    """A server holds the run's lock and a place among the running, and is about to start it."""

    at: int
    boot_id: str
    reason: str = "a place was free"


@dataclass(frozen=True, slots=True)
class Concluded:
    """The exit record of the run has been read. A failure is retried where the task has retries left."""

    finished: Finished


@dataclass(frozen=True, slots=True)
class Vanished:
    """Nobody saw the end of the run. It is run again only where the task has retries left."""

    at: int
    reason: str


@dataclass(frozen=True, slots=True)
class Returned:
    """The server that had claimed it ended before it started anything: it is somebody else's turn."""

    at: int
    reason: str = "its server ended before it was started"


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Cancelled before it was claimed."""

    at: int
    reason: str = "cancelled before it started"


@dataclass(frozen=True, slots=True)
class Refused:
    """It is certain that nothing ran: it cannot be started, or what it waited for did not complete."""

    at: int
    outcome: SpawnFailure | DependencyFailed


Event: TypeAlias = Claimed | Concluded | Vanished | Returned | Withdrawn | Refused


class IllegalMove(Exception):
    """The event cannot happen to a task in this state: a defect, or somebody else was faster."""

    def __init__(self, task: Task, event: Event) -> None:
        super().__init__(f"{type(event).__name__} cannot happen to a task that is {task.state.kind}")


def submitted(key: TaskKey, spec: Spec, at: int, delay_ms: int = 0) -> Task:
    """A new task, pending; not to be started for `delay_ms`."""
    pending = Pending(not_before=at + delay_ms if delay_ms else None)
    return Task(key, spec, at, pending, (Change("pending", at, "submitted"),))


def transition(task: Task, event: Event) -> Task:
    """The task after the event, its history one entry longer. Raises IllegalMove."""
    match task.state, event:
        case Pending(run), Claimed(at, boot_id, reason):
            return _moved(task, Running(run, at, boot_id), at, reason)
        case Pending(run), Withdrawn(at, reason):
            return _moved(task, Finished(Cancelled(None, None), run, None, at, 0), at, reason)
        case Pending(run), Refused(at, outcome):
            return _moved(task, Finished(outcome, run, None, at, 0), at, _why(outcome))
        case Running(run), Refused(at, outcome):
            return _moved(task, Finished(outcome, run, None, at, 0), at, _why(outcome))
        case Running(run), Concluded(finished) if finished.run == run:
            if _is_retried(task.spec, finished):
                return _again(task, finished)
            return _moved(task, finished, finished.ended_at, _why(finished.outcome))
        case Running(run), Returned(at, reason):
            return _moved(task, Pending(run), at, reason)
        case Running(run, claimed_at), Vanished(at, reason):
            lost = Finished(Lost(reason), run, None, at, max(0, at - claimed_at))
            if _is_retried(task.spec, lost):
                return _again(task, lost)
            return _moved(task, lost, at, reason)
        case _:
            raise IllegalMove(task, event)


def _moved(task: Task, state: State, at: int, reason: str) -> Task:
    moved = replace(task, state=state)
    return replace(moved, history=(*task.history, Change(moved.state_name, at, reason)))


def _is_retried(spec: Spec, ended: Finished) -> bool:
    match ended.outcome:
        case Exited(exit_code) if exit_code == 0:
            return False
        case Exited() | Signalled() | TimedOut() | Lost():
            return ended.run <= spec.retries
        case _:
            return False


def _again(task: Task, ended: Finished) -> Task:
    """The task waiting for its next run, twice as long after each failure."""
    wait_ms = min(_FIRST_BACKOFF_MS * 2 ** min(ended.run - 1, 20), _LONGEST_BACKOFF_MS)
    pending = Pending(ended.run + 1, ended.ended_at + wait_ms)
    why = f"run {ended.run} of {task.spec.retries + 1}: {_why(ended.outcome)}; again in {wait_ms} ms"
    return _moved(task, pending, ended.ended_at, why)


def _why(outcome: Outcome) -> str:
    """One clause of history for how a run ended."""
    match outcome:
        case Exited(exit_code):
            return f"exit code {exit_code}"
        case Signalled(signal):
            return f"ended by {signal}"
        case TimedOut():
            return "the deadline passed"
        case Cancelled():
            return "cancelled"
        case OutputLimit(_, _, message) | SpawnFailure(message):
            return message
        case DependencyFailed(task_id):
            return f"{task_id} did not complete"
        case Lost(reason):
            return reason
        case _:
            assert_never(outcome)
