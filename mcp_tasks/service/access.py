"""Who may do what: the one place that decides which session a caller is in, and as what.

A share is a token that its holder gives with a call. It names owner, session and share, and carries
256 random bits; of those only a digest is kept. It is looked up at each call, so an end of a share
counts at once, on every server.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import anyio

from mcp_tasks.clock import Clock
from mcp_tasks.errors import PolicyDenied, SessionNotFound, ShareNotValid, StoreUnavailable, TaskNotFound
from mcp_tasks.models import SESSION_NAME, TASK_ID, Role, Session, SessionKey, Share, TaskKey, as_task_id
from mcp_tasks.ports import Store
from mcp_tasks.waiting import Progress

__all__ = [
    "REFUSAL_S",
    "TOKEN_PREFIX",
    "Access",
    "Caller",
    "live_shares",
    "make_share",
    "needed",
    "require",
    "session_of_share",
]

TOKEN_PREFIX: Final = "mcptasks_share_"  # noqa: S105 - the form of a token, no token
"""How every share token begins, so that it is known as a secret wherever it shows up."""

_SECRET_BYTES: Final = 32
_LONGEST_TOKEN: Final = 4_000
REFUSAL_S: Final = 0.01
"""How long a token that opens nothing takes, whatever was wrong with it."""

_RANKS: Final[Mapping[Role, int]] = {"read": 0, "write": 1, "owner": 2}

_NEEDS: Final[Mapping[str, Role]] = {
    "poll_task": "read",
    "get_result": "read",
    "list_tasks": "read",
    "search_output": "read",
    "wait_tasks": "read",
    "session_info": "read",
    "list_sessions": "read",
    "plan_progress": "read",
    "read_journal": "read",
    "search_journal": "read",
    "export_session": "read",
    "project_context": "read",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call is made.

    Attributes:
        named: Somebody named the session. Otherwise a task id is found in any session of the owner.
        max_wait_ms: No wait of this caller is longer.
        stays: Whether he is there until what he starts has ended, so that a command which cannot be kept
            may run in memory; of one who goes at once it would end with him.
        share: Token of a share. With it the caller is led into the session of the share, whoever he is.
        role: What he may do there; of a caller with a share it is known once he has been admitted.
        via: Id of the share by which he was admitted.
        at_home: Whether he is the user who runs the server. The folder that it was started in is looked at
            for nobody else.
        served_in: Called with the session in which a call of his has been served.
    """

    owner: str
    session: str
    named: bool
    max_wait_ms: int = 25_000
    stays: bool = True
    progress: Progress | None = None
    share: str | None = field(default=None, repr=False)
    role: Role = "owner"
    via: str | None = None
    at_home: bool = True
    served_in: Callable[[SessionKey], None] | None = None

    @property
    def session_key(self) -> SessionKey:
        """The session that the caller works in."""
        return SessionKey(self.owner, self.session)

    @property
    def by(self) -> str:
        """How the journal and the audit log name him."""
        return f"share {self.via}" if self.via is not None else f"user {self.owner}"


def needed(tool: str) -> Role:
    """The least role that a tool takes; parts of some take more."""
    return _NEEDS.get(tool, "write")


def require(role: Role, need: Role, *, by_share: bool) -> None:
    """Raises PolicyDenied where a role, by a share or by a token, is not enough."""
    if _RANKS[role] >= _RANKS[need]:
        return
    if not by_share:
        raise PolicyDenied(f"the token lets you {role}, and no more", "ask its issuer for one that may write")
    if need == "owner":
        raise PolicyDenied(
            "a share does not let you share, delete, archive or forcibly end the session, or see others",
            "ask the owner of the session to do it",
        )
    raise PolicyDenied(
        f"this share lets you {role} in the session, not {need}",
        f"ask the owner of the session for a share with the role {need}",
    )


