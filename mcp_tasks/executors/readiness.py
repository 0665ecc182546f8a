"""Who is called when a descriptor is ready. Standard library only."""

from __future__ import annotations

import select
from collections.abc import Callable

__all__ = ["Readiness"]


class Readiness:
    """A poll(2) set with a handler for each descriptor."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], object]] = {}

    def on(self, descriptor: int, handler: Callable[[], object], events: int = select.POLLIN) -> None:
        """Call `handler` from now on whenever the descriptor is ready; it replaces an earlier one."""
        self._poll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def off(self, descriptor: int) -> None:
        """Stop watching a descriptor; harmless when it is not watched."""
        if self._handlers.pop(descriptor, None):
            self._poll.unregister(descriptor)

    def wait(self, timeout_ms: float | None) -> None:
        """Wait until something is ready, and call whom it concerns."""
        for descriptor, _ in self._poll.poll(timeout_ms):
            # A handler that was called before may have stopped this one.
            if handler := self._handlers.get(descriptor):
                handler()
