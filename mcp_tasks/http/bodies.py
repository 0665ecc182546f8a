"""Bodies of requests, whole before anything is done with them."""

from __future__ import annotations

from starlette.types import Message, Receive

__all__ = ["whole_body"]


async def whole_body(receive: Receive) -> Receive | None:
    """Read a body to its end; the guard has bounded it.

    The SDK takes a client that goes in the middle of its request for an error of the server.

    Returns:
        What gives the body once more, in one part; None where the client has gone.
    """
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": b"".join(parts), "more_body": False}

    return again
