"""The clocks and the source of ids, in one place so that they can be handed in."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

__all__ = ["Clock", "new_task_id", "rfc3339"]

# Crockford's base 32, lower case: no letter that reads like a digit, and it sorts like the number.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_CHARACTERS = 10
_RANDOM_CHARACTERS = 26


class Clock:
    """The machine's clocks, and the ids that are made of them. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest = 0

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def new_task_id(self) -> str:
        """An id that sorts after every one before, whatever somebody does to the wall clock."""
        with self._lock:
            self._newest = max(self._newest + 1, self.now_ms())
            return new_task_id(self._newest)

    def mono_ms(self) -> int:
        """CLOCK_MONOTONIC in milliseconds: the same for every process until the next boot."""
        return time.monotonic_ns() // 1_000_000

    @cached_property
    def boot_id(self) -> str:
        """Changes with every boot of the machine."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            import psutil

            return str(int(psutil.boot_time()))


def new_task_id(now_ms: int) -> str:
    """Make an id that sorts by time and holds 130 random bits."""
    random = int.from_bytes(os.urandom(17), "big")
    return _base32(now_ms, _TIME_CHARACTERS) + _base32(random, _RANDOM_CHARACTERS)


def rfc3339(moment_ms: int) -> str:
    """Write a moment as RFC 3339 in UTC, with milliseconds."""
    moment = datetime.fromtimestamp(moment_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment_ms % 1000:03d}Z"


def _base32(number: int, length: int) -> str:
    characters = []
    for _ in range(length):
        number, digit = divmod(number, 32)
        characters.append(_ALPHABET[digit])
    return "".join(reversed(characters))
