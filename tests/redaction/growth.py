"""How the cost of something grows with what it is given."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["growth"]

_ROUNDS = 3
_LEAST_S = 0.002
"""What takes less is not told apart from nothing."""


def growth(work: Callable[[str], object], small: str, large: str) -> float:
    """How many times as long the large text takes as the small one, in processor time of this thread."""
    work(small)
    return _cost(work, large, 1) / max(_cost(work, small, _ROUNDS), _LEAST_S)


def _cost(work: Callable[[str], object], text: str, rounds: int) -> float:
    costs = []
    for _ in range(rounds):
        began = time.thread_time()
        work(text)
        costs.append(time.thread_time() - began)
    return max(costs)
