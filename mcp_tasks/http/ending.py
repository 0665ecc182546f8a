"""Ends what is open in good order: answers that are on their way are given, streams get their last byte."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_tasks.http.refusals import Refusal

__all__ = ["Ending"]

_LAST_ANSWERS_S: Final = 1.0
"""How long requests that are being answered may still take."""

_LAST_BYTES_S: Final = 0.5
_STREAM: Final = b"text/event-stream"

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Exchange:
    """A request, and how far its answer has come."""

    method: str
    path: str
    running: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    started: bool = False
    streams: bool = False
    finished: bool = False

    @property
    def only_listens(self) -> bool:
        """Whether nobody waits for the end of it. Over /sse the answers to other requests come this way."""
        return self.streams and self.method == "GET" and self.path != "/sse"


class Ending:
    """The outermost layer: it knows each request that is being answered.

    Args:
        app: Answers them.
        first: Called when the end begins, to end what can take leave of its client by itself.
    """

    def __init__(self, app: ASGIApp, first: Callable[[], None]) -> None:
        self._app = app
        self._first = first
        self._open: set[_Exchange] = set()
        self._ending = False
        self._changed = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless the server is ending."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope["method"], scope["path"])

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.started = True
                exchange.streams = any(
                    name.lower() == b"content-type" and value.startswith(_STREAM)
                    for name, value in message.get("headers", [])
                )
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                exchange.finished = True
            await send(message)

        if self._ending:
            await _unavailable(scope, receive, send)
            return
        self._open.add(exchange)
        try:
            with exchange.running, suppress(ClientDisconnect):  # who has gone needs no answer
                await self._app(scope, receive, watched)
            if exchange.running.cancelled_caught and not exchange.finished:
                with anyio.move_on_after(_LAST_BYTES_S):
                    if exchange.started:
                        await send({"type": "http.response.body", "body": b"", "more_body": False})
                    else:
                        await _unavailable(scope, receive, send)
        finally:
            self._open.discard(exchange)
            self._changed.set()
            self._changed = anyio.Event()

    async def end(self, last_answers_s: float = _LAST_ANSWERS_S) -> None:
        """Take nothing more, wait a moment for what is being answered, and end the rest.

        Args:
            last_answers_s: How long to wait.
        """
        self._ending = True
        self._first()
        with anyio.move_on_after(last_answers_s):
            while not all(exchange.only_listens for exchange in self._open):
                await self._changed.wait()
        if self._open:
            _log.info("ending %d open requests", len(self._open))
        for exchange in self._open:
            if exchange.streams or not exchange.started:  # a whole answer is being written: let it be
                exchange.running.cancel()


async def _unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    refusal = Refusal(503, "the server is ending", "ask the next one; tasks live on", {"Retry-After": "1"})
    await refusal.response()(scope, receive, send)
