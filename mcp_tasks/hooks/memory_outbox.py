"""What is to be told of the tasks of a memory store."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_tasks.hooks.armed import Armed

__all__ = ["MemoryOutbox"]


class MemoryOutbox:
    """An outbox that ends with its process, as the tasks of the memory store do."""

    def __init__(self) -> None:
        self._armed: dict[str, Armed] = {}
        self._ends: dict[str, Mapping[str, Any]] = {}
        self._arming = 0
        self._guard = threading.Lock()

    def listing(self) -> Mapping[str, bool]:
        """See `Outbox`."""
        with self._guard:
            return {task_id: task_id in self._ends for task_id in sorted(self._armed)}

    def has(self, task_id: str) -> bool:
        """See `Outbox`."""
        return task_id in self._armed

    @contextmanager
    def arming(self) -> Iterator[None]:
        """See `Outbox`."""
        with self._guard:
            self._arming += 1
        try:
            yield
        finally:
            with self._guard:
                self._arming -= 1

    def nobody_arms(self) -> bool:
        """See `Outbox`."""
        return self._arming == 0

    def take(self, task_id: str) -> ExitStack | None:  # noqa: ARG002 - see `Outbox`
        """See `Outbox`. There is nobody else."""
        return ExitStack()

    def read(self, task_id: str) -> Armed | None:
        """See `Outbox`."""
        return self._armed.get(task_id)

    def write(self, armed: Armed) -> None:
        """See `Outbox`."""
        with self._guard:
            self._armed[armed.key.task_id] = armed

    def end_of(self, task_id: str) -> Mapping[str, Any] | None:
        """See `Outbox`."""
        return self._ends.get(task_id)

    def keep_end(self, task_id: str, view: Mapping[str, Any]) -> None:
        """See `Outbox`."""
        with self._guard:
            self._ends.setdefault(task_id, view)

    def remove(self, task_id: str) -> None:
        """See `Outbox`."""
        with self._guard:
            self._armed.pop(task_id, None)
            self._ends.pop(task_id, None)

    def sweep(self) -> None:
        """See `Outbox`. Nobody leaves anything here."""
