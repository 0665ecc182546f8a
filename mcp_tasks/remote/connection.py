"""One server over HTTP: asks, and asks again after a break for as long as that is safe and worth while."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import anyio
import httpx2
from pydantic import SecretStr

from mcp_tasks.api.problems import STATUSES
from mcp_tasks.errors import InvalidArgument, StoreUnavailable
from mcp_tasks.remote.address import Address
from mcp_tasks.remote.backoff import Patience, delays
from mcp_tasks.remote.problems import error_of

__all__ = ["Ask", "Connection"]

_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 30.0
_IDLE_S: Final = 2.0
"""After which an idle connection is not used again: servers close theirs after some 5 s."""

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


class Connection:
    """Asks one server, one question at a time or several; reconnects by itself.

    Args:
        address: Where it is.
        token: Proves who asks.
        tell: Is told, in a sentence, when the connection is lost and when it is there again.
        patience: For how long to try.
    """

    def __init__(
        self,
        address: Address,
        token: SecretStr | None,
        tell: Callable[[str], None],
        patience: Patience = Patience(),  # noqa: B008 - frozen
    ) -> None:
        self._address = address
        self._tell = tell
        self._patience = patience
        self._was_reached = False
        self._stack = AsyncExitStack()
        transport = None if address.socket is None else httpx2.AsyncHTTPTransport(uds=address.socket)
        headers = {"accept": "application/json, application/problem+json"}
        if token is not None:
            headers["authorization"] = f"Bearer {_in_header(token)}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            transport=transport,
            # A proxy is for what is far away; it would be handed the token for what is near.
            trust_env=not address.is_near,
            # The token is for this server, and not for wherever it may point to.
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=8, keepalive_expiry=_IDLE_S),
        )

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._client)
        if self._address.is_open_to_listeners and "authorization" in self._client.headers:
            self._tell(
                f"warning: the token goes to {self._address.shown} unencrypted; use https, or a tunnel"
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def shown(self) -> str:
        """The address of the server, for people."""
        return self._address.shown

    async def view(self, ask: Ask) -> dict[str, Any]:
        """The JSON object that is answered.

        Raises:
            TasksError: What the server answered instead.
            StoreUnavailable: It does not answer any more, or not as ours do.
        """
        response = await self.response(ask)
        body = _json(response)
        if not isinstance(body, dict):
            raise StoreUnavailable(f"{self.shown} does not answer as mcp-tasks does", "look at the address")
        return body

    async def response(self, ask: Ask, allowed: tuple[int, ...] = ()) -> httpx2.Response:
        """The whole answer, which is no problem unless its status is one of `allowed`.

        Raises:
            TasksError: As `view`.
        """
        broken_at: float | None = None
        pauses = delays()
        while True:
            trouble = await self._attempt(ask)
            if isinstance(trouble, httpx2.Response):
                self._was_reached = True
                if broken_at is not None:
                    going_on = f"; going on with {ask.what}" if ask.what else ""
                    spent = time.monotonic() - broken_at
                    self._tell(f"connected to {self.shown} again after {spent:.1f} s{going_on}")
                if trouble.is_success or trouble.status_code in allowed:
                    return trouble
                raise error_of(trouble.status_code, _json(trouble), self.shown)
            if trouble.may_be_done and not ask.is_repeatable:
                raise StoreUnavailable(
                    f"the connection to {self.shown} was lost before the answer came ({trouble.reason})",
                    "whether it was done is not known: look before you do it again",
                )
            now = time.monotonic()
            self._was_reached = self._was_reached or trouble.may_be_done
            if broken_at is None:
                broken_at = now
                how = "the connection to {} is lost" if self._was_reached else "{} does not answer"
                self._tell(f"{how.format(self.shown)} ({trouble.reason}); trying again")
            patience = self._patience.later_s if self._was_reached else self._patience.first_s
            pause = max(next(pauses), trouble.pause_s)
            if now + pause - broken_at > patience:
                raise StoreUnavailable(
                    f"{self.shown} does not answer ({trouble.reason})",
                    "is it running, and is this the address that it tells when it starts?",
                )
            await anyio.sleep(pause)

    async def _attempt(self, ask: Ask) -> httpx2.Response | _Trouble:
        content: dict[str, Any] = {}
        if isinstance(ask.body, bytes):
            content = {"content": ask.body}
        elif ask.body is not None:
            content = {"json": ask.body}
        try:
            response = await self._client.request(
                ask.method,
                f"{self._address.base}{ask.path}",
                params={name: _in_query(value) for name, value in ask.query.items() if value is not None},
                headers=dict(ask.headers),
                timeout=httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S, read=_ANSWER_S + ask.wait_s),
                **content,
            )
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            return _Trouble(_reason(error), may_be_done=False)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
            raise InvalidArgument(
                f"{self.shown} cannot be asked: {_reason(error)}", "look at the address"
            ) from None
        except httpx2.TransportError as error:
            return _Trouble(_reason(error), may_be_done=True)
        if response.status_code in _LATER and (later := _later(response)) is not None:
            return later
        return response


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why there is no answer.

    Attributes:
        may_be_done: The server may have carried it out all the same.
        pause_s: The least that it wants to be left alone for.
    """

    reason: str
    may_be_done: bool
    pause_s: float = 0.0


def _later(response: httpx2.Response) -> _Trouble | None:
    """What an answer means that puts off; None where it is an answer of the service, as a full queue is."""
    body = _json(response)
    if isinstance(body, dict) and body.get("code") in STATUSES:
        return None
    status = response.status_code
    reason = "it is asked too often" if status == 429 else f"status {status} on the way"
    # A server that is being ended answers 503 to who still waits for what has been carried out.
    return _Trouble(reason, may_be_done=status != 429, pause_s=_retry_after(response))


def _retry_after(response: httpx2.Response) -> float:
    """Seconds (RFC 9110, 10.2.3); a date there counts as none."""
    told = response.headers.get("retry-after", "")
    return min(float(told), _LONGEST_LATER_S) if told.isascii() and told.isdigit() else 0.0


def _json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _reason(error: BaseException) -> str:
    """In the words of the system, where it had any."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
            return os.strerror(cause.errno) if cause.errno > 0 else cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def _in_query(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _in_header(token: SecretStr) -> str:
    text = token.get_secret_value().strip()
    if not text.isascii() or not text.isprintable():
        raise InvalidArgument("MCP_TASKS_TOKEN is no token", "give what `mcp-tasks token` showed")
    return text
