"""What every request has to pass before any route sees it: Host, Origin, credential, rate, type, size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, Protocol

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_tasks.http.addresses import Names, is_loopback
from mcp_tasks.http.credentials import Admit, Credentials, CredentialSettings, no_shares
from mcp_tasks.http.limits import BodyRoom, Rates, Take, bounded_body, peer_of, refuse_oversized
from mcp_tasks.http.refusals import Refusal, Refused

__all__ = ["Guard", "GuardSettings"]

_HEALTH: Final = "/healthz"
_WELL_KNOWN: Final = "/.well-known/"
_STRANGERS_PER_SECOND: Final = 50
"""Requests of a peer that has shown no credential, or a wrong one."""

_PROVED_S: Final = 5.0
"""An event stream is open for hours; after so long its credential is looked at again."""

_JSON: Final = "application/json"
_EVENTS: Final = b"text/event-stream"
_EXPOSED: Final = (
    "Mcp-Session-Id", "Mcp-Protocol-Version", "WWW-Authenticate", "Retry-After", "Location", "Allow",
    "Accept-Ranges", "Content-Range", "Mcp-Tasks-State", "Mcp-Tasks-Run", "Mcp-Tasks-Gap",
)  # fmt: skip


class GuardSettings(CredentialSettings, Protocol):
    """What decides which requests pass."""

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """Of pages that may call."""
        ...

    @property
    def requests_per_second(self) -> int:
        """Of one principal; 0 for no limit."""
        ...

    @property
    def max_request_bytes(self) -> int:
        """Of one body."""
        ...


class Guard:
    """The outermost layer of the application. Makes the built-in token where there is none.

    Args:
        app: What lies behind it.
        settings: Which requests pass.
        admit: Lets in who comes with a share.

    Raises:
        InvalidArgument: A setting is wrong.
        StoreUnavailable: The token cannot be kept.
    """

    def __init__(self, app: ASGIApp, settings: GuardSettings, admit: Admit = no_shares) -> None:
        self._app = app
        here = settings.uds is not None or is_loopback(settings.host)
        self._names = Names(settings.allowed_hosts, settings.allowed_origins, loopback=here)
        self._credentials = Credentials(settings, admit)
        self._rates = Rates(settings.requests_per_second)
        self._strangers = Rates(_STRANGERS_PER_SECOND)
        self._max_bytes = settings.max_request_bytes
        self._room = BodyRoom(settings.max_request_bytes)
        self._addressed: ASGIApp = self._identify
        if settings.allowed_origins:
            self._addressed = CORSMiddleware(
                self._identify,
                allow_origin_regex=".*",  # the others have been refused
                allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
                allow_headers=("*",),
                expose_headers=_EXPOSED,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            try:
                refuse_oversized(scope)
                self._refuse_misled(scope)
            except Refused as refused:
                await refused.refusal.response()(scope, receive, send)
                return
            await self._addressed(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})  # nothing here talks like that

    def _refuse_misled(self, scope: Scope) -> None:
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        host = self._names.host(hosts[0]) if len(hosts) == 1 else None
        if host is None:
            raise Refused(
                Refusal(421, "the Host header names another server", "see --allowed-host of mcp-tasks serve")
            )
        # A browser that sends no Origin says by this whether another site's page has sent it.
        foreign = _values(scope, b"sec-fetch-site") not in ([], ["same-origin"], ["none"])
        if (foreign and not origins) or not all(self._names.origin(each, host) for each in origins):
            raise Refused(
                Refusal(403, "the page that sends this may not", "see --allowed-origin of mcp-tasks serve")
            )

    async def _identify(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._room.share() as take:
            try:
                if scope["path"] == _HEALTH or scope["path"].startswith(_WELL_KNOWN):
                    # Not counted: an answer is as cheap as a refusal, and who floods the door from behind
                    # the same proxy must not make the server look ill.
                    app = self._open(scope)
                else:
                    scope = await self._with_user(scope)
                    receive = await self._with_body(scope, receive, take)
                    app, send = self._app, self._while_proved(scope, send)
            except Refused as refused:
                app = refused.refusal.response()
            await app(scope, receive, send)

    def _open(self, scope: Scope) -> ASGIApp:
        """What anybody may ask; it tells nothing of what is kept here."""
        resource = self._credentials.resource
        told = None if resource is None else resource.metadata(_base(scope), scope["path"])
        return self._app if told is None else JSONResponse(told, headers={"Cache-Control": "max-age=300"})

    async def _with_user(self, scope: Scope) -> Scope:
        try:
            user = await self._user(scope)
        except Refused:
            await self._strangers.take(peer_of(scope))
            raise
        await self._rates.take(user.access_token.subject or "")
        return {**scope, "user": user}

    async def _user(self, scope: Scope) -> AuthenticatedUser:
        given = _raw_values(scope, b"authorization")
        return await self._credentials.user(given[0] if len(given) == 1 else None, self._challenge(scope))

    def _while_proved(self, scope: Scope, send: Send) -> Send:
        """What ends an event stream once its credential has been replaced or has run out."""
        proved_at = time.monotonic()
        streams = is_over = False

        async def proved(message: Message) -> None:
            nonlocal proved_at, streams, is_over
            if message["type"] == "http.response.start":
                streams = any(
                    name.lower() == b"content-type" and value.startswith(_EVENTS)
                    for name, value in message["headers"]
                )
            elif streams and time.monotonic() - proved_at > _PROVED_S:
                proved_at = time.monotonic()
                if not is_over and not await self._is_proved(scope):
                    is_over = True
                    # Whoever streams learns from `receive` that nobody is there any more.
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            if not is_over:
                await send(message)

        return proved

    async def _is_proved(self, scope: Scope) -> bool:
        try:
            await self._user(scope)
        except Refused as refused:
            return refused.refusal.status == 503  # nobody can tell now
        return True

    def _challenge(self, scope: Scope) -> str:
        resource = self._credentials.resource
        if resource is None:
            return 'Bearer realm="mcp-tasks"'
        url = resource.metadata_url(_base(scope), scope["path"])
        return f'Bearer realm="mcp-tasks", resource_metadata="{url}", scope="{" ".join(resource.scopes[:2])}"'

    async def _with_body(self, scope: Scope, receive: Receive, take: Take) -> Receive:
        lengths = _values(scope, b"content-length")
        declared = int(lengths[0]) if lengths and lengths[0].isdecimal() else None
        if not declared and not _values(scope, b"transfer-encoding"):
            return receive
        kinds = [each.partition(";")[0].strip().lower() for each in _values(scope, b"content-type")]
        if kinds != [_JSON]:
            # What a form of any page can send is none of these types, so none of its requests comes in.
            raise Refused(Refusal(415, "the body must be JSON", f"send Content-Type: {_JSON}"))
        return await bounded_body(receive, declared, self._max_bytes, take)


def _raw_values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for each, value in scope["headers"] if each == name]


def _values(scope: Scope, name: bytes) -> Sequence[str]:
    return [value.decode("latin-1") for value in _raw_values(scope, name)]


def _base(scope: Scope) -> str:
    """Scheme and host of a request, whose Host is one that is known."""
    return f"{scope['scheme']}://{_values(scope, b'host')[0]}"
