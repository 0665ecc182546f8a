"""The contract of what tells of tasks to those who cannot be pushed to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mcp_tasks.models import Hook, Task, TaskKey

__all__ = ["Hooks"]


class Hooks(Protocol):
    """Keeps what is to be told, and tells it at least once, over restarts. Blocking, for many threads."""

    def arm(self, key: TaskKey, hooks: Sequence[Hook]) -> None:
        """Have these done for a task that is about to be registered; durable when it returns.

        What is armed for a task that was never registered is forgotten after a while.

        Raises:
            StoreUnavailable: It could not be written.
        """
        ...

    def disarm(self, key: TaskKey) -> None:
        """The task was not registered after all, so there is nothing to be told. Never raises."""
        ...

    def ended(self, task: Task) -> None:
        """A task has become final. What is to be told of it is kept, though it be cleared. Never raises."""
        ...

    def waiting(self) -> bool:
        """Whether anything of the store is still to be told, so that somebody has to stay. Never raises."""
        ...
