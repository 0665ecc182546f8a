"""Errors as the HTTP API tells them: problem details (RFC 9457) with the stable code and the hint."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

__all__ = ["MEDIA_TYPE", "STATUSES", "problem", "status_of"]

MEDIA_TYPE: Final = "application/problem+json"

STATUSES: Final[Mapping[str, int]] = {
    "invalid_argument": 400,
    "policy_denied": 403,
    "read_only": 403,
    "task_not_found": 404,
    "session_not_found": 404,
    "plan_not_found": 404,
    "message_not_found": 404,
    "key_conflict": 409,
    "revision_conflict": 409,
    "task_not_finished": 409,
    "not_supported": 422,
    "limit_reached": 429,
    "internal": 500,
    "spawn_failed": 503,
    "store_unavailable": 503,
}
"""Status by code. What HTTP itself refuses has the code of its status: `not_found`, `method_not_allowed`."""


def status_of(code: str) -> int:
    """The status of an error of the service; 500 for one that nobody has thought of."""
    return STATUSES.get(code, 500)


def problem(status: int, message: str, hint: str = "", *, code: str | None = None) -> dict[str, Any]:
    """The body of an answer that is an error.

    Args:
        status: Of the answer.
        message: What was wrong; the `detail` of the problem.
        hint: What would be right.
        code: Stable name; without one, the name of the status.
    """
    known = HTTPStatus(status)
    body = {
        "type": "about:blank",  # so that the title is the status's own (RFC 9457, 4.2.1)
        "title": known.phrase,
        "status": status,
        "detail": message,
        "code": code or known.name.lower(),
    }
    return {**body, "hint": hint} if hint else body
