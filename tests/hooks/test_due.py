from __future__ import annotations

from dataclasses import replace

import pytest

from mcp_tasks.hooks.armed import Armed, Notice
from mcp_tasks.hooks.due import Seen, earliest, first_due, is_over, next_moment, noticed
from mcp_tasks.hooks.pace import LONGEST_MS, Pace
from mcp_tasks.models import Hook, HookEvent, TaskKey

KEY = TaskKey("owner", "session", "0" * 36)
NOW = 1_700_000_000_000
RUNNING = Seen({"state": "running"}, final=False, run=1, started_at=NOW, timeout_ms=10_000)
OVER = Seen({"state": "completed"}, final=True, run=1)


def armed(*on: HookEvent) -> Armed:
    return Armed(KEY, NOW, (Hook("desktop", on, idle_ms=1_000, before_ms=4_000),))


def told(one: Armed) -> Armed:
    for notice in one.notices:
        one = one.with_notice(notice.over(told=True))
    return one


def events(one: Armed) -> list[tuple[HookEvent, str]]:
    return [(notice.event, notice.mark) for notice in one.notices if notice.next_at is not None]


@pytest.mark.parametrize(
    ("on", "seen", "after", "expected"),
    [
        ("end", RUNNING, 0, []),
        ("end", OVER, 0, [("end", "end")]),
        ("idle", RUNNING, 999, []),
        ("idle", RUNNING, 1_000, [("idle", f"1.{NOW}")]),
        ("idle", replace(RUNNING, output_at=NOW + 500), 1_499, []),
        ("idle", replace(RUNNING, output_at=NOW + 500), 1_500, [("idle", f"1.{NOW + 500}")]),
        ("idle", replace(RUNNING, started_at=None), 5_000, []),
        ("idle", OVER, 5_000, []),
        ("deadline", RUNNING, 5_999, []),
        ("deadline", RUNNING, 6_000, [("deadline", "1")]),
        ("deadline", replace(RUNNING, run=2), 6_000, [("deadline", "2")]),
        ("deadline", replace(RUNNING, timeout_ms=1_000), 0, [("deadline", "1")]),
        ("deadline", replace(RUNNING, timeout_ms=None), 9_000, []),
        ("deadline", OVER, 9_000, []),
        ("end", None, 9_000, []),
    ],
)
def test_what_is_to_be_told_follows_from_what_was_seen_and_the_time(
    on: HookEvent, seen: Seen | None, after: int, expected: list[tuple[HookEvent, str]]
) -> None:
    seen = None if seen is None else replace(seen, elapsed_ms=after)
    assert events(noticed(armed(on), seen, NOW + after)) == expected


def running(after: int, output_at: int | None = None) -> Seen:
    return replace(RUNNING, elapsed_ms=after, output_at=output_at)


def test_nothing_is_noticed_twice_and_a_new_silence_is_another() -> None:
    one = noticed(armed("idle", "end"), running(2_000), NOW + 2_000)
    assert noticed(one, running(3_000), NOW + 3_000) == one
    again = noticed(told(one), running(4_000), NOW + 4_000)
    assert events(again) == []
    other = noticed(again, running(6_000, NOW + 5_000), NOW + 6_000)
    assert events(other) == [("idle", f"1.{NOW + 5_000}")]
    assert len(other.notices) == 1


def test_while_a_silence_is_still_to_be_told_no_other_is_noticed() -> None:
    one = noticed(armed("idle"), running(2_000), NOW + 2_000)
    other = noticed(one, running(6_000, NOW + 5_000), NOW + 6_000)
    assert other == one
    assert next_moment(other, running(6_000, NOW + 5_000), NOW + 6_000) == NOW + 2_000
    assert events(noticed(told(other), running(6_000, NOW + 5_000), NOW + 6_000)) == [
        ("idle", f"1.{NOW + 5_000}")
    ]


@pytest.mark.parametrize("jump", [3_600_000, 10**9])
def test_a_clock_that_is_put_forward_makes_no_silence_and_no_deadline(jump: int) -> None:
    one = armed("idle", "deadline")
    assert events(noticed(one, running(900), NOW + 900 + jump)) == []
    assert next_moment(one, running(900), NOW + 900 + jump) == NOW + 1_000 + jump
    assert [event for event, _ in events(noticed(one, running(6_000), NOW - jump))] == ["deadline"]


def test_what_was_put_off_before_the_clock_was_set_back_is_told_at_once() -> None:
    waiting = Notice("a", 0, "end", "end", NOW, next_at=NOW + LONGEST_MS)
    one = replace(armed("end"), notices=(waiting,))
    assert first_due(one, NOW) is None
    assert first_due(one, NOW - 1) is waiting


def test_the_oldest_is_told_first_and_what_waits_is_not_due() -> None:
    early, late = (
        Notice("a", 0, "idle", "1", NOW, next_at=NOW),
        Notice("b", 0, "end", "end", NOW + 5, next_at=NOW),
    )
    waiting = Notice("c", 0, "idle", "0", NOW - 5, next_at=NOW + 1)
    one = replace(armed("end"), notices=(late, waiting, early))
    assert first_due(one, NOW) is early
    assert first_due(replace(one, notices=(waiting,)), NOW) is None
    assert next_moment(replace(one, notices=(waiting,)), None, NOW) == NOW + 1


def test_the_next_moment_is_the_nearest_of_silence_and_deadline() -> None:
    one = armed("idle", "deadline")
    assert next_moment(one, RUNNING, NOW) == NOW + 1_000
    later = running(2_000)
    assert next_moment(told(noticed(one, later, NOW + 2_000)), later, NOW + 2_000) == NOW + 6_000
    assert next_moment(armed("end"), RUNNING, NOW) is None
    assert next_moment(armed("end"), None, NOW) is None


def test_of_a_task_that_waits_nothing_is_told_before_its_start_and_the_shortest_span() -> None:
    waiting = replace(RUNNING, started_at=None)
    assert earliest(armed("end"), waiting) is None
    assert earliest(armed("idle", "end"), waiting) == 1_000
    assert earliest(armed("deadline"), waiting) == 6_000
    assert earliest(armed("deadline"), replace(waiting, timeout_ms=3_000)) == 0
    assert earliest(armed("deadline"), replace(waiting, timeout_ms=None)) is None


def test_it_is_over_when_the_task_is_and_everything_was_told() -> None:
    one = noticed(armed("end"), OVER, NOW)
    assert not is_over(one, OVER, lost=False)
    assert is_over(told(one), OVER, lost=False)
    assert not is_over(armed("end"), RUNNING, lost=False)
    assert is_over(armed("idle"), OVER, lost=False)
    assert not is_over(armed("end"), None, lost=False)
    assert is_over(armed("end"), None, lost=True)
    assert not is_over(one, None, lost=True)


def test_pauses_double_up_to_an_hour_and_are_left_to_chance_by_half() -> None:
    pace = Pace()
    for attempts in range(1, 100):
        longest = min(2_000 * 2 ** (attempts - 1), 3_600_000)
        assert longest // 2 <= pace.pause(attempts) <= longest
    assert len({pace.pause(5) for _ in range(50)}) > 10
