from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp.server.lowlevel import Server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Message

from mcp_tasks.http.sse import SseRoutes, stream_id
from tests.http.test_transports import INITIALIZE, called
from tests.waiting import eventually


class Stream:
    """A stream of events, beside which its client posts. The server's only tool answers when it may."""

    def __init__(self) -> None:
        self.got, self.is_over = b"", False
        self.asked, self.may_answer = anyio.Event(), anyio.Event()
        self.left: list[str] = []
        self.routes = SseRoutes(Server("waits", on_call_tool=self._wait), self.left.append)
        self._app = Starlette(routes=self.routes.routes())
        self._http = httpx2.AsyncClient(transport=httpx2.ASGITransport(self._app), base_url="http://here")

    async def read(self) -> None:
        """Read to the end of the stream."""
        request = httpx2.Request("GET", "http://here/sse")
        scope = {"type": "http", "method": "GET", "path": "/sse", "query_string": b"", "headers": []}
        await self._app({**scope, "headers": request.headers.raw}, self._stay, self._read)

    async def post(self, request: dict[str, Any], spelt: Callable[[str], str] = str) -> int:
        async def told() -> bytes:
            return self.got

        where = (await eventually(told, "where to post")).split(b"data: ")[1].split()[0].decode()
        path, _, session = where.partition("?session_id=")
        return (await self._http.post(path, params={"session_id": spelt(session)}, json=request)).status_code

    async def _stay(self) -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def _read(self, message: Message) -> None:
        self.got += message.get("body", b"")
        self.is_over = message["type"] == "http.response.body" and not message.get("more_body", False)

    async def _wait(self, _: Any, __: types.CallToolRequestParams) -> types.CallToolResult:
        self.asked.set()
        await self.may_answer.wait()
        return types.CallToolResult(content=[types.TextContent(type="text", text="here it is")])


async def test_a_stream_ends_when_its_client_has_what_he_asked_for() -> None:
    stream = Stream()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(stream.read)
            assert [await stream.post(each) for each in (INITIALIZE, called(1, "wait"))] == [202, 202]
            await stream.asked.wait()
            stream.routes.end()
            await anyio.wait_all_tasks_blocked()
            assert not stream.is_over
            stream.may_answer.set()
    assert stream.is_over
    assert b"here it is" in stream.got
    assert len(stream.left) == 1


async def test_a_stream_whose_client_waits_for_nothing_ends_at_once() -> None:
    stream = Stream()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(stream.read)
            assert await stream.post({"jsonrpc": "2.0", "method": "notifications/initialized"}) == 202
            stream.routes.end()
    assert stream.is_over


SPELLINGS: list[Callable[[str], str]] = [
    str,
    str.upper,
    lambda given: str(UUID(given)),
    lambda given: f"{{{given}}}",
    lambda given: f"urn:uuid:{given}",
]


async def test_however_a_stream_is_spelt_what_its_client_has_not_read_counts() -> None:
    stream = Stream()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(stream.read)
            assert await stream.post(INITIALIZE) == 202
            (waiting,) = stream.routes._open.values()
            waiting.answers = 32
            assert [await stream.post(called(1, "wait"), spelt) for spelt in SPELLINGS] == [429] * 5
            waiting.answers = 0
            stream.may_answer.set()
            assert await stream.post(called(1, "wait"), str.upper) == 202
            stream.routes.end()
    assert b"here it is" in stream.got  # what was asked under another name was waited for as well


@pytest.mark.parametrize("spelt", SPELLINGS)
def test_every_spelling_of_a_stream_is_the_same_client(spelt: Callable[[str], str]) -> None:
    plain = "0123456789abcdef0123456789abcdef"
    scope = {"type": "http", "query_string": f"session_id={spelt(plain)}".encode(), "headers": []}
    assert stream_id(Request(scope)) == plain
