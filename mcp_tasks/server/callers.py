"""Who makes a request: from what the transport has proved and what the request says, to a Caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import mcp_types as types
from mcp.server.context import ServerRequestContext
from pydantic import SecretStr

from mcp_tasks.errors import InvalidArgument, PolicyDenied
from mcp_tasks.models import DEFAULT_SESSION, SESSION_NAME, Role
from mcp_tasks.server.progress import ProgressReports
from mcp_tasks.service import Attendance, Caller, Client

__all__ = [
    "SESSION_META_KEY",
    "SHARE_META_KEY",
    "CallerSettings",
    "Callers",
    "Context",
    "Identify",
    "Identity",
    "client_of",
    "share_of",
]

SESSION_META_KEY: Final = "mcp-tasks/session"
"""Key of `_meta` by which a client names the session of a call."""

SHARE_META_KEY: Final = "mcp-tasks/share"
"""Key of `_meta` by which a client gives the token of a share."""

Context = ServerRequestContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is at the other end, as the transport has proved it.

    Attributes:
        role: What he may do with what is his; the scopes of a token may allow less than everything.
        attendance: Writes down in which sessions his client is served.
        share: Token of the share that he has come in with, which leads him into its session alone.
        at_home: Whether he is the user who runs the server.
    """

    owner: str
    role: Role = "owner"
    attendance: Attendance | None = None
    share: str | None = field(default=None, repr=False)
    at_home: bool = True


Identify = Callable[[Context], Identity]
"""Says who makes a request. Raises PolicyDenied where nobody is known."""


class CallerSettings(Protocol):
    """What is decided by the settings of a server about those who call it."""

    @property
    def session(self) -> str | None:
        """The session that is meant where a call names none."""
        ...

    @property
    def share(self) -> SecretStr | None:
        """Token of the share that is meant where a call gives none."""
        ...

    @property
    def max_wait_ms(self) -> int:
        """The longest that one call waits."""
        ...


class Callers:
    """Makes a Caller of each request."""

    def __init__(self, settings: CallerSettings, identify: Identify) -> None:
        self._settings = settings
        self._identify = identify

    def caller(self, context: Context, session: str | None = None) -> Caller:
        """Say who calls: the session is the given one, else that of `_meta`, of the settings, the default.

        Raises:
            InvalidArgument: What the call or its `_meta` says of session or share is wrong.
            PolicyDenied: Nobody is known at the other end, or he gives another share than he came with.
        """
        settings, identity = self._settings, self._identify(context)
        share = share_of(identity.share, _given_share(context.meta), settings)
        # What is meant by default is for those who may choose.
        by_default = settings.session if identity.share is None else None
        session = _session_of(session, context.meta) or by_default
        attendance = identity.attendance
        return Caller(
            owner=identity.owner,
            session=session or DEFAULT_SESSION,
            named=session is not None,
            max_wait_ms=settings.max_wait_ms,
            progress=_progress(context),
            share=share,
            role=identity.role,
            at_home=identity.at_home,
            served_in=None if attendance is None else lambda key: attendance.saw(key, client_of(context)),
        )


def _session_of(argument: str | None, meta: Mapping[str, Any] | None) -> str | None:
    session: object = argument or (meta or {}).get(SESSION_META_KEY)
    if session is None:
        return None
    if not isinstance(session, str) or not SESSION_NAME.fullmatch(session):
        where = "session" if argument else f"_meta[{SESSION_META_KEY!r}]"
        raise InvalidArgument(
            f"{where} is not a session name",
            "a name has 1 to 128 of the characters A-Z a-z 0-9 . _ - and is not . or ..",
        )
    return session


def _given_share(meta: Mapping[str, Any] | None) -> str | None:
    token = (meta or {}).get(SHARE_META_KEY)
    if token is not None and not (isinstance(token, str) and token):
        raise InvalidArgument(
            f"_meta[{SHARE_META_KEY!r}] is no token", "give the token that update_session told, as it was"
        )
    return token


def share_of(bearer: str | None, given: str | None, settings: CallerSettings) -> str | None:
    """The share by which a call is made.

    Args:
        bearer: The one that proved who it is; it lets its bearer nowhere else.
        given: The one that the call gives.
        settings: Has the one that is meant otherwise.

    Raises:
        PolicyDenied: The call gives another share than the bearer's.
    """
    if bearer is None:
        return given or (settings.share.get_secret_value() if settings.share else None)
    if given not in (None, bearer):
        raise PolicyDenied(
            "the token that you came with is a share, and the call gives another one",
            "leave it out, or come with the other one",
        )
    return bearer


def client_of(context: Context) -> Client:
    """What the client says of itself: at the handshake, or since 2026-07-28 with each request."""
    params = context.session.client_params
    if params is not None:
        return Client(params.client_info.name, params.client_info.version)
    told = (context.meta or {}).get(types.CLIENT_INFO_META_KEY)
    told = told if isinstance(told, Mapping) else {}
    return Client(str(told.get("name") or "unknown"), str(told.get("version") or ""))


def _progress(context: Context) -> ProgressReports | None:
    """What tells the client how a wait goes, where it has asked for that."""
    if (context.meta or {}).get("progress_token") is None:
        return None
    return ProgressReports(context.session.report_progress)
