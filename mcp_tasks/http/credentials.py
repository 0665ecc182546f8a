"""From what a request shows to the principal that it proves."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from pydantic import SecretStr

from mcp_tasks.errors import InvalidArgument, PolicyDenied
from mcp_tasks.http.addresses import is_loopback
from mcp_tasks.http.oauth import IssuerAway, IssuerTokens, OauthSettings, Resource, resource_of
from mcp_tasks.http.principals import READ_SCOPE, WRITE_SCOPE, Principal
from mcp_tasks.http.refusals import Refusal, Refused
from mcp_tasks.http.token import FileToken, GivenToken, Token, TokenFile

__all__ = ["CredentialSettings", "Credentials", "refuse_open_door"]

_OWNER_PREFIX: Final = "oauth:"
"""No operating-system user has a colon in his name, so no subject can be one."""

_LONGEST: Final = 16_384


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


class Credentials:
    """Tells who sends a request. Makes the built-in token where there is none.

    Raises:
        InvalidArgument: A setting is wrong.
        StoreUnavailable: The token cannot be kept.
    """

    def __init__(self, settings: CredentialSettings) -> None:
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
        if self._token is None:
            return self._user
        kind, _, given = (authorization or b"").partition(b" ")
        given = given.strip()
        if kind.lower() != b"bearer" or not given:
            raise _unknown(challenge, "a token is needed", self._hint())
        if self._token.fits(given):
            return self._user
        if self._issuer is not None and len(given) <= _LONGEST:
            try:
                access = await self._issuer.verify_token(given.decode("ascii", "replace"))
            except IssuerAway:
                raise Refused(
                    Refusal(503, "the issuer of tokens cannot be asked now", "", {"Retry-After": "5"})
                ) from None
            if access is not None:
                return self._subject(access, challenge)
        raise _unknown(
            f'{challenge}, error="invalid_token"', "the token is not valid, or not any more", self._hint()
        )

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
        return GivenToken(settings.token.get_secret_value())
    TokenFile(settings.dir).make()
    return FileToken(settings.dir)


def _unknown(challenge: str, message: str, hint: str) -> Refused:
    return Refused(Refusal(401, message, hint, {"WWW-Authenticate": challenge}))
