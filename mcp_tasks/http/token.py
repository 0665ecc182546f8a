"""The built-in bearer token: made once, shown once, and afterwards known by its digest alone.

The file `http_token` in the state directory holds the token until somebody has asked for it, and its
SHA-256 from then on. Whoever replaces the file replaces the token: it is looked at again with each request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from mcp_tasks.errors import InvalidArgument, PolicyDenied, StoreUnavailable
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.locks import ProcessLock
from mcp_tasks.stores.disk.safe_folder import make_safe_folder

__all__ = ["FileToken", "GivenToken", "Token", "TokenFile"]

_FORM: Final = "mcptasks_http_"
"""How every token made here begins, so that it is known as a secret wherever it shows up."""

_NAME: Final = "http_token"
_RANDOM_BYTES: Final = 32
_MOST_BYTES: Final = 4_096
_LOCK_SECONDS: Final = 5.0
_SHORTEST: Final = 20
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# What may stand behind `Bearer` (RFC 6750, section 2.1).
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")

_log = logging.getLogger(__name__)


class Token(Protocol):
    """What a bearer has to show."""

    def fits(self, given: bytes) -> bool:
        """Whether it is the token; takes the same time whatever is wrong with it."""
        ...


class GivenToken:
    """A token that whoever started the server has given in `MCP_TASKS_TOKEN`.

    Raises:
        InvalidArgument: It is too short, or cannot be sent in a header.
    """

    def __init__(self, token: str) -> None:
        if len(token) < _SHORTEST or not _BEARER.fullmatch(token):
            raise InvalidArgument(
                "MCP_TASKS_TOKEN is too short, or has characters that no header takes",
                f"give {_SHORTEST} or more of A-Z a-z 0-9 . _ ~ + / -, as `openssl rand -hex 32` makes them,"
                " or unset it",
            )
        self._digest = _digest(token.encode())

    def fits(self, given: bytes) -> bool:
        """See `Token`."""
        return hmac.compare_digest(_digest(given), self._digest)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the file says. `token` is None once it has been shown."""

    digest: str
    token: str | None


class TokenFile:
    """The file, for whoever makes or shows the token. No link is followed; it is 0600 whatever the umask.

    Args:
        folder: The state directory; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._lock = ProcessLock(str(folder / f"{_NAME}.lock"), _LOCK_SECONDS)

    def make(self) -> bool:
        """Make a token unless there is one. Returns whether it is new. Raises StoreUnavailable."""
        with self._held():
            if _read(self._path) is not None:
                return False
            token = _new()
            self._keep(token, may_be_shown=True)
            return True

    def show(self) -> str:
        """The token, which is made if there is none, and told only this once.

        Raises:
            PolicyDenied: It has been shown before.
            StoreUnavailable: The file cannot be used.
        """
        with self._held():
            kept = _read(self._path)
            if kept is not None and kept.token is None:
                raise PolicyDenied(
                    "the token has been shown before, and only a digest of it is kept",
                    "mcp-tasks token --new makes another one, and the old one is worth nothing then",
                )
            return self._told(_new() if kept is None or kept.token is None else kept.token)

    def replace(self) -> str:
        """A new token, told this once; running servers take it at once. Raises StoreUnavailable."""
        with self._held():
            return self._told(_new())

    def _told(self, token: str) -> str:
        # Only what is surely kept is told; somebody who is killed in between asks for a new one.
        self._keep(token, may_be_shown=False)
        return token

    def _keep(self, token: str, *, may_be_shown: bool) -> None:
        fields = {"sha256": _digest(token.encode())} | ({"token": token} if may_be_shown else {})
        durable.write_durably(self._path, json.dumps(fields).encode() + b"\n")

    @contextmanager
    def _held(self) -> Iterator[None]:
        make_safe_folder(self._path.parent)
        with self._lock.held():
            yield


class FileToken:
    """The token of the file, as it is now.

    A file that is gone or broken lets nobody in.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._seen: tuple[int, int, int] | None = None
        self._digest = ""

    def fits(self, given: bytes) -> bool:
        """See `Token`."""
        self._refresh()
        return hmac.compare_digest(_digest(given), self._digest)

    def _refresh(self) -> None:
        try:
            found = os.lstat(self._path)
        except OSError:
            self._seen, self._digest = None, ""
            return
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen == self._seen:
            return
        try:
            kept = _read(self._path)
        except StoreUnavailable as error:
            _log.warning("nobody gets in with the token: %s", error)
            kept = None
        self._seen, self._digest = seen, "" if kept is None else kept.digest


def _new() -> str:
    return _FORM + secrets.token_urlsafe(_RANDOM_BYTES)


def _digest(token: bytes) -> str:
    # The token is random as a whole, so there is nothing for a slow hash to protect. Two digests are
    # compared, so the time tells nothing of how near a guess was, or of how long the token is.
    return hashlib.sha256(token).hexdigest()


def _read(path: Path) -> _Kept | None:
    """What is in the file; None where there is none. Raises StoreUnavailable where it is none of ours."""
    try:
        fields = json.loads(durable.read_private(path, _MOST_BYTES, _log.warning))
    except FileNotFoundError:
        return None
    except ValueError:
        fields = None
    match fields:
        case {"sha256": str(digest), "token": str(token)} if digest == _digest(token.encode()):
            return _Kept(digest, token)
        case {"sha256": str(digest)} if "token" not in fields and _SHA256.fullmatch(digest):
            return _Kept(digest, None)
        case _:
            raise StoreUnavailable(
                "the file http_token holds no token", "mcp-tasks token --new puts one there"
            )
