"""How long to wait before the next attempt: exponentially longer, anywhere within that.

Full jitter: of a thousand clients that lost the same server, no two come back at the same moment.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Patience", "delays"]

_FIRST_S: Final = 0.1
_LONGEST_S: Final = 10.0
_DOUBLINGS: Final = 30


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long attempts are made, in seconds, before a server is given up.

    Attributes:
        first_s: While it has not been reached once: an address that is wrong is told soon.
        later_s: Once it has: it is started again, or the network is gone for a moment.
    """

    first_s: float = 10.0
    later_s: float = 300.0


def delays(uniform: Callable[[float, float], float] = random.uniform) -> Iterator[float]:
    """Seconds to wait before the second attempt, the third, and so on without end.

    `uniform` draws a number between two, evenly.
    """
    attempt = 0
    while True:
        yield uniform(0.0, min(_LONGEST_S, _FIRST_S * 2 ** min(attempt, _DOUBLINGS)))
        attempt += 1
