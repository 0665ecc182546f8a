from __future__ import annotations

import pytest

from mcp_tasks.bench.samples import Limit, Measure, Samples, in_turns

pytestmark = pytest.mark.anyio


def measure(value: float, floor: float | None, limit: Limit | None) -> Measure:
    beside = Samples((floor,)) if floor is not None else None
    return Measure("x", "x", "ms", Samples((value,)), beside, limit=limit)


def test_the_95th_percentile_is_a_value_that_was_seen() -> None:
    samples = Samples(tuple(float(number) for number in range(1, 101)))
    assert (samples.median, samples.p95) == (50.5, 96.0)
    assert Samples((7.0,)).p95 == 7.0


def test_a_sum_of_samples_adds_what_was_taken_in_the_same_turn() -> None:
    assert Samples.sums(Samples((1.0, 2.0)), Samples((10.0, 20.0))).values == (11.0, 22.0)


@pytest.mark.parametrize(
    ("limit", "value", "floor", "met"),
    [
        (Limit("ratio_at_most", 1.5), 3.0, 2.0, True),
        (Limit("ratio_at_most", 1.5), 3.1, 2.0, False),
        (Limit("ratio_at_least", 0.8), 8.0, 10.0, True),
        (Limit("ratio_at_least", 0.8), 7.0, 10.0, False),
        (Limit("at_most", 6.0), 6.0, None, True),
        (Limit("at_most", 6.0), 6.1, 1.0, False),
        (Limit("at_least", 6.0), 6.1, None, True),
        (Limit("ratio_at_most", 1.5), 3.0, None, False),
        (None, 3.0, 2.0, None),
    ],
)
def test_a_target_is_met_by_the_median_and_its_floor(
    limit: Limit | None, value: float, floor: float | None, met: bool | None
) -> None:
    assert measure(value, floor, limit).met is met


def test_without_a_floor_there_is_no_ratio() -> None:
    assert measure(3.0, None, None).ratio is None
    assert measure(3.0, 2.0, None).ratio == 1.5


async def test_everything_is_sampled_once_a_round_and_each_takes_its_turn_at_being_first() -> None:
    order: list[str] = []

    def sample(name: str) -> float:
        order.append(name)
        return float(len(order))

    async def first() -> float:
        return sample("a")

    async def second() -> float:
        return sample("b")

    taken = await in_turns(4, {"a": first, "b": second})

    rounds = ["".join(order[at : at + 2]) for at in range(0, len(order), 2)]
    assert rounds == ["ab", "ba", "ab", "ba", "ab", "ba", "ab"]
    assert [len(samples.values) for samples in taken.values()] == [4, 4]
    assert taken["a"].values[0] > 6  # the first three rounds warm up
