"""serve_stdio over pipes of the test's own, in front of a service that does nothing."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_tasks.server.stdio import serve_stdio
from mcp_tasks.server.wire import MAX_LINE, Wire
from tests.server.fakes import FakeService, FakeSettings

pytestmark = pytest.mark.anyio

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


def call(request_id: int | str, tool: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


class Peer:
    """The client's ends of the pipes."""

    def __init__(self, to_server: int, from_server: int) -> None:
        os.set_blocking(to_server, False)
        self._to_server: int | None = to_server
        self._from_server: int | None = from_server
        self._received = b""

    async def send(self, *messages: dict[str, Any] | bytes) -> None:
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
            while line:
                assert self._to_server is not None
                await anyio.wait_writable(self._to_server)
                line = line[os.write(self._to_server, line) :]

    async def receive(self) -> dict[str, Any]:
        while b"\n" not in self._received:
            assert self._from_server is not None
            chunk = await anyio.to_thread.run_sync(os.read, self._from_server, 65_536, abandon_on_cancel=True)
            assert chunk, "the server has closed its stdout"
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        return message

    async def handshake(self) -> None:
        await self.send(INITIALIZE, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert (await self.receive())["id"] == 0

    def hang_up(self) -> None:
        if self._to_server is not None:
            os.close(self._to_server)
            self._to_server = None

    def stop_reading(self) -> None:
        if self._from_server is not None:
            os.close(self._from_server)
            self._from_server = None


@asynccontextmanager
async def served(service: FakeService) -> AsyncIterator[Peer]:
    """A server in this process; it has to end by itself once the client has hung up."""
    server_in, client_out = os.pipe()
    client_in, server_out = os.pipe()
    peer = Peer(client_out, client_in)

    async def serve() -> None:
        wire = Wire(server_in, server_out)
        try:
            await serve_stdio(service.as_service(), FakeSettings(), wire=wire, exit_seconds=None)
        finally:
            os.close(server_in)
            os.close(server_out)

    try:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(serve)
                await peer.handshake()
                yield peer
                peer.hang_up()
    finally:
        peer.hang_up()
        peer.stop_reading()


async def test_a_call_is_answered_and_the_end_of_stdin_is_the_end() -> None:
    async with served(FakeService()) as peer:
        await peer.send(call(1, "poll_task", id="x"))
        answer = await peer.receive()
    assert answer["id"] == 1
    assert answer["result"]["structuredContent"]["state"] == "running"


async def test_garbage_is_answered_and_the_server_goes_on() -> None:
    async with served(FakeService()) as peer:
        await peer.send(os.urandom(1_000_000).replace(b"\n", b"x") + b"\n")
        assert (await peer.receive())["error"]["code"] == -32700
        await peer.send(b"\xff\xfe\n\n  \r\n[]\n", call("a", "poll_task", id="x"))
        assert (await peer.receive())["error"]["code"] == -32700
        assert (await peer.receive())["error"]["code"] == -32600
        assert (await peer.receive())["id"] == "a"


async def test_a_message_that_is_too_long_is_refused_by_its_id() -> None:
    async with served(FakeService()) as peer:
        head = b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"'
        await peer.send(head + b"x" * MAX_LINE + b'"}}\n')
        refused = await peer.receive()
        assert (refused["id"], refused["error"]["code"]) == (5, -32600)
        await peer.send(call(6, "poll_task", id="x"))
        assert (await peer.receive())["id"] == 6


async def test_requests_in_flight_are_answered_when_stdin_closes_right_after_them() -> None:
    service = FakeService(waits=True)
    async with served(service) as peer:
        await peer.send(call(1, "poll_task", id="x"))
        await service.waiting.wait()
        peer.hang_up()
        service.release.set()
        answer = await peer.receive()
    assert "result" in answer


async def test_a_wait_does_not_keep_the_server_after_its_client() -> None:
    service = FakeService(waits=True)
    async with served(service) as peer:
        await peer.send(call(1, "poll_task", id="x"))
        await service.waiting.wait()
        peer.hang_up()
        await service.cancelled.wait()
        assert "error" in await peer.receive()


async def test_a_cancelled_request_is_not_waited_for() -> None:
    service = FakeService(waits=True)
    async with served(service) as peer:
        await peer.send(call(1, "poll_task", id="x"))
        await service.waiting.wait()
        await peer.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        await service.cancelled.wait()


async def test_a_client_that_never_reads_is_not_read_for_ever_and_can_go() -> None:
    big = {"task_id": "x", "state": "running", "stdout": "y" * 200_000}
    service = FakeService(lambda _: big)
    async with served(service) as peer:
        with anyio.move_on_after(1) as scope:
            for number in range(10_000):
                await peer.send(call(number, "poll_task", id="x"))
        assert scope.cancelled_caught, "the server took everything"
        assert len(service.calls) < 2_000


async def test_a_client_that_stops_reading_ends_the_server() -> None:
    async with served(FakeService()) as peer:
        peer.stop_reading()
        await peer.send(call(1, "poll_task", id="x"))
