from __future__ import annotations

from itertools import islice

from mcp_tasks.remote.backoff import delays


def test_pauses_double_up_to_a_limit_and_are_drawn_from_all_of_it() -> None:
    longest = list(islice(delays(lambda low, high: high), 40))
    shortest = list(islice(delays(lambda low, high: low), 40))

    assert longest[:4] == [0.1, 0.2, 0.4, 0.8]
    assert longest[-1] == 10.0
    assert set(shortest) == {0.0}


def test_two_clients_do_not_come_back_at_the_same_moments() -> None:
    assert list(islice(delays(), 8)) != list(islice(delays(), 8))
