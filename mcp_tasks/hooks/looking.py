"""Tasks as hooks see and tell them: the view of a list, without any output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mcp_tasks.clock import Clock
from mcp_tasks.errors import TaskNotFound
from mcp_tasks.models import Task, TaskKey
from mcp_tasks.ports import Supervised
from mcp_tasks.presenting import Presenter
from mcp_tasks.reconcile import Reconciler, Sight

if TYPE_CHECKING:
    from mcp_tasks.hooks.due import Seen  # costs start-up time

__all__ = ["Looking"]

_NEVER_TOLD = ("next", "next_cursor", "key")
"""What serves whoever polls, and what he calls his start."""


class Looking:
    """Looks at tasks. Blocking."""

    def __init__(self, reconciler: Reconciler, presenter: Presenter, clock: Clock) -> None:
        self._reconciler = reconciler
        self._presenter = presenter
        self._clock = clock

    def look(self, key: TaskKey) -> tuple[Task, Seen] | None:
        """A task as it is now; None where there is none. Raises TasksError."""
        from mcp_tasks.hooks.due import Seen

        try:
            sight = self._reconciler.look(key)
        except TaskNotFound:
            return None
        task, seen = sight.task, sight.seen
        return task, Seen(
            self._view(sight),
            final=task.is_final,
            run=task.begun,
            started_at=seen.started_at if isinstance(seen, Supervised) else None,
            elapsed_ms=self._clock.mono_ms() - seen.started_mono if isinstance(seen, Supervised) else 0,
            output_at=self._presenter.output(task).last_output_at(),
            timeout_ms=task.spec.timeout_ms,
        )

    def describe(self, task: Task) -> Mapping[str, Any]:
        """The view of a task that is final."""
        return self._view(Sight(task, None))

    def _view(self, sight: Sight) -> dict[str, Any]:
        [view] = self._presenter.summaries([sight])
        return {name: value for name, value in view.items() if name not in _NEVER_TOLD}
