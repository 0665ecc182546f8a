from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp
from starlette.types import Receive, Scope, Send

from mcp_tasks.http.mcp_sessions import McpSessions
from mcp_tasks.http.principals import Principal
from tests.http.test_transports import INITIALIZE, POSTED, called

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


class Clients:
    """Clients of a server whose only tool answers when it may."""

    def __init__(self, most: int) -> None:
        self.left: list[str] = []
        self.asked, self.may_answer = anyio.Event(), anyio.Event()
        self.sessions = McpSessions(Server("waits", on_call_tool=self._wait), self.left.append, most=most)
        self._app = StreamableHTTPASGIApp(self.sessions)
        self._http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self._as_somebody), base_url="http://here", headers=POSTED
        )

    async def open(self, who: str = "me") -> str:
        """Open a session; its id, or what was wrong."""
        hello = await self._http.post("/mcp", json=INITIALIZE, headers={"who": who})
        return hello.headers.get("mcp-session-id") or str(hello.status_code)

    async def ask(self, session_id: str, request: dict[str, Any], who: str = "me") -> int:
        headers = {"who": who, "mcp-session-id": session_id}
        return (await self._http.post("/mcp", json=request, headers=headers)).status_code

    async def _as_somebody(self, scope: Scope, receive: Receive, send: Send) -> None:
        who = dict(scope["headers"])[b"who"].decode()
        await self._app({**scope, "user": Principal(who).as_user("", client_id=who)}, receive, send)

    async def _wait(self, _: Any, __: types.CallToolRequestParams) -> types.CallToolResult:
        self.asked.set()
        await self.may_answer.wait()
        return types.CallToolResult(content=[])


@asynccontextmanager
async def clients(most: int) -> AsyncIterator[Clients]:
    found = Clients(most)
    with anyio.fail_after(30):
        async with found.sessions.run():
            yield found


async def test_where_there_is_no_room_the_session_that_was_idle_the_longest_ends() -> None:
    async with clients(most=2) as all_of_them:
        first, second = await all_of_them.open(), await all_of_them.open()
        assert await all_of_them.ask(first, PING) == 200
        third = await all_of_them.open()
        states = [await all_of_them.ask(each, PING) for each in (first, second, third)]
        assert states == [200, 404, 200]
        assert all_of_them.left == [second]


async def test_who_has_sessions_takes_no_room_from_others() -> None:
    async with clients(most=2) as all_of_them:
        theirs, mine = await all_of_them.open("they"), await all_of_them.open()
        *_, last = [await all_of_them.open() for _ in range(3)]
        assert await all_of_them.ask(mine, PING) == 404
        assert await all_of_them.ask(last, PING) == 200
        assert await all_of_them.ask(theirs, PING, "they") == 200
        assert len(all_of_them.left) == 3


async def test_a_session_that_waits_for_an_answer_does_not_end_for_another() -> None:
    async with clients(most=1) as all_of_them, anyio.create_task_group() as group:
        busy = await all_of_them.open()
        answered: list[int] = []

        async def ask() -> None:
            answered.append(await all_of_them.ask(busy, called(1, "wait")))

        group.start_soon(ask)
        await all_of_them.asked.wait()
        assert await all_of_them.open() == "503"
        all_of_them.may_answer.set()
    assert (answered, all_of_them.left) == ([200], [busy])
