"""What the API answers with: JSON, and problems."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from mcp_tasks.api.problems import MEDIA_TYPE, problem, status_of
from mcp_tasks.errors import TasksError

__all__ = ["failed", "json_answer", "problem_answer", "refused"]

_MAX_MESSAGE = 1_000
"""Longest message or hint, in characters: it may quote what the client gave."""

_log = logging.getLogger(__name__)


def json_answer(
    content: Any,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    media_type: str = "application/json",
) -> Response:
    """An answer that nobody may keep: it may hold what only this caller is to see."""
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    kept = {"cache-control": "no-store", **(headers or {})}
    # A lone surrogate becomes its escape, which is JSON as well.
    return Response(body.encode("utf-8", "backslashreplace"), status, kept, media_type)


def problem_answer(
    status: int,
    message: str,
    hint: str = "",
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error that HTTP has a status for."""
    body = problem(status, _cut(message), _cut(hint), code=code)
    return json_answer(body, status, headers, MEDIA_TYPE)


def refused(error: TasksError, hint: str = "") -> Response:
    """An error of the service, with a hint in place of its own where there is a better one over HTTP."""
    status = status_of(error.code)
    later = {"retry-after": "1"} if status in (429, 503) else None
    return problem_answer(status, error.message, hint or error.hint, code=error.code, headers=later)


def failed(what: str) -> Response:
    """A defect of ours, while its exception is handled: the log has the details, the answer has none."""
    incident = secrets.token_hex(4)
    _log.exception("incident %s: %s failed", incident, what)
    return problem_answer(
        500, f"{what} failed, incident {incident}", "the server's log has the details", code="internal"
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE else f"{text[: _MAX_MESSAGE - 1]}…"
