"""Samples taken in turns, and what a measurement says about them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Limit", "Measure", "Sample", "Samples", "in_turns", "milliseconds"]

Sample: TypeAlias = Callable[[], Awaitable[float]]
"""Takes one sample; what it returns is in the unit of the measure."""

WARM_UP_ROUNDS = 3


@dataclass(frozen=True)
class Samples:
    """The values of one thing, in the order in which they were taken."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def p95(self) -> float:
        """The value that 95 % of the samples do not exceed."""
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]

    @classmethod
    def sums(cls, *parts: Samples) -> Samples:
        """Add up, turn by turn, things that were sampled in the same turns."""
        return cls(tuple(sum(values) for values in zip(*(part.values for part in parts), strict=True)))

    @classmethod
    def differences(cls, whole: Samples, part: Samples) -> Samples:
        """What is left, turn by turn, of one thing without another that was sampled in the same turns."""
        return cls(tuple(a - b for a, b in zip(whole.values, part.values, strict=True)))


@dataclass(frozen=True)
class Limit:
    """What a measure is to keep to.

    Attributes:
        kind: `at_most` and `at_least` compare the value with `number`; `ratio_at_most` and
            `ratio_at_least` compare the value's ratio to its floor.
    """

    kind: Literal["at_most", "at_least", "ratio_at_most", "ratio_at_least"]
    number: float

    def holds(self, value: float, floor: float | None) -> bool:
        """Whether a median keeps to this."""
        seen = value
        if self.kind.startswith("ratio"):
            if floor is None:
                return False
            seen = value / floor
        return seen <= self.number if self.kind.endswith("at_most") else seen >= self.number


@dataclass(frozen=True)
class Measure:
    """One line of the report.

    Attributes:
        name: For machines; stable.
        title: For people.
        unit: Of value and floor: `ms`, `s`, `MB/s`, `MB`, `/s`, `/ms`.
        floor_title: What the floor is.
        limit: None where nothing is promised.
        note: What else is worth knowing.
    """

    name: str
    title: str
    unit: str
    value: Samples
    floor: Samples | None = None
    floor_title: str = ""
    limit: Limit | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the floor the value is, by medians."""
        return self.value.median / self.floor.median if self.floor and self.floor.median else None

    @property
    def met(self) -> bool | None:
        """Whether the limit holds; None where there is none."""
        if self.limit is None:
            return None
        return self.limit.holds(self.value.median, self.floor.median if self.floor else None)


async def in_turns(rounds: int, samples: Mapping[str, Sample]) -> dict[str, Samples]:
    """Sample several things side by side, so that whatever disturbs one disturbs all.

    In each round everything is sampled once, and each round begins with another thing. The first
    few rounds are not counted.
    """
    taken: dict[str, list[float]] = {name: [] for name in samples}
    names = list(samples)
    warm_up = min(WARM_UP_ROUNDS, rounds)
    for number in range(rounds + warm_up):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            value = await samples[name]()
            if number >= warm_up:
                taken[name].append(value)
    return {name: Samples(tuple(values)) for name, values in taken.items()}


def milliseconds(work: Callable[[], Awaitable[object]]) -> Sample:
    """A sample that tells how long something takes."""

    async def sample() -> float:
        began = time.perf_counter_ns()
        await work()
        return (time.perf_counter_ns() - began) / 1e6

    return sample
