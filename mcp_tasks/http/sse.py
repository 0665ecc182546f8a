"""MCP over the older SSE: answers come on one stream, what is asked is posted beside it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Protocol, Self
from urllib.parse import parse_qs
from uuid import UUID

import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from mcp.shared.message import SessionMessage
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Message, Receive, Scope, Send

from mcp_tasks.api.problems import MEDIA_TYPE, problem
from mcp_tasks.http.bodies import CROWDED, given_again, is_crowded, large_bodies
from mcp_tasks.server.open_requests import MOST_OPEN, OpenRequests

__all__ = ["ANY_BODY", "MESSAGES", "SSE_SESSION", "SseRoutes", "stream_id"]

MESSAGES: Final = "/messages/"
"""Where clients post what they ask."""

SSE_SESSION: Final = "session_id"
"""The parameter of the query that says which stream the answer goes to."""

ANY_BODY: Final = 2**30
"""Bytes of a body that the SDK takes: the guard has bounded them before."""

_MOST_UNREAD: Final = 32
_TAKEN: Final = 202


def stream_id(request: Request) -> str:
    """The id of the stream that a request is for, in the one spelling that it is known by; "" for none.

    The SDK takes every spelling of a UUID, so all of them have to mean the same here.
    """
    return _plain(request.query_params.get(SSE_SESSION, ""))


class SseRoutes:
    """The stream, and where its client posts.

    Args:
        server: Serves each stream.
        left: Called with the id of a stream that is over.
    """

    def __init__(self, server: Server[Any], left: Callable[[str], None]) -> None:
        self._server = server
        self._left = left
        self._transport = SseServerTransport(MESSAGES, max_request_body_size=ANY_BODY)
        self._open: dict[str, _Waiting] = {}
        self._ending = anyio.Event()
        self._large = large_bodies()

    def end(self) -> None:
        """End each stream, as soon as it has brought the answers that its client waits for."""
        self._ending.set()

    def routes(self) -> list[BaseRoute]:
        """The routes, for the application."""
        # Starlette takes methods of classes for ASGI applications only where they are mounted.
        return [Route("/sse", _Endpoint(self._stream), methods=["GET"]), Mount(MESSAGES, self._post)]

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        session_id = ""
        waiting = _Waiting()

        async def watched(message: Message) -> None:
            # The SDK tells the id of the stream to its client alone, in the first event.
            nonlocal session_id
            if not session_id and message["type"] == "http.response.body":
                session_id = _session_of(message.get("body", b""))
                self._open[session_id] = waiting
            await send(message)

        try:
            async with self._transport.connect_sse(scope, receive, watched) as (incoming, outgoing):
                async with anyio.create_task_group() as group:
                    group.start_soon(self._end_when_answered, waiting, group.cancel_scope)
                    options = self._server.create_initialization_options()
                    await self._server.run(incoming, _Outgoing(outgoing, waiting), options)
                    group.cancel_scope.cancel()
                await outgoing.aclose()  # what was sent is still written, and then the stream is over
        finally:
            self._open.pop(session_id, None)
            self._left(session_id)

    async def _end_when_answered(self, waiting: _Waiting, stream: anyio.CancelScope) -> None:
        await self._ending.wait()
        while waiting.requests:
            await waiting.requests.change()
        stream.cancel()

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self._transport.handle_post_message(scope, receive, send)
            return
        waiting = self._open.get(stream_id(Request(scope)), _Waiting())
        if waiting.is_full:
            response = _problem(429, "answers wait to be read on the stream", "read them first")
            response.headers["retry-after"] = "1"
            await response(scope, receive, send)
            return
        body = await Request(scope, receive).body()
        if await is_crowded(body, self._large):
            await CROWDED.response()(scope, receive, send)
            return
        asked = _message(body)
        if asked is None:
            await _problem(400, "the body is no JSON-RPC message")(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == _TAKEN:
                waiting.requests.asked(asked)
            await send(message)

        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):  # the client has gone meanwhile
            await self._transport.handle_post_message(scope, given_again(body, receive), watched)


class _Endpoint:
    """What makes an ASGI application of a function, for a route."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Any]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


@dataclass(slots=True)
class _Waiting:
    """What the client of a stream waits for, and the answers that wait for him because he does not read."""

    requests: OpenRequests = field(default_factory=OpenRequests)
    answers: int = 0

    @property
    def is_full(self) -> bool:
        return self.answers >= _MOST_UNREAD or len(self.requests) >= MOST_OPEN


class _Stream(Protocol):
    async def send(self, item: SessionMessage, /) -> None: ...

    async def aclose(self) -> None: ...


class _Outgoing:
    """The SDK's stream to one client, which takes one message at a time; counts what waits for that."""

    def __init__(self, stream: _Stream, waiting: _Waiting) -> None:
        self._stream = stream
        self._waiting = waiting

    async def send(self, item: SessionMessage, /) -> None:
        """Send one message; returns when it is on its way."""
        self._waiting.answers += 1
        try:
            await self._stream.send(item)
        finally:
            self._waiting.answers -= 1
            self._waiting.requests.told(item.message)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


def _session_of(event: bytes) -> str:
    _, _, query = event.partition(b"?")
    found = parse_qs(query.split()[0].decode()) if query else {}
    return _plain(found.get(SSE_SESSION, [""])[0])


def _plain(text: str) -> str:
    try:
        return UUID(hex=text).hex
    except ValueError:
        return ""


def _problem(status: int, message: str, hint: str = "") -> JSONResponse:
    return JSONResponse(problem(status, message, hint), status, media_type=MEDIA_TYPE)


def _message(body: bytes) -> types.JSONRPCMessage | None:
    """What the SDK reads of it; None where it cannot, which it would show in the log, secrets and all."""
    try:
        return types.jsonrpc_message_adapter.validate_json(body, by_name=False)
    except ValidationError:
        return None
