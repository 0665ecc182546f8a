"""The whole state by event table of the one function that changes a task."""

from __future__ import annotations

import pytest

from mcp_tasks.lifecycle import (
    Claimed,
    Concluded,
    Event,
    IllegalMove,
    Refused,
    Returned,
    Vanished,
    Withdrawn,
    submitted,
    transition,
)
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
    Spec,
    Task,
    TaskKey,
    TimedOut,
)

PENDING = submitted(TaskKey("me", "default", "0" * 36), Spec("make", "/"), 1_000)
RUNNING = transition(PENDING, Claimed(1_010, "boot"))
OVER = Finished(Exited(0), 1, 1_020, 1_500, 480)
FINISHED = transition(RUNNING, Concluded(OVER))

EVENTS: list[Event] = [
    Claimed(2_000, "boot"),
    Concluded(OVER),
    Vanished(2_000, "the machine was restarted"),
    Returned(2_000),
    Withdrawn(2_000),
    Refused(2_000, SpawnFailure("no such program", "")),
]
LEGAL = {
    ("pending", "Claimed"): "running",
    ("pending", "Withdrawn"): "cancelled",
    ("pending", "Refused"): "failed",
    ("running", "Refused"): "failed",
    ("running", "Concluded"): "completed",
    ("running", "Vanished"): "lost",
    ("running", "Returned"): "pending",
}


@pytest.mark.parametrize("task", [PENDING, RUNNING, FINISHED], ids=["pending", "running", "finished"])
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_each_event_moves_a_task_where_it_may_and_is_refused_elsewhere(task: Task, event: Event) -> None:
    expected = LEGAL.get((task.state.kind, type(event).__name__))
    if expected is None:
        with pytest.raises(IllegalMove, match=task.state.kind):
            transition(task, event)
        return
    moved = transition(task, event)
    assert moved.state_name == expected
    assert moved.history[:-1] == task.history
    assert moved.history[-1].state == expected
    assert moved.history[-1].reason


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Exited(0), "completed"),
        (Exited(1), "failed"),
        (Exited(255), "failed"),
        (Signalled("SIGSEGV"), "failed"),
        (TimedOut(0, None), "failed"),
        (OutputLimit(0, None, "full"), "failed"),
        (SpawnFailure("no such program", ""), "failed"),
        (DependencyFailed("x"), "failed"),
        (Cancelled(0, None), "cancelled"),
        (Lost("nobody saw it"), "lost"),
    ],
)
def test_only_an_exit_with_code_zero_is_success(outcome: Outcome, state: str) -> None:
    task = transition(RUNNING, Concluded(Finished(outcome, 1, 1_020, 1_500, 480)))
    assert task.state_name == state
    assert task.history[-1].reason


def test_the_record_of_another_run_cannot_end_this_one() -> None:
    with pytest.raises(IllegalMove):
        transition(RUNNING, Concluded(Finished(Exited(0), 2, 1_020, 1_500, 480)))


def test_history_tells_every_change_with_its_moment_in_order() -> None:
    assert [(change.state, change.at) for change in FINISHED.history] == [
        ("pending", 1_000),
        ("running", 1_010),
        ("completed", 1_500),
    ]
    assert isinstance(RUNNING.state, Running)
    assert not RUNNING.is_final
    assert FINISHED.is_final
