"""A body of a request that was read already, for who comes behind."""

from __future__ import annotations

from starlette.types import Message, Receive

__all__ = ["given_again"]


def given_again(body: bytes, receive: Receive) -> Receive:
    """What gives a body in one part, and then whatever comes after it."""
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return whole.pop() if whole else await receive()

    return again
