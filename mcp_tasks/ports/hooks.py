"""The contract of what tells of tasks to those who cannot be pushed to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mcp_tasks.models import Hook, TaskKey

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

    def ended(self, key: TaskKey) -> None:
        """A task has become final: look at it soon. Never raises, and waits for nothing."""
        ...

    def waiting(self) -> bool:
        """Whether anything of the store is still to be told, so that somebody has to stay. Never raises."""
        ...
