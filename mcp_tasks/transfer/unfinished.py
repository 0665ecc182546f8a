"""What becomes of a task in a copy: nothing that was not over may be run a second time there."""

from __future__ import annotations

from dataclasses import replace

from mcp_tasks.lifecycle import Vanished, Withdrawn, transition
from mcp_tasks.models import Finished, Pending, Running, Task

__all__ = ["as_copied"]

_WAS_PENDING = "it was pending when this copy was made"
_WAS_RUNNING = "it was running when this copy was made"


def as_copied(task: Task, *, ended: bool, at: int) -> Task:
    """The task as it is to be in a copy that was made while its original lives on.

    Args:
        task: As it is in the original.
        ended: Whether the exit record of its run is in the copy, which then tells how it ended.
        at: Moment of the copy, ms since the epoch.
    """
    match task.state:
        case Finished():
            return task
        case Pending():
            return transition(task, Withdrawn(at, _WAS_PENDING))
        case Running(run):
            # A copy has no launch of a next run.
            last = replace(task, spec=replace(task.spec, retries=min(task.spec.retries, run - 1)))
            return last if ended else transition(last, Vanished(at, _WAS_RUNNING))
