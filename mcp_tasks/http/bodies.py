"""A body of a request that was read already: whether it may be parsed, and how it is passed on.

What parses JSON holds up everybody else meanwhile, even from a thread, and a body of nothing but
brackets takes fifty times its size. So the number of values is bounded before anything is made of them, which
takes milliseconds.
"""

from __future__ import annotations

from typing import Final

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_tasks.http.refusals import Refusal

__all__ = ["CROWDED", "LARGE", "Uncrowded", "given_again", "is_crowded", "large_bodies"]

LARGE: Final = 65_536
"""A body of more bytes is looked at in a thread, one at a time."""

_MOST_VALUES: Final = 100_000

CROWDED: Final = Refusal(
    400, f"the body has more than {_MOST_VALUES:,} values", "send fewer at once; a long text is one value"
)


def given_again(body: bytes, receive: Receive) -> Receive:
    """What gives a body in one part, and then whatever comes after it."""
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return whole.pop() if whole else await receive()

    return again


def large_bodies() -> anyio.CapacityLimiter:
    """Lets one large body after the other into a thread."""
    return anyio.CapacityLimiter(1)


async def is_crowded(body: bytes, turns: anyio.CapacityLimiter) -> bool:
    """Whether a body of JSON has more values than any request of ours; looks, but does not parse."""
    if len(body) <= LARGE:
        return False
    return await anyio.to_thread.run_sync(_has_too_many, body, limiter=turns)


class Uncrowded:
    """Keeps bodies of too many values from an application that parses what it is given."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turns = large_bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["method"] == "POST":
            try:
                body = await Request(scope, receive).body()
            except ClientDisconnect:
                return
            if await is_crowded(body, self._turns):
                await CROWDED.response()(scope, receive, send)
                return
            receive = given_again(body, receive)
        await self._app(scope, receive, send)


def _has_too_many(body: bytes) -> bool:
    if _openers(body) <= _MOST_VALUES:
        return False
    if b"\0" in body:
        return True  # JSON in UTF-16, which nobody sends: its quotes cannot be told by their bytes
    # Much of it may be text. Without what is escaped, each second part between quotes is.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * _MOST_VALUES:  # two of each value, two of its name
        return True
    return _openers(b"".join(plain.split(b'"')[::2])) > _MOST_VALUES


def _openers(data: bytes) -> int:
    """No fewer than there are values, but for the first, where none of it is text."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")
