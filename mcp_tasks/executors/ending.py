"""How a process tree is ended: asked once each, woken, and after its grace killed until nothing is left.

Standard library only.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from mcp_tasks.executors import tree

__all__ = ["TreeEnd"]

_LOOK_AGAIN_S = 0.02
# A tree that replaces itself faster than it can be listed is killed several times without a pause.
_KILL_ROUNDS = 8


class TreeEnd:
    """The end of everything below the process `root`, once somebody has asked for it.

    Args:
        root: This process.
        reap: Collects children that have ended, and says whether any child is left.
    """

    def __init__(self, root: int, reap: Callable[[], bool]) -> None:
        self._root = root
        self._reap = reap
        self._kill_at: float | None = None
        self._due = 0.0
        self._asked: set[int] = set()
        self._signal: int = signal.SIGTERM

    @property
    def is_under_way(self) -> bool:
        """Whether the end has been asked for and something is left."""
        return self._kill_at is not None

    @property
    def due(self) -> float:
        """When to press next, on the monotonic clock."""
        return self._due

    def begin(self, grace_ms: int, group: int | None) -> None:
        """Ask the tree to end, and begin to kill it when the grace is over; the shorter grace counts."""
        now = time.monotonic()
        kill_at = now + grace_ms / 1000
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
        self.press(now, group)

    def ask_with(self, number: int) -> None:
        """Ask those who have been asked already once more, with this signal."""
        self._signal = number
        self._asked.clear()

    def look_now(self) -> None:
        """Somebody has died, so the tree is worth another look at once."""
        self._due = 0.0

    def press(self, now: float, group: int | None) -> None:
        """Do what is due at `now`. `group` is the command's, for platforms without a tree."""
        kill_at = now if self._kill_at is None else self._kill_at
        alive = tree.descendants(self._root, group)
        if now < kill_at:
            self._ask(alive)
        else:
            for _ in range(_KILL_ROUNDS):
                if not alive:
                    break
                tree.kill(alive, self._root)
                alive = tree.descendants(self._root, group)
        if not self._reap() and not alive:
            self._kill_at = None
        self._due = time.monotonic() + _LOOK_AGAIN_S
        if self._kill_at is not None and now < self._kill_at:
            self._due = min(self._due, self._kill_at)

    def _ask(self, alive: list[int]) -> None:
        for pid in alive:
            if pid not in self._asked:
                self._asked.add(pid)
                tree.signal_process(pid, self._signal, self._root)
                # One that is stopped would only hear of it when somebody continues it.
                tree.signal_process(pid, signal.SIGCONT, self._root)
