"""Bounded waits for conditions: what a test does instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

__all__ = ["eventually", "wait_until"]

T = TypeVar("T")

_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05


def wait_until(predicate: Callable[[], T], description: str, timeout: float = 10.0) -> T:
    """Ask `predicate` until it answers something true, and return that.

    Args:
        predicate: Asked at growing intervals of 1 to 50 ms.
        description: Completes the sentence "waited N s until ...".
        timeout: In seconds.

    Raises:
        AssertionError: The time is over.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while not (answer := predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout} s until {description}")
        time.sleep(pause)  # sleep: this is the one bounded wait that tests share
        pause = min(pause * 2, _LONGEST_PAUSE)
    return answer


async def eventually(predicate: Callable[[], Awaitable[T]], description: str, seconds: float = 10.0) -> T:
    """As `wait_until`, for a predicate that is awaited, within an event loop."""
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while not (answer := await predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {seconds} s until {description}")
        await anyio.sleep(pause)  # sleep: this is the one bounded wait that tests share
        pause = min(pause * 2, _LONGEST_PAUSE)
    return answer
