from __future__ import annotations

import gc
from typing import Any

import anyio
import mcp_types as types
from mcp.server.streamable_http import GET_STREAM_KEY, EventMessage

from mcp_tasks.http.event_store import EventRoom, SessionEvents


def progress(number: int) -> types.JSONRPCNotification:
    return types.JSONRPCNotification(
        jsonrpc="2.0", method="notifications/progress", params={"progress": number}
    )


def result(request_id: int, **content: Any) -> types.JSONRPCResponse:
    return types.JSONRPCResponse(jsonrpc="2.0", id=request_id, result=content)


class Client:
    """What a client that came back has been sent."""

    def __init__(self) -> None:
        self.got: list[EventMessage] = []

    async def __call__(self, event: EventMessage) -> None:
        self.got.append(event)

    @property
    def messages(self) -> list[Any]:
        return [event.message for event in self.got]


async def test_what_came_after_an_event_is_sent_again_in_order_up_to_the_answer() -> None:
    events = SessionEvents(EventRoom())
    first = await events.store_event("1", None)
    await events.store_event("2", progress(7))
    second = await events.store_event("1", progress(1))
    await events.store_event("1", result(1, done=True))

    client, later = Client(), Client()
    assert await events.replay_events_after(first, client) is None
    assert client.messages == [progress(1), result(1, done=True)]
    assert client.got[0].event_id == second
    await events.replay_events_after(second, later)
    assert later.messages == [result(1, done=True)]
    last = Client()
    assert await events.replay_events_after(later.got[0].event_id or "", last) is None
    assert last.got == []


async def test_a_client_that_is_back_before_the_answer_gets_all_that_still_comes() -> None:
    events = SessionEvents(EventRoom())
    first = await events.store_event("1", None)
    client = Client()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(events.replay_events_after, first, client)
            for number in range(3):
                await anyio.lowlevel.checkpoint()
                await events.store_event("1", progress(number))
                await events.store_event("2", progress(100))
            await events.store_event("1", result(1))
    assert client.messages == [progress(0), progress(1), progress(2), result(1)]


async def test_who_waits_for_more_does_so_until_the_session_ends() -> None:
    events = SessionEvents(EventRoom())
    first = await events.store_event("1", None)
    client = Client()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(events.replay_events_after, first, client)
            await anyio.lowlevel.checkpoint()
            await events.store_event("1", progress(1))
            events.end()
    assert client.messages == [progress(1)]


async def test_on_the_stream_that_is_no_requests_the_sdk_goes_on() -> None:
    events = SessionEvents(EventRoom())
    first = await events.store_event(GET_STREAM_KEY, progress(1))
    await events.store_event(GET_STREAM_KEY, progress(2))
    client = Client()
    assert await events.replay_events_after(first, client) == GET_STREAM_KEY
    assert client.messages == [progress(2)]


async def test_an_id_of_another_session_or_of_nobody_opens_nothing() -> None:
    room = EventRoom()
    mine, others = SessionEvents(room), SessionEvents(room)
    theirs = await others.store_event("1", progress(1))
    await others.store_event("1", result(1))
    for event_id in (theirs, "", "1"):
        client = Client()
        assert await mine.replay_events_after(event_id, client) is None
        assert client.got == []


async def test_all_sessions_together_take_no_more_than_their_room() -> None:
    room = EventRoom(most_bytes=100_000)
    old, new = SessionEvents(room), SessionEvents(room)
    first = await old.store_event("1", None)
    for number in range(300):
        await new.store_event("1", result(1, text="x" * 1_000, number=number))
        assert room.bytes <= 100_000
    client = Client()
    await old.replay_events_after(first, client)
    assert client.got == []


async def test_one_session_keeps_a_bounded_number_and_what_is_gone_is_skipped() -> None:
    events = SessionEvents(EventRoom())
    first = await events.store_event("1", progress(0))
    for number in range(1_500):
        await events.store_event("1", progress(number))
    client = Client()
    assert await events.replay_events_after(first, client) is None
    assert client.got == []


async def test_what_a_session_that_is_over_held_is_forgotten() -> None:
    room = EventRoom(most_bytes=50_000)
    over = SessionEvents(room)
    await over.store_event("1", result(1, text="x" * 20_000))
    del over
    gc.collect()
    going_on = SessionEvents(room)
    for _ in range(5):
        await going_on.store_event("1", result(1, text="x" * 20_000))
    assert room.bytes <= 50_000
