"""A resource server of OAuth 2.1: access tokens of an issuer, as JWTs, and the metadata that lead to it.

Sources: RFC 9068 (JWT access tokens), RFC 9728 (protected-resource metadata), RFC 8414 (where the keys of an
issuer are), and the authorization chapter of MCP 2025-11-25 and 2026-07-28.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import anyio
import anyio.to_thread
import httpx2
import jwt
from mcp.server.auth.provider import AccessToken, TokenVerifier

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.http.addresses import is_loopback

__all__ = ["ALGORITHMS", "IssuerAway", "IssuerTokens", "OauthSettings", "Resource", "resource_of"]

ALGORITHMS: Final = ("RS256", "ES256")
"""Signatures that are taken. None that a public key could forge, as HS256, and never `none`."""

_FETCH_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 5.0
_KEYS_SECONDS: Final = 300.0
"""After so long a key is fetched anew, so that one that the issuer has withdrawn opens nothing."""

_UNKNOWN_KEY_SECONDS: Final = 10.0
"""Between two looks for a key that the issuer did not have."""

_LEEWAY_SECONDS: Final = 30
_FETCHES: Final = 4
_LONGEST_SUBJECT: Final = 255
_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"

_log = logging.getLogger(__name__)


class OauthSettings(Protocol):
    """What has to be known of an issuer."""

    @property
    def oauth_issuer(self) -> str | None:
        """Whose tokens are taken; None for nobody's."""
        ...

    @property
    def oauth_audience(self) -> str | None:
        """Whom they must be meant for."""
        ...

    @property
    def oauth_jwks_url(self) -> str | None:
        """Where its keys are; None asks it."""
        ...


class IssuerAway(Exception):
    """The keys of the issuer cannot be had now, so nobody can tell what a token is worth."""


class IssuerTokens(TokenVerifier):
    """Tells what a token is worth.

    Args:
        issuer: As `iss` has it, to the letter.
        audience: One of `aud` must be it.
        jwks_url: Where the keys are; None asks the issuer, once it is needed.

    Raises:
        InvalidArgument: A URL is none, or would carry keys in the clear over a network.
    """

    def __init__(self, issuer: str, audience: str, jwks_url: str | None = None) -> None:
        self._issuer = _secure(issuer, "oauth_issuer")
        self._audience = audience
        self._jwks_url = None if jwks_url is None else _secure(jwks_url, "oauth_jwks_url")
        self._client: jwt.PyJWKClient | None = None
        self._away_until = 0.0
        self._fetching = threading.Lock()
        self._threads = anyio.CapacityLimiter(_FETCHES)
        self._keys: dict[str, tuple[float, jwt.PyJWK]] = {}

    async def verify_token(self, token: str) -> AccessToken | None:
        """What a token stands for; None where it is not valid.

        Raises:
            IssuerAway: It cannot be told now.
        """
        key_id = self._key_id(token)
        key = None if key_id is None else await self._key(key_id)
        if key is None:
            return None
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError:
            return None
        return _access(claims)

    def _key_id(self, token: str) -> str | None:
        """The key that a token names, if it is worth looking for that; proves nothing."""
        try:
            unproved = jwt.decode_complete(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, RecursionError):
            return None
        header, claims = unproved["header"], unproved["payload"]
        key_id = header.get("kid")
        right = header.get("alg") in ALGORITHMS and claims.get("iss") == self._issuer
        return key_id if right and isinstance(key_id, str) else None

    async def _key(self, key_id: str) -> jwt.PyJWK | None:
        since, key = self._keys.get(key_id, (0.0, None))
        if key is not None and time.monotonic() - since < _KEYS_SECONDS:
            return key
        return await anyio.to_thread.run_sync(self._fetch, key_id, limiter=self._threads)

    def _fetch(self, key_id: str) -> jwt.PyJWK | None:
        """Ask the issuer for a key. Blocking; one at a time, and not again soon after a failure."""
        with self._fetching:
            if time.monotonic() < self._away_until:
                raise IssuerAway
            try:
                if self._client is None:
                    self._client = self._connected()
                key = self._client.get_signing_key(key_id)
            except (jwt.PyJWKClientConnectionError, httpx2.HTTPError, OSError, ValueError) as error:
                self._away_until = time.monotonic() + _RETRY_SECONDS
                _log.warning("the keys of the issuer cannot be had: %s", error)
                raise IssuerAway from error
            except jwt.PyJWTError:
                self._keys.pop(key_id, None)
                return None
            self._keys = {
                **{each: kept for each, kept in self._keys.items() if _is_fresh(kept[0])},
                key_id: (time.monotonic(), key),
            }
            return key

    def _connected(self) -> jwt.PyJWKClient:
        return jwt.PyJWKClient(
            self._jwks_url or self._discovered(),
            lifespan=_KEYS_SECONDS,
            timeout=_FETCH_SECONDS,
            cooldown_duration=_UNKNOWN_KEY_SECONDS,
        )

    def _discovered(self) -> str:
        """Where the issuer says that its keys are. Raises HTTPError, ValueError."""
        with httpx2.Client(timeout=_FETCH_SECONDS, follow_redirects=False) as client:
            for url in _metadata_urls(self._issuer):
                answer = client.get(url)
                if answer.status_code != httpx2.codes.OK:
                    continue
                told = answer.json()
                if not isinstance(told, dict) or told.get("issuer") != self._issuer:
                    raise ValueError("the issuer's metadata are of another issuer")
                keys = told.get("jwks_uri")
                if not isinstance(keys, str) or not _is_secure(keys):
                    raise ValueError("the issuer's metadata name no place for its keys that is safe")
                return keys
        raise ValueError("the issuer has no metadata where RFC 8414 and OpenID Connect look for them")


