"""From what a request shows to the principal that it proves."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import anyio
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from pydantic import SecretStr

from mcp_tasks.errors import InvalidArgument, PolicyDenied, ShareNotValid
from mcp_tasks.http.addresses import is_loopback
from mcp_tasks.http.oauth import IssuerAway, IssuerTokens, OauthSettings, Resource, resource_of
from mcp_tasks.http.principals import READ_SCOPE, WRITE_SCOPE, Principal
from mcp_tasks.http.refusals import Refusal, Refused
from mcp_tasks.http.token import FileToken, GivenToken, Token, TokenFile
from mcp_tasks.models import DEFAULT_SESSION
from mcp_tasks.service import Caller
from mcp_tasks.service.access import REFUSAL_S, TOKEN_PREFIX

__all__ = ["Admit", "CredentialSettings", "Credentials", "no_shares", "refuse_open_door"]

Admit: TypeAlias = Callable[[Caller], Awaitable[Caller]]
"""Lets in who comes with a share: see `Service.admitted`."""

_OWNER_PREFIX: Final = "oauth:"
"""No operating-system user has a colon in his name, so no subject can be one."""

_SHARE_OWNER: Final = "share:"
"""As whom the bearer of a share is known before he has been led into its session; no user, either."""

_SHARE_BEGINS: Final = TOKEN_PREFIX.encode()
_LONGEST: Final = 16_384

_log = logging.getLogger(__name__)


class CredentialSettings(OauthSettings, Protocol):
    """What decides who may come in."""

    @property
    def owner(self) -> str:
        """Who comes in with the built-in token."""
        ...

    @property
    def dir(self) -> Path:
        """State directory, which has the token."""
        ...

    @property
    def token(self) -> SecretStr | None:
        """Wins over the one of the state directory."""
        ...

    @property
    def no_token(self) -> bool:
        """Whether everybody comes in."""
        ...

    @property
    def oauth_scopes(self) -> tuple[str, ...]:
        """What a token of the issuer must have besides one of ours."""
        ...

    @property
    def host(self) -> str:
        """Address that is listened at."""
        ...

    @property
    def uds(self) -> Path | None:
        """Socket file that is listened at instead."""
        ...

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Names by which the server is reached."""
        ...


def refuse_open_door(settings: CredentialSettings) -> None:
    """Look at the settings before anything is listened at.

    Raises:
        PolicyDenied: Strangers would reach the server without a token, or under any name.
        InvalidArgument: The settings contradict each other.
    """
    if settings.oauth_issuer is not None and settings.no_token:
        raise InvalidArgument(
            "no_token lets everybody in, whatever oauth_issuer says", "leave one of them out"
        )
    if (settings.oauth_issuer is None) != (settings.oauth_audience is None):
        raise InvalidArgument(
            "oauth_issuer and oauth_audience need each other",
            "a token that was meant for somebody else must not be taken: the audience is this server's URL",
        )
    if settings.uds is not None or is_loopback(settings.host):
        return
    if settings.no_token:
        raise PolicyDenied(
            f"{settings.host} is reached by others, who would need no token",
            "leave no_token out, or listen at 127.0.0.1",
        )
    if not settings.allowed_hosts:
        raise PolicyDenied(
            f"{settings.host} is reached by others, and nothing says by which name",
            "give --allowed-host NAME, as clients have it in their URL, or listen at 127.0.0.1",
        )


async def no_shares(_: Caller) -> Caller:
    """An `Admit` by which no share opens anything."""
    raise ShareNotValid


