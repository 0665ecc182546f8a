"""Looking at one thing for all who listen.

Everybody who watches the same task, or the same session, shares one look-out: five hundred clients that
watch one command cost one descriptor and one wake-up.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio
import anyio.abc

from mcp_tasks.errors import InternalError

__all__ = ["Bell", "LookOut", "LookOuts"]

_log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True, eq=False)
class Bell(Generic[K, V]):
    """Rung for one listener; remembers what was seen last of each thing that it was rung for."""

    rung: dict[K, V] = field(default_factory=dict)
    _event: anyio.Event = field(default_factory=anyio.Event)
    _broken: bool = False

    def ring(self, key: K, seen: V) -> None:
        """Tell the listener what has been seen of a thing."""
        self.rung[key] = seen
        self._event.set()

    def break_off(self) -> None:
        """Tell the listener that there is nobody any more who looks."""
        self._broken = True
        self._event.set()

    async def wait(self) -> dict[K, V]:
        """What it was rung for since the last time; waits for the first.

        Raises:
            InternalError: Nobody looks any more.
        """
        await self._event.wait()
        if self._broken:
            raise InternalError("what is listened to cannot be looked at", "the server's log has the details")
        rung, self.rung = self.rung, {}
        self._event = anyio.Event()
        return rung


@dataclass(slots=True, eq=False)
class LookOut(Generic[K, V]):
    """Looks at one thing for all who listen. They go by what it has seen, so that nobody is ahead of it."""

    key: K
    bells: set[Bell[K, V]] = field(default_factory=set)
    seen: list[V] = field(default_factory=list)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def join(self, bell: Bell[K, V]) -> None:
        """Have a bell rung, at once for what has been seen already."""
        self.bells.add(bell)
        for seen in self.seen:
            bell.ring(self.key, seen)

    def tell(self, seen: V) -> None:
        """Ring for something new."""
        self.seen = [seen]
        for bell in self.bells:
            bell.ring(self.key, seen)


class LookOuts(Generic[K, V]):
    """At most one look-out for each thing, for as long as anybody listens.

    Args:
        look: Tells what it sees, until there is no more to be seen.
    """

    def __init__(self, look: Callable[[LookOut[K, V]], Awaitable[None]]) -> None:
        self._look = look
        self._posted: dict[K, LookOut[K, V]] = {}

    def __len__(self) -> int:
        return len(self._posted)

    def join(self, group: anyio.abc.TaskGroup, key: K, bell: Bell[K, V]) -> None:
        """Have the bell rung for what is seen of `key`, now and each time that it changes."""
        look_out = self._posted.get(key)
        if look_out is None:
            look_out = self._posted[key] = LookOut(key)
            group.start_soon(self._stand, look_out)
        look_out.join(bell)

    def leave(self, key: K, bell: Bell[K, V]) -> None:
        """Ring it no more."""
        look_out = self._posted.get(key)
        if look_out is not None:
            look_out.bells.discard(bell)
            if not look_out.bells:
                del self._posted[key]
                look_out.scope.cancel()

    async def _stand(self, look_out: LookOut[K, V]) -> None:
        with look_out.scope:
            try:
                await self._look(look_out)
            except Exception:  # noqa: BLE001 - nobody else is above it but all the others
                # Those who listen are told; everybody else goes on being served.
                _log.exception("a look-out has broken down")
                for bell in look_out.bells:
                    bell.break_off()
            finally:
                # Who joins from now on has another one posted.
                if self._posted.get(look_out.key) is look_out:
                    del self._posted[look_out.key]
