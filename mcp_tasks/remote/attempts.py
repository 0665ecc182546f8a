"""One question over HTTP, asked once: an answer, or why there is none and what that means."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from mcp_tasks.api.problems import STATUSES
from mcp_tasks.errors import InvalidArgument, StoreUnavailable
from mcp_tasks.remote.address import Address
from mcp_tasks.remote.problems import not_ours

__all__ = ["Answer", "Ask", "Trouble", "attempt", "open_client"]

_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 30.0
_IDLE_S: Final = 2.0
"""After which an idle connection is not used again: servers close theirs after some 5 s."""

_MOST: Final = 64 * 2**20
"""Bytes of an answer. None of ours is nearly as long, and one that never ends must not fill the memory."""

_LATER: Final = frozenset({429, 502, 503, 504})
_LONGEST_LATER_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to a server.

    Attributes:
        path: Below that of the API.
        query: Names and values; None is left out.
        body: JSON, or bytes as they are.
        wait_s: For how long the server may take its time before it answers.
        is_repeatable: Whether it may be asked again where nobody knows if it has been carried out.
        what: What is gone on with after a break, for people.
    """

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    is_repeatable: bool = False
    what: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole. Where a range was asked for and left out on the way, it has no content."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """What is in it; None where that is no JSON."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no answer.

    Attributes:
        may_be_done: The server may have carried it out all the same.
        is_from_there: It is the server itself that said so.
        pause_s: The least that it wants to be left alone for.
    """

    reason: str
    may_be_done: bool = False
    is_from_there: bool = False
    pause_s: float = 0.0


def open_client(address: Address, headers: Mapping[str, str]) -> httpx2.AsyncClient:
    """A client for the server at an address.

    Raises:
        InvalidArgument: What the environment says about proxies or certificates cannot be used.
    """
    try:
        # Reading what is trusted takes a tenth of a second; a context as it is made trusts nobody.
        is_sealed = address.base.startswith("https:")
        trusted = httpx2.create_ssl_context() if is_sealed else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    except OSError:
        raise InvalidArgument(
            "the certificates to trust cannot be read", "look at SSL_CERT_FILE and SSL_CERT_DIR"
        ) from None
    socket = address.socket
    try:
        return httpx2.AsyncClient(
            headers=headers,
            verify=trusted,
            transport=None if socket is None else httpx2.AsyncHTTPTransport(verify=trusted, uds=socket),
            # A proxy is for what is far away; it would be handed the token for what is near.
            trust_env=not address.is_near,
            # The token is for this server, and not for wherever it may point to.
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=8, keepalive_expiry=_IDLE_S),
        )
    except (ValueError, ImportError):
        raise InvalidArgument(
            "the proxy that the environment names cannot be used",
            "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY take http://HOST:PORT; NO_PROXY names what needs none",
        ) from None


async def attempt(client: httpx2.AsyncClient, address: Address, ask: Ask) -> Answer | Trouble:
    """Ask once.

    Raises:
        InvalidArgument: The address cannot be asked.
        StoreUnavailable: Asking again would not help: it is not trusted, or no server of ours.
    """
    body: dict[str, Any] = {}
    if isinstance(ask.body, bytes):
        body = {"content": ask.body}
    elif ask.body is not None:
        body = {"json": ask.body}
    try:
        async with client.stream(
            ask.method,
            f"{address.base}{ask.path}",
            params={name: _in_query(value) for name, value in ask.query.items() if value is not None},
            headers=dict(ask.headers),
            timeout=httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S, read=_ANSWER_S + ask.wait_s),
            **body,
        ) as response:
            # Without its range it is of whatever size the whole has.
            is_whole = "range" in ask.headers and response.status_code == 200
            content = b"" if is_whole else await _read(response, address)
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
        if (why := _distrusted(error)) is not None:
            raise StoreUnavailable(
                f"the certificate of {address.shown} is not trusted: {why}",
                "let SSL_CERT_FILE name a file with it, or with the one that signed it",
            ) from None
        return Trouble(_reason(error))
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
        raise InvalidArgument(
            f"{address.shown} cannot be asked: {_reason(error)}", "look at the address"
        ) from None
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        return Trouble(_reason(error), may_be_done=True)
    answer = Answer(response.status_code, response.headers, content)
    return (_later(answer) if answer.status in _LATER else None) or answer


async def _read(response: httpx2.Response, address: Address) -> bytes:
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > _MOST:
            raise not_ours(address.shown)
    return bytes(content)


def _later(answer: Answer) -> Trouble | None:
    """What an answer means that puts off; None where it is an answer of the service, as a full queue is."""
    body = answer.json()
    code = body.get("code") if isinstance(body, dict) else None
    if code in STATUSES:
        return None
    reason = "it is asked too often" if answer.status == 429 else f"status {answer.status} on the way"
    # A server that is being ended answers 503 to who still waits for what has been carried out.
    return Trouble(reason, answer.status != 429, code is not None, _retry_after(answer))


def _retry_after(answer: Answer) -> float:
    """Seconds (RFC 9110, 10.2.3); a date there counts as none."""
    told = answer.headers.get("retry-after", "")
    return min(float(told), _LONGEST_LATER_S) if told.isascii() and told.isdigit() else 0.0


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _distrusted(error: BaseException) -> str | None:
    """What is wrong with a certificate, if that is it."""
    wrong = (cause for cause in _causes(error) if isinstance(cause, ssl.SSLCertVerificationError))
    return next((cause.verify_message for cause in wrong), None)


def _reason(error: BaseException) -> str:
    """In the words of the system, where it had any."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):  # whose number is none of the system's
            return f"TLS: {(cause.reason or 'failed').replace('_', ' ').lower()}"
        if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
            return os.strerror(cause.errno) if cause.errno > 0 else cause.strerror
    return str(error) or type(error).__name__


def _in_query(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