class Credentials:
    """Tells who sends a request. Makes the built-in token where there is none.

    Args:
        settings: Which credentials there are.
        admit: Looks at shares, the tokens of which are credentials as well.

    Raises:
        InvalidArgument: A setting is wrong.
        StoreUnavailable: The token cannot be kept.
    """

    def __init__(self, settings: CredentialSettings, admit: Admit = no_shares) -> None:
        self._admit = admit
        self._user = Principal(settings.owner).as_user("", client_id="mcp-tasks")
        self._token: Token | None = None if settings.no_token else _built_in(settings)
        self._needed = settings.oauth_scopes
        self._issuer: IssuerTokens | None = None
        if settings.oauth_issuer is not None and settings.oauth_audience is not None:
            self._issuer = IssuerTokens(
                settings.oauth_issuer, settings.oauth_audience, settings.oauth_jwks_url
            )
        self.resource: Resource | None = resource_of(settings, (READ_SCOPE, WRITE_SCOPE, *self._needed))

    async def user(self, authorization: bytes | None, challenge: str) -> AuthenticatedUser:
        """Who has sent this header.

        Args:
            authorization: The header; None where there is none.
            challenge: What `WWW-Authenticate` says besides what is wrong.

        Raises:
            Refused: It proves nothing, or not enough.
        """
        began = time.monotonic()
        kind, _, given = (authorization or b"").partition(b" ")
        given = given.strip() if kind.lower() == b"bearer" else b""
        if given.startswith(_SHARE_BEGINS):
            # Looked at first: who shows a share means that session, also where everybody comes in.
            if (bearer := await self._bearer(given)) is not None:
                return bearer
        elif self._token is None:
            return self._user
        elif not given:
            raise _unknown(challenge, "a token is needed", self._hint())
        elif self._token.fits(given):
            return self._user
        elif self._issuer is not None and len(given) <= _LONGEST:
            try:
                access = await self._issuer.verify_token(given.decode("ascii", "replace"))
            except IssuerAway:
                raise Refused(
                    Refusal(503, "the issuer of tokens cannot be asked now", "", {"Retry-After": "5"})
                ) from None
            if access is not None:
                return self._subject(access, challenge)
        # A share that opens nothing has taken as long, so that the time does not tell what was wrong.
        await anyio.sleep(max(0.0, began + REFUSAL_S - time.monotonic()))
        raise _unknown(
            f'{challenge}, error="invalid_token"', "the token is not valid, or not any more", self._hint()
        )

    async def _bearer(self, token: bytes) -> AuthenticatedUser | None:
        """Who comes with a share; None where it opens nothing."""
        share = token.decode("ascii", "replace")
        try:
            admitted = await self._admit(Caller("", DEFAULT_SESSION, named=False, share=share))
        except ShareNotValid:
            return None
        principal = Principal(f"{_SHARE_OWNER}{admitted.via}", admitted.role, share)
        return principal.as_user("", client_id="mcp-tasks")

    def _subject(self, access: AccessToken, challenge: str) -> AuthenticatedUser:
        may_write, may_read = WRITE_SCOPE in access.scopes, READ_SCOPE in access.scopes
        missing = [scope for scope in self._needed if scope not in access.scopes]
        if missing or not (may_write or may_read):
            scope = " ".join([*self._needed, READ_SCOPE])
            raise Refused(
                Refusal(
                    403,
                    "the token lets you do nothing here",
                    f"ask for one with the scopes {scope}, or with {WRITE_SCOPE} to start commands",
                    {"WWW-Authenticate": f'{challenge}, error="insufficient_scope", scope="{scope}"'},
                )
            )
        principal = Principal(f"{_OWNER_PREFIX}{access.subject}", "owner" if may_write else "read")
        issuer = str((access.claims or {})["iss"])
        return principal.as_user("", client_id=access.client_id, issuer=issuer)

    def _hint(self) -> str:
        if self._issuer is not None:
            return "send Authorization: Bearer and an access token of the issuer"
        return "send Authorization: Bearer and the token, which `mcp-tasks token` shows where the server runs"


def _built_in(settings: CredentialSettings) -> Token:
    if settings.token is not None:
        given = settings.token.get_secret_value()
        if given.startswith(TOKEN_PREFIX):
            raise InvalidArgument(
                "MCP_TASKS_TOKEN is the token of a share, whose holder would come in as the owner",
                "unset it for the server; it is of use to a client alone",
            )
        _log.info(
            "the token of this server is the one given in MCP_TASKS_TOKEN, not that of the state directory:"
            " what `mcp-tasks token` shows or makes is of no use here"
        )
        return GivenToken(given)
    TokenFile(settings.dir).make()
    return FileToken(settings.dir)


def _unknown(challenge: str, message: str, hint: str) -> Refused:
    return Refused(Refusal(401, message, hint, {"WWW-Authenticate": challenge}))
