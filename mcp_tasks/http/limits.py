"""How much may be sent: requests a second, and bytes a request."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import anyio
from aiolimiter import AsyncLimiter
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from mcp_tasks.http.bodies import given_again
from mcp_tasks.http.refusals import Refusal, Refused

__all__ = ["BodyRoom", "Rates", "Take", "bounded_body", "peer_of", "refuse_oversized"]

_BURST_SECONDS: Final = 5
"""So long may a client send faster, if it was quiet before."""

_MOST_CLIENTS: Final = 10_000
_BODY_SECONDS: Final = 30.0
_SMALL_BODY: Final = 65_536
"""A body up to this is not counted: as many as there may be connections are no burden."""

_LARGEST_AT_ONCE: Final = 8
_LONGEST_TARGET: Final = 16_384


class Rates:
    """How many requests each client may send.

    Those that sent last are remembered; one that is forgotten begins anew, which gives it a burst more.

    Args:
        per_second: On average over the seconds of a burst; 0 means no limit.
        most: So many clients are remembered.
    """

    def __init__(self, per_second: int, *, most: int = _MOST_CLIENTS) -> None:
        self._per_second = per_second
        self._most = most
        self._buckets: OrderedDict[str, AsyncLimiter] = OrderedDict()

    async def take(self, client: str) -> None:
        """Count a request. Raises Refused where there have been too many."""
        if not self._per_second:
            return
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = AsyncLimiter(self._per_second * _BURST_SECONDS, _BURST_SECONDS)
            self._buckets[client] = bucket
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(client)
        if not bucket.has_capacity():
            raise Refused(
                Refusal(
                    429,
                    f"more than {self._per_second} requests a second",
                    "wait as Retry-After says; poll_task with wait_ms needs fewer requests",
                    {"Retry-After": str(math.ceil(1 / self._per_second))},
                )
            )
        await bucket.acquire()


def peer_of(scope: Scope) -> str:
    """Whom a request is counted for as long as nobody is known: an address, or a network of IPv6."""
    client = scope.get("client")
    if not client:
        return "socket"
    try:
        address = ipaddress.ip_address(client[0].partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)


def refuse_oversized(scope: Scope) -> None:
    """Raises Refused where the target of a request is longer than any of ours."""
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _LONGEST_TARGET:
        raise Refused(Refusal(414, f"the URL is longer than {_LONGEST_TARGET} bytes"))


Take: TypeAlias = Callable[[int], None]
"""Takes room for so many more bytes. Raises Refused where there is none."""


class BodyRoom:
    """Room for the large bodies of requests that are read or answered at the same time.

    Without it anybody who has a token could have as many of the largest as there may be connections.

    Args:
        most: Bytes of one body; there is room for a few of them.
    """

    def __init__(self, most: int) -> None:
        self._left = most * _LARGEST_AT_ONCE

    @contextmanager
    def share(self) -> Iterator[Take]:
        """The share of one request, given back with the block."""
        held = 0

        def take(size: int) -> None:
            nonlocal held
            if size > self._left:
                raise Refused(
                    Refusal(503, "too many large bodies come at once", "try again", {"Retry-After": "1"})
                )
            self._left -= size
            held += size

        try:
            yield take
        finally:
            self._left += held


async def bounded_body(receive: Receive, declared: int | None, most: int, take: Take) -> Receive:
    """Read the body of a request, so that nothing behind has to bound it.

    Args:
        receive: Of the request.
        declared: Its Content-Length; None where there is none.
        most: Bytes that are taken.
        take: Takes room for it, where it is large.

    Returns:
        What gives the body, and then whatever comes after it.

    Raises:
        Refused: It is too large, or too slow, or there is no room for it now.
        ClientDisconnect: The client has gone in the middle of it.
    """
    if declared is not None and declared > most:
        raise _too_large(most)
    pieces: list[bytes] = []
    got = 0
    with anyio.move_on_after(_BODY_SECONDS) as reading:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            pieces.append(message.get("body", b""))
            got += len(pieces[-1])
            if got > most:
                raise _too_large(most)
            if got > _SMALL_BODY:
                take(len(pieces[-1]))
            if not message.get("more_body", False):
                break
    if reading.cancelled_caught:
        raise Refused(Refusal(408, f"the body did not come within {_BODY_SECONDS:g} s"))
    return given_again(b"".join(pieces), receive)


def _too_large(most: int) -> Refused:
    return Refused(Refusal(413, f"the body is longer than {most} bytes", "see MCP_TASKS_MAX_REQUEST_BYTES"))
