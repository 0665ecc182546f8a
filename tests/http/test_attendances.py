from __future__ import annotations

from typing import cast

from mcp_tasks.http.attendances import Attendances
from mcp_tasks.service import Attendance


class Noted:
    """An attendance that notes whether it was closed."""

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Desk:
    def __init__(self) -> None:
        self.made: list[Noted] = []

    def attend(self, transport: str) -> Attendance:
        self.made.append(Noted(transport))
        return cast("Attendance", self.made[-1])

    @property
    def closed(self) -> list[bool]:
        return [each.closed for each in self.made]


async def test_who_calls_again_is_the_same_client_and_who_calls_himself_otherwise_another() -> None:
    desk = Desk()
    attendances = Attendances(desk.attend)
    first = attendances.of("http", "me", "agent", "1")
    assert attendances.of("http", "me", "agent", "1") is first
    assert attendances.of("http", "you", "agent", "1") is not first
    assert attendances.of("sse", "me", "agent", "1") is not first
    assert [each.transport for each in desk.made] == ["http", "http", "sse"]
    await attendances.close()
    assert desk.closed == [True, True, True]


async def test_of_more_than_there_is_room_for_the_longest_silent_ones_count_as_gone() -> None:
    desk = Desk()
    attendances = Attendances(desk.attend, most=2)
    attendances.of("http", "a")
    attendances.of("http", "b")
    attendances.of("http", "a")
    attendances.of("http", "c")
    await attendances.sweep()
    assert desk.closed == [False, True, False]
    await attendances.close()


async def test_who_has_left_or_was_silent_for_too_long_is_written_down() -> None:
    desk = Desk()
    attendances = Attendances(desk.attend)
    attendances.of("sse", "a")
    attendances.of("sse", "b")
    attendances.left("sse", "a")
    attendances.left("sse", "nobody")
    await attendances.sweep()
    assert desk.closed == [True, False]
    await attendances.close()

    silent = Attendances(desk.attend, idle_s=-1.0)  # whoever has called has been silent for too long
    silent.of("http", "c")
    await silent.sweep()
    assert desk.closed == [True, True, True]
