"""Connections that only take up room, with real sockets and little patience."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
import uvicorn
from anyio.abc import SocketStream
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from mcp_tasks.http.connections import Connection
from tests.waiting import eventually

GET = b"GET /%s HTTP/1.1\r\nHost: here\r\n\r\n"
PATIENCE_S = 0.3


class Impatient(Connection):
    stall_s = PATIENCE_S
    silence_s = PATIENCE_S


class App:
    """Answers /, and at /much without end; it knows what goes on."""

    def __init__(self) -> None:
        self.running = 0
        self.sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.running += 1
        try:
            if scope["path"] == "/much":
                await StreamingResponse(self._without_end())(scope, receive, send)
                return
            while (await receive()).get("more_body"):
                pass
            await PlainTextResponse("here")(scope, receive, send)
        finally:
            self.running -= 1

    async def _without_end(self) -> AsyncIterator[bytes]:
        while True:
            self.sent += 65_536
            yield b"x" * 65_536
            await asyncio.sleep(0)


@asynccontextmanager
async def serving(
    app: App, most: int = 10
) -> AsyncIterator[tuple[Callable[[], Awaitable[SocketStream]], ServerState]]:
    config = uvicorn.Config(app, ws="none", log_config=None, limit_concurrency=most)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    make = functools.partial(Impatient, config=config, server_state=state, app_state={})
    server = await loop.create_server(make, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()

    async def connect() -> SocketStream:
        return await anyio.connect_tcp(host, port)

    try:
        with anyio.fail_after(30):
            yield connect, state
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await eventually(lambda: _is(not state.tasks), "every request is over")


async def read_to_end(stream: SocketStream) -> bytes:
    got = b""
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            got += await stream.receive()
    return got


async def test_a_client_that_does_not_read_is_cut_and_costs_little_until_then() -> None:
    app = App()
    async with serving(app) as (connect, state), await connect() as client:
        await client.send(GET % b"much")
        await eventually(lambda: _is(not state.connections and not app.running and app.sent), "it is cut")
        assert app.sent < 64 * 2**20


async def test_a_client_that_reads_slowly_is_not_cut() -> None:
    app = App()
    async with serving(app) as (connect, state), await connect() as client:
        await client.send(GET % b"much")
        began = anyio.current_time()
        while anyio.current_time() - began < PATIENCE_S * 3:
            assert await client.receive(262_144)
            await asyncio.sleep(PATIENCE_S / 20)  # sleep: to be slow is the matter here
        assert len(state.connections) == 1


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTT", b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\nhalf"],
    ids=["nothing", "half of the headers", "half of the body"],
)
async def test_a_client_that_leaves_a_request_half_sent_is_cut(sent: bytes) -> None:
    app = App()
    async with serving(app) as (connect, state), await connect() as client:
        if sent:
            await client.send(sent)
        assert await read_to_end(client) == b""
        await eventually(lambda: _is(not state.connections and not app.running), "nothing is left")


async def test_a_slow_body_has_its_time_for_each_part_and_slow_headers_as_a_whole() -> None:
    head = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\n"
    async with serving(App()) as (connect, _), await connect() as client:
        await client.send(head)
        for _byte in range(10):
            await asyncio.sleep(PATIENCE_S / 5)  # sleep: to be slow is the matter here
            await client.send(b"x")
        assert b"200 OK" in await client.receive()

    async with serving(App()) as (connect, _), await connect() as client:
        sent = 0
        with suppress(anyio.BrokenResourceError):
            for sent in range(len(head)):
                await client.send(head[sent : sent + 1])
                await asyncio.sleep(PATIENCE_S / 5)  # sleep: as above
        assert sent < len(head) - 1


async def test_a_connection_that_waits_for_its_next_request_is_let_be() -> None:
    async with serving(App()) as (connect, _), await connect() as client:
        for _request in range(2):
            await client.send(GET % b"")
            assert b"200 OK" in await client.receive()
            await asyncio.sleep(PATIENCE_S * 1.5)  # sleep: longer than a request may take


async def test_one_connection_too_many_is_told_so_and_the_others_are_served() -> None:
    async with (
        serving(App(), most=2) as (connect, state),
        await connect() as first,
        await connect() as second,
    ):
        for client in (first, second):
            await client.send(GET % b"")
            assert b"200 OK" in await client.receive()
        async with await connect() as third:
            refusal = await read_to_end(third)
        assert refusal.startswith(b"HTTP/1.1 503")
        headers, _, body = refusal.partition(b"\r\n\r\n")
        assert b"content-length: %d" % len(body) in headers
        assert json.loads(body)["detail"] == "too many connections"
        assert len(state.connections) == 2
        await first.send(GET % b"")
        assert b"200 OK" in await first.receive()


async def _is(value: object) -> object:
    return value
