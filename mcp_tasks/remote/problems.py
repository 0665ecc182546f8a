"""From an answer that is a problem to the error that the service raised at the other end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mcp_tasks import errors
from mcp_tasks.errors import (
    InternalError,
    InvalidArgument,
    NotSupported,
    PolicyDenied,
    StoreUnavailable,
    TasksError,
)

__all__ = ["error_of", "not_ours"]

_BY_CODE: Final[Mapping[str, type[TasksError]]] = {
    kind.code: kind for kind in TasksError.__subclasses__() if kind.__module__ == errors.__name__
}
"""Each code's own class, and not a special case of it."""


def error_of(status: int, body: object, shown: str) -> TasksError:
    """The error that an answer means.

    Args:
        status: Of the answer.
        body: What was in it, where that was JSON.
        shown: The address of the server, for people.
    """
    told: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    message = str(told.get("detail") or told.get("title") or f"{shown} answered with status {status}")
    hint = str(told.get("hint") or "")
    if kind := _BY_CODE.get(str(told.get("code"))):
        return _made(kind, message, hint)
    match status:
        case 401:
            return PolicyDenied(
                message, "set MCP_TASKS_TOKEN; `mcp-tasks token` shows it where the server runs"
            )
        case 403 | 421:
            return PolicyDenied(message, hint)
        case 404 | 405:
            return NotSupported(f"{shown} has no such operation", "is it mcp-tasks, and of this version?")
        case _ if 400 <= status < 500:
            return InvalidArgument(message, hint)
        case 500 if told:
            return InternalError(message, hint)
        case _:
            return StoreUnavailable(message, hint or "is it mcp-tasks that answers there?")


def not_ours(shown: str) -> StoreUnavailable:
    """What is raised where something answers that is no server of ours, or one of another version."""
    return StoreUnavailable(
        f"{shown} does not answer as mcp-tasks does", "is it mcp-tasks, and of this version?"
    )


def _made(kind: type[TasksError], message: str, hint: str) -> TasksError:
    # Some errors make their words of what is missing; here the words have been made.
    error = kind.__new__(kind)
    TasksError.__init__(error, message, hint)
    return error
