"""What hooks need of the rest of the program, handed in by the composition root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp_tasks.clock import Clock
from mcp_tasks.models import Draft, Task, TaskKey
from mcp_tasks.ports import Sealer

if TYPE_CHECKING:
    from mcp_tasks.hooks.due import Seen  # costs start-up time

__all__ = ["Surroundings"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where hooks look, whom they tell, and what their commands inherit.

    Attributes:
        describe: The view of a task that is final, without output.
        look: A task as it is now, None where it is not there. Blocking; raises TasksError.
        keep: Sees to it that the end of a running task is noticed soon. On the event loop.
        note: Writes into the journal. Blocking; raises TasksError.
        call_steward: Sees to it that somebody is there when no server lives.
        tell_steward: There may be no need of the steward any more.
        settled: The same for this process. On the event loop.
        environment: Of the commands of hooks.
    """

    clock: Clock
    sealer: Sealer
    describe: Callable[[Task], Mapping[str, Any]]
    look: Callable[[TaskKey], tuple[Task, Seen] | None]
    keep: Callable[[Task], None]
    note: Callable[[Draft], None]
    call_steward: Callable[[], None]
    tell_steward: Callable[[], None]
    settled: Callable[[], None]
    environment: Mapping[str, str]
