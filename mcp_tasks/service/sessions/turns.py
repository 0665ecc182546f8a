"""Whose turn it is to change a session: first come, first served, within one server."""

from __future__ import annotations

from weakref import WeakValueDictionary

import anyio

from mcp_tasks.models import SessionKey

__all__ = ["Turns"]


class Turns:
    """One queue per session, for as long as somebody stands in it.

    Calls that change a session or its journal are applied in the order in which they came; sessions do
    not wait for each other. Between servers it is compare-and-set that keeps the order of the writes.
    """

    def __init__(self) -> None:
        # A lock lives as long as a call holds it or waits for it: nothing grows with the sessions seen.
        self._locks: WeakValueDictionary[SessionKey, anyio.Lock] = WeakValueDictionary()

    def of(self, key: SessionKey) -> anyio.Lock:
        """The lock of a session, fair, to be held around what changes it."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = anyio.Lock()
        return lock