class Access:
    """Admits callers, and finds for them what they may see. Reads records, writes nothing."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def admit(self, caller: Caller, need: Role) -> Caller:
        """The caller in the session that he may work in, with his role there.

        Raises:
            ShareNotValid: The token opens nothing. The words and the time that it takes are the same
                whatever the reason.
            SessionNotFound: It opens another session than the one that was named.
            PolicyDenied: His role is not enough.
        """
        if caller.share is None:
            self.require(caller, need)
            return caller
        began = time.monotonic()
        try:
            admitted = self.admit_now(caller)
        except SessionNotFound:
            await anyio.sleep(max(0.0, began + REFUSAL_S - time.monotonic()))
            raise
        self.require(admitted, need)
        return admitted

    def admit_now(self, caller: Caller) -> Caller:
        """As `admit`, without looking at what the role is good for."""
        if caller.share is None:
            return caller
        found = self._opened(caller.share)
        if found is None:
            raise ShareNotValid
        key, share = found
        if caller.named and caller.session != key.session:
            raise SessionNotFound(caller.session)
        # A credential that lets its bearer do less than the share does goes on doing so.
        role = min(caller.role, share.role, key=_RANKS.__getitem__)
        return replace(
            caller, owner=key.owner, session=key.session, named=True, role=role, via=share.share_id
        )

    def require(self, caller: Caller, need: Role) -> None:
        """Raises PolicyDenied where the caller's role is not enough."""
        require(caller.role, need, by_share=caller.via is not None)

    def find(self, caller: Caller, task_id: str) -> TaskKey:
        """The task that an id means for a caller. Raises TaskNotFound, in the same words for whatever reason.

        An id of another owner takes the same steps as one that does not exist.
        """
        task_id = as_task_id(task_id)
        if not TASK_ID.fullmatch(task_id):
            raise TaskNotFound(task_id)
        key = TaskKey(caller.owner, caller.session, task_id)
        try:
            return self._store.load(key).key
        except TaskNotFound:
            if caller.named:
                raise
        return self._store.locate(caller.owner, task_id)

    def _opened(self, token: str) -> tuple[SessionKey, Share] | None:
        """The session and the share that a token opens now."""
        named = _read_token(token)
        shares: tuple[Share, ...] = ()
        if named is not None:
            try:
                shares = self._store.load_session(named[0]).shares
            except (SessionNotFound, StoreUnavailable):
                shares = ()
        given = _digest(token)
        found: Share | None = None
        for share in shares:
            # Each is compared to its end, so that the time tells nothing of how near a guess was.
            fits = hmac.compare_digest(share.digest, given)
            if fits and named is not None and share.share_id == named[1]:
                found = share
        if named is None or found is None or _is_over(found, self._clock.now_ms()):
            return None
        return named[0], found


def make_share(session: SessionKey, role: Role, now_ms: int, expires_at: int | None) -> tuple[Share, str]:
    """A new share of a session, and its token, which is told once and kept nowhere."""
    share_id = secrets.token_hex(8)
    named = json.dumps([session.owner, session.session, share_id], separators=(",", ":"))
    token = f"{TOKEN_PREFIX}{_text(named.encode())}.{secrets.token_urlsafe(_SECRET_BYTES)}"
    return Share(share_id, role, _digest(token), now_ms, expires_at), token


def session_of_share(token: str) -> str | None:
    """The session that a token says it opens, which proves nothing; None where it is no token."""
    named = _read_token(token)
    return None if named is None else named[0].session


def live_shares(session: Session, now_ms: int) -> tuple[Share, ...]:
    """The shares that still open the session."""
    return tuple(share for share in session.shares if not _is_over(share, now_ms))


def _is_over(share: Share, now_ms: int) -> bool:
    return share.expires_at is not None and share.expires_at <= now_ms


def _digest(token: str) -> str:
    # The token is random as a whole, so there is nothing for a slow hash to protect.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _read_token(token: str) -> tuple[SessionKey, str] | None:
    """Session and share that a token names; None where it is none. It proves nothing yet."""
    named, dot, _ = token.removeprefix(TOKEN_PREFIX).partition(".")
    if not token.startswith(TOKEN_PREFIX) or not dot or len(token) > _LONGEST_TOKEN:
        return None
    try:
        parts = json.loads(base64.urlsafe_b64decode(named + "=" * (-len(named) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    match parts:
        case [str(owner), str(session), str(share_id)] if SESSION_NAME.fullmatch(session) and owner:
            return SessionKey(owner, session), share_id
        case _:
            return None
