"""`/healthz`: whether this server can do its work. Open to everybody, and tells nothing of content."""

from __future__ import annotations

import time
from typing import Final

import anyio
from starlette.requests import Request
from starlette.responses import Response

from mcp_tasks.http.api.answers import json_answer
from mcp_tasks.service import Service

__all__ = ["Health"]

_FRESH_S: Final = 1.0
"""Anybody may ask, so that asking must not be work."""

_PATIENCE_S: Final = 5.0


class Health:
    """The last look at the store, kept for a second."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._turn = anyio.Lock()
        self._looked_at = float("-inf")
        self._is_well = False

    async def answer(self, _: Request) -> Response:
        """Answer `/healthz`: 200 or 503."""
        async with self._turn:
            if time.monotonic() - self._looked_at > _FRESH_S:
                self._is_well = False
                with anyio.move_on_after(_PATIENCE_S):
                    self._is_well = await self._service.is_well()
                self._looked_at = time.monotonic()
        status = "ok" if self._is_well else "store unavailable"
        return json_answer({"status": status}, 200 if self._is_well else 503)
