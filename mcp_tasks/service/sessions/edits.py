"""One change of a session, as it was asked for, to be made on whatever the session is by then.

The rule for two writers: each field stands for itself, env and preferences name by name. What a call does
not name it leaves as another writer has left it; of two writers of one field the last one wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import to_json

from mcp_tasks.errors import InvalidArgument, LimitReached
from mcp_tasks.models import Session, SessionKey, Share, Workspace
from mcp_tasks.redaction import redact_text, redact_value, secret_values
from mcp_tasks.requests import UpdateSession
from mcp_tasks.service.access import live_shares, make_share
from mcp_tasks.service.sessions.workspaces import Workspaces
from mcp_tasks.service.tasks.hooking import sealed_hooks

__all__ = ["SessionEdit"]

_TOLD_ELSEWHERE = frozenset(
    ("session", "revision", "share", "share_expires_in_ms", "revoke", "expires_in_ms")
)

_MOST_SHARES = 100
_MOST_VARIABLES = 1_000
_MOST_SEALED = 1 << 20
_MOST_PREFERENCES = 1 << 16
"""Whoever looks at a session, or starts something in it, reads its whole record."""


class SessionEdit:
    """What an update_session asks for. Called with a session it returns what that is to be.

    Attributes:
        made: The new share and its token, once there is one; the same however often it is called.
    """

    def __init__(self, request: UpdateSession, key: SessionKey, workspaces: Workspaces, now: int) -> None:
        """Seals what is to be sealed. Raises StoreUnavailable where that cannot be, NotSupported."""
        self._secrets = (*secret_values(request.env), *workspaces.secret_values(key))
        self._request = request
        self._workspaces = workspaces
        self._now = now
        self._env = workspaces.sealed(request.env)
        self._hooks = None if request.hooks is None else sealed_hooks(request.hooks, workspaces.sealer)
        self.made: tuple[Share, str] | None = None

    def __call__(self, session: Session) -> Session:
        """The session after the change. Raises InvalidArgument, and then nothing is to be written."""
        request = self._request
        edited = replace(
            session, workspace=self._workspace(session), shares=self._shares(session), **self._fields()
        )
        if request.expires_in_ms is not None:
            expires_at = self._now + request.expires_in_ms if request.expires_in_ms else None
            edited = replace(edited, expires_at=expires_at)
        return edited

    @property
    def named(self) -> list[str]:
        """The fields that are named and have no event of their own."""
        return sorted(self._request.model_fields_set - _TOLD_ELSEWHERE)

    def _fields(self) -> dict[str, Any]:
        request = self._request
        fields: dict[str, Any] = {
            "title": None if request.title is None else redact_text(request.title, self._secrets),
            "journal_limit": request.journal_limit,
            "seal_journal": request.seal_journal,
            "hooks": self._hooks,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _workspace(self, session: Session) -> Workspace:
        request, workspace = self._request, session.workspace
        cwd, shell = workspace.cwd, workspace.shell
        if request.cwd is not None:
            cwd = self._workspaces.folder(request.cwd, session) if request.cwd else None
        if request.shell is not None:
            if redact_text(request.shell, self._secrets) != request.shell:
                # It is kept in clear, and without the secret it would run nothing.
                raise InvalidArgument("shell holds a secret", "give the path of a shell")
            shell = (
                self._workspaces.program(request.shell, cwd, request.env, session) if request.shell else None
            )
        env = _merged(workspace.env, self._env)
        if len(env) > _MOST_VARIABLES or sum(map(len, env.values())) > _MOST_SEALED:
            raise LimitReached(
                f"env of a session is {_MOST_VARIABLES} names and {_MOST_SEALED} bytes at most",
                "forget some with null",
            )
        preferences = _merged(workspace.preferences, redact_value(request.preferences, self._secrets))
        if request.preferences and len(to_json(preferences)) > _MOST_PREFERENCES:
            raise LimitReached(
                f"preferences of a session are {_MOST_PREFERENCES} bytes of JSON at most",
                "forget some with null; what is long belongs into a file",
            )
        return Workspace(cwd, shell, env, preferences)

    def _shares(self, session: Session) -> tuple[Share, ...]:
        """The shares that still hold, without the one that ends and with the one that begins."""
        request, shares = self._request, live_shares(session, self._now)
        if request.revoke is not None:
            left = tuple(share for share in shares if share.share_id != request.revoke)
            if len(left) == len(shares):
                raise InvalidArgument(
                    f"revoke: no share {request.revoke!r} here", "session_info lists the shares"
                )
            shares = left
        if request.share is None:
            return shares
        if len(shares) >= _MOST_SHARES:
            raise LimitReached(f"a session has {_MOST_SHARES} shares at most", "revoke some")
        if self.made is None:
            holds = request.share_expires_in_ms
            expires_at = None if holds is None else self._now + holds
            self.made = make_share(session.key, request.share, self._now, expires_at)
        return (*shares, self.made[0])


def _merged(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Name by name; what is None is forgotten."""
    return {name: value for name, value in {**old, **changes}.items() if value is not None}
