"""How often, and for how long, telling is tried."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

__all__ = ["LONGEST_MS", "Pace"]

LONGEST_MS: Final = 3_600_000
"""No pause is longer, whatever a receiver asks for."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When to try again, and when to give up.

    Attributes:
        first_ms: Before the second attempt; each further pause is twice as long.
        longest_ms: No pause is longer; at most LONGEST_MS.
        give_up_ms: After what happened, when nobody tries any more.
        at_least: How often a webhook is tried all the same. The machine may have been off or asleep for so
            long, and the network not be there yet.
        programs: How often a command or a notification is tried, in all: it was run, and has failed.
        command_s: How long the command of a hook may take.
        notify_s: The same for a notification.
    """

    first_ms: int = 2_000
    longest_ms: int = LONGEST_MS
    give_up_ms: int = 86_400_000
    at_least: int = 12
    programs: int = 5
    command_s: float = 60.0
    notify_s: float = 10.0

    def pause(self, attempts: int) -> int:
        """Milliseconds before the next attempt. Half is left to chance, so that not all come at once."""
        longest: int = min(self.first_ms << min(attempts - 1, 40), self.longest_ms)
        return longest // 2 + random.randrange(longest // 2 + 1)  # noqa: S311 - it is no secret