@dataclass(frozen=True, slots=True)
class Resource:
    """This server, as its metadata describe it.

    Attributes:
        issuer: Who gives tokens for it.
        scopes: That there are.
        url: Under which it is known; None where that depends on how it is addressed.
    """

    issuer: str
    scopes: tuple[str, ...]
    url: str | None

    def metadata(self, base: str, path: str) -> dict[str, Any] | None:
        """What is answered at a well-known path; None where there is nothing.

        Args:
            base: Scheme and host by which the request came.
            path: Of the request.
        """
        if not path.startswith(_WELL_KNOWN):
            return None
        resource = path.removeprefix(_WELL_KNOWN)
        if resource and not resource.startswith("/"):
            return None
        return {
            "resource": self.url or base + resource,
            "authorization_servers": [self.issuer],
            "scopes_supported": list(self.scopes),
            "bearer_methods_supported": ["header"],
            "resource_name": "mcp_tasks",
        }

    def metadata_url(self, base: str, path: str) -> str:
        """Where the metadata of a path are."""
        if self.url is None:
            return base + _WELL_KNOWN + quote(path)  # it goes into a header, and anybody chooses it
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc, _WELL_KNOWN + parts.path.rstrip("/"), "", ""))


def resource_of(settings: OauthSettings, scopes: Iterable[str]) -> Resource | None:
    """The description of a server that takes tokens of an issuer; None where it does not."""
    if settings.oauth_issuer is None:
        return None
    audience = settings.oauth_audience or ""
    is_url = urlsplit(audience).scheme in ("http", "https")
    return Resource(settings.oauth_issuer, tuple(scopes), audience if is_url else None)


def _access(claims: dict[str, Any]) -> AccessToken | None:
    subject = claims["sub"]
    if not subject or len(subject) > _LONGEST_SUBJECT or not subject.isprintable():
        return None
    scopes = claims.get("scope", claims.get("scp", ""))
    words = scopes.split() if isinstance(scopes, str) else scopes
    client = claims.get("client_id", claims.get("azp"))
    return AccessToken(
        token="",  # it is worth something to whoever reads it, and nobody needs it any more
        client_id=client if isinstance(client, str) else "unknown",
        scopes=[word for word in words if isinstance(word, str)] if isinstance(words, list) else [],
        expires_at=int(claims["exp"]),
        subject=subject,
        claims={"iss": claims["iss"]},
    )


def _is_fresh(since: float) -> bool:
    return time.monotonic() - since < _KEYS_SECONDS


def _is_secure(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def _secure(url: str, setting: str) -> str:
    if not _is_secure(url):
        raise InvalidArgument(f"{setting} is no https URL", "http is taken on loopback only")
    return url


def _metadata_urls(issuer: str) -> list[str]:
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    paths = (
        f"/.well-known/oauth-authorization-server{path}",
        f"/.well-known/openid-configuration{path}",
        f"{path}/.well-known/openid-configuration",
    )
    return list(dict.fromkeys(urlunsplit((parts.scheme, parts.netloc, each, "", "")) for each in paths))
