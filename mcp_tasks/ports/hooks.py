"""The contract of what tells of tasks to those who cannot be pushed to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mcp_tasks.models import Hook, Task, TaskKey

__all__ = ["Hooks"]


class Hooks(Protocol):
    """Keeps what is to be told, and tells it at least once, over restarts. Blocking, for many threads."""

    def armed(self, keys: Sequence[TaskKey], hooks: Sequence[Hook]) -> AbstractContextManager[None]:
        """Have these done for each of the tasks that are registered in the block.

        It is durable when the block begins. Where the block raises, nothing is to be told; what somebody
        armed who was killed in the block is forgotten, unless the task was registered.

        Raises:
            StoreUnavailable: It could not be written.
        """
        ...

    def disarm(self, keys: Sequence[TaskKey]) -> None:
        """These were not registered after all, so there is nothing to be told. Never raises."""
        ...

    def ended(self, task: Task) -> None:
        """A task has become final. What is to be told of it is kept, though it be cleared. Never raises."""
        ...

    def waiting(self) -> bool:
        """Whether anything of the store is still to be told, so that somebody has to stay. Never raises."""
        ...
