"""The whole state by event table of the one function that changes a task."""

from __future__ import annotations

from dataclasses import replace

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
    Pending,
    Running,
    Signalled,
    SpawnFailure,
    Spec,
    TaskKey,
    TimedOut,
)

KEY = TaskKey("me", "default", "0" * 36)
OVER = Finished(Exited(0), 1, 1_020, 1_500, 480)
FAILED = Finished(Exited(3), 1, 1_020, 1_500, 480)
STARTED = Claimed(1_010, "boot")

PENDING = submitted(KEY, Spec("make", "/"), 1_000)
DELAYED = submitted(KEY, Spec("make", "/"), 1_000, delay_ms=500)
HELD = submitted(KEY, Spec("make", "/", after=("1" * 36,), plan="p" * 36), 1_000)
RUNNING = transition(PENDING, STARTED)
FINISHED = transition(RUNNING, Concluded(OVER))
RETRIABLE = submitted(KEY, Spec("make", "/", retries=1), 1_000)
TRYING = transition(RETRIABLE, STARTED)
WAITING = transition(TRYING, Concluded(FAILED))
LAST_TRY = transition(WAITING, Claimed(3_000, "boot"))

TASKS = {
    "pending": PENDING,
    "delayed": DELAYED,
    "held": HELD,
    "running": RUNNING,
    "finished": FINISHED,
    "trying": TRYING,
    "waiting": WAITING,
    "last try": LAST_TRY,
}
EVENTS: dict[str, Event] = {
    "claimed": Claimed(4_000, "boot"),
    "completed": Concluded(OVER),
    "failed": Concluded(FAILED),
    "second completed": Concluded(replace(OVER, run=2, ended_at=4_000)),
    "second failed": Concluded(replace(FAILED, run=2, ended_at=4_000)),
    "vanished": Vanished(4_000, "the machine was restarted"),
    "returned": Returned(4_000),
    "withdrawn": Withdrawn(4_000),
    "refused": Refused(4_000, SpawnFailure("no such program", "")),
    "dependency failed": Refused(4_000, DependencyFailed("1" * 36)),
}
WAITS = {"claimed": "running", "withdrawn": "cancelled", "refused": "failed", "dependency failed": "failed"}
RUNS = {"returned": "pending", "refused": "failed", "dependency failed": "failed"}
FIRST = {"completed": "completed", "failed": "failed", "vanished": "lost", **RUNS}
LEGAL: dict[str, dict[str, str]] = {
    "pending": WAITS,
    "delayed": WAITS,
    "held": WAITS,
    "running": FIRST,
    "finished": {},
    "trying": {**FIRST, "failed": "pending", "vanished": "pending"},
    "waiting": WAITS,
    "last try": {"second completed": "completed", "second failed": "failed", "vanished": "lost", **RUNS},
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("before", TASKS)
def test_each_event_moves_a_task_where_it_may_and_is_refused_elsewhere(before: str, event: str) -> None:
    task, expected = TASKS[before], LEGAL[before].get(event)
    if expected is None:
        with pytest.raises(IllegalMove, match=task.state.kind):
            transition(task, EVENTS[event])
        return
    moved = transition(task, EVENTS[event])
    assert moved.state_name == expected
    assert moved.history[:-1] == task.history
    assert moved.history[-1].state == expected
    assert moved.history[-1].reason
    # Only a run that has failed and is to be followed by another changes the number of the run.
    is_retried = before == "trying" and event in ("failed", "vanished")
    assert moved.run == task.run + is_retried


@pytest.mark.parametrize(
    ("outcome", "is_retried"),
    [
        (Exited(0), False),
        (Exited(1), True),
        (Signalled("SIGSEGV"), True),
        (TimedOut(None, "SIGTERM"), True),
        (Lost("nobody saw it"), True),
        (OutputLimit(0, None, "full"), False),
        (SpawnFailure("no such program", ""), False),
        (Cancelled(None, "SIGTERM"), False),
        (DependencyFailed("x"), False),
    ],
)
def test_what_failed_by_itself_is_run_again_and_nothing_else_is(outcome: Outcome, is_retried: bool) -> None:
    task = transition(TRYING, Concluded(Finished(outcome, 1, 1_020, 1_500, 480)))
    assert task.is_final is not is_retried
    assert task.is_held is is_retried
    assert task.begun == 1


def test_the_pause_before_a_further_run_doubles_up_to_a_minute() -> None:
    task = submitted(KEY, Spec("make", "/", retries=10), 0)
    pauses = []
    for run in range(1, 10):
        task = transition(transition(task, STARTED), Concluded(replace(FAILED, run=run, ended_at=0)))
        assert isinstance(task.state, Pending)
        assert task.state.not_before is not None
        pauses.append(task.state.not_before // 1_000)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_task_is_held_by_a_moment_by_other_tasks_and_by_its_plan_but_not_when_it_runs() -> None:
    assert [name for name, task in TASKS.items() if task.is_held] == ["delayed", "held", "waiting"]
    assert DELAYED.state == Pending(1, not_before=1_500)
    # What it waited for has come before its first run, so a run that goes back is not held again.
    assert not transition(LAST_TRY, Returned(4_000)).is_held
    assert transition(transition(HELD, STARTED), Returned(4_000)).is_held


def test_the_newest_run_that_has_begun_is_told_from_the_one_to_come() -> None:
    assert [task.begun for task in (PENDING, RUNNING, WAITING, LAST_TRY)] == [1, 1, 1, 2]
    assert transition(WAITING, Withdrawn(4_000)).begun == 1
    assert transition(LAST_TRY, Vanished(4_000, "gone")).begun == 2


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
