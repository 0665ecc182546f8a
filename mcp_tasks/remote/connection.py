"""One server over HTTP: asks, and asks again after a break for as long as that is safe and worth while."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import anyio
from pydantic import SecretStr

from mcp_tasks.errors import InvalidArgument, StoreUnavailable
from mcp_tasks.remote.address import Address
from mcp_tasks.remote.attempts import Answer, Ask, attempt, open_client
from mcp_tasks.remote.backoff import Patience, delays
from mcp_tasks.remote.problems import error_of, not_ours

__all__ = ["Connection"]

_UNKNOWN: Final = "whether it was done is not known: look before you do it again"
_NOBODY: Final = "is it running, and is this the address that it tells when it starts?"


class Connection:
    """Asks one server, one question at a time or several; reconnects by itself.

    Args:
        address: Where it is.
        token: Proves who asks.
        tell: Is told, in a sentence, when the connection is lost and when it is there again.
        patience: For how long to try.

    Raises:
        InvalidArgument: The token, or what the environment says about proxies or certificates, is no use.
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
        headers = {"accept": "application/json, application/problem+json"}
        if token is not None:
            headers["authorization"] = f"Bearer {_in_header(token)}"
        self._client = open_client(address, headers)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        if self._address.is_open_to_listeners and "authorization" in self._client.headers:
            self._tell(
                f"warning: the token goes to {self._address.shown} unencrypted; use https, or a tunnel"
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

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
        body = (await self.answer(ask)).json()
        if not isinstance(body, dict):
            raise not_ours(self.shown)
        return body

    async def answer(self, ask: Ask, allowed: tuple[int, ...] = ()) -> Answer:
        """The whole answer, which is no problem unless its status is one of `allowed`.

        Raises:
            TasksError: As `view`.
        """
        broken_at: float | None = None
        may_be_done = False
        pauses = delays()
        while True:
            found = await attempt(self._client, self._address, ask)
            if isinstance(found, Answer):
                self._was_reached = True
                if broken_at is not None:
                    going_on = f"; going on with {ask.what}" if ask.what else ""
                    spent = time.monotonic() - broken_at
                    self._tell(f"connected to {self.shown} again after {spent:.1f} s{going_on}")
                if 200 <= found.status < 300 or found.status in allowed:
                    return found
                raise error_of(found.status, found.json(), self.shown)
            may_be_done = may_be_done or found.may_be_done
            if may_be_done and not ask.is_repeatable:
                raise StoreUnavailable(
                    f"the connection to {self.shown} was lost before the answer came ({found.reason})",
                    _UNKNOWN,
                )
            # Whatever else is there may take a connection and hang up for ever.
            self._was_reached = self._was_reached or found.is_from_there
            now = time.monotonic()
            if broken_at is None:
                broken_at = now
                how = "the connection to {} is lost" if self._was_reached else "{} does not answer"
                self._tell(f"{how.format(self.shown)} ({found.reason}); trying again")
            patience = self._patience.later_s if self._was_reached else self._patience.first_s
            pause = max(next(pauses), found.pause_s)
            if now + pause - broken_at > patience:
                is_unknown = may_be_done and ask.method != "GET"
                raise StoreUnavailable(
                    f"{self.shown} does not answer ({found.reason})", _UNKNOWN if is_unknown else _NOBODY
                )
            await anyio.sleep(pause)


def _in_header(token: SecretStr) -> str:
    text = token.get_secret_value().strip()
    if not text.isascii() or not text.isprintable():
        raise InvalidArgument("MCP_TASKS_TOKEN is no token", "give what `mcp-tasks token` showed")
    return text
