"""What a request that is no tool call is told where it cannot be served: an error of the protocol."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import mcp_types as types
from mcp.shared.exceptions import MCPError

from mcp_tasks.errors import InvalidArgument, PolicyDenied, SessionNotFound, TaskNotFound, TasksError
from mcp_tasks.redaction import redact_text
from mcp_tasks.server.callers import Context

__all__ = ["protocol_error", "told_as_protocol_errors"]

_MAX_MESSAGE = 1_000

_log = logging.getLogger(__name__)


@contextmanager
def told_as_protocol_errors(context: Context, **said: str) -> Iterator[None]:
    """Let every error of the block go as an MCPError, and what is not a client's to know into the log.

    `said` is told in the data of those errors that are a client's to know.
    """
    try:
        yield
    except MCPError:
        raise
    except Exception as raised:  # noqa: BLE001 - the edge: what is not ours to tell goes to the log
        error = raised
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, (MCPError, TasksError)):
            raise (protocol_error(error, **said) if isinstance(error, TasksError) else error) from None
        incident = secrets.token_hex(4)  # joins the answer and the log
        _log.exception("incident %s: %s failed", incident, context.method)
        message = f"{context.method} failed, incident {incident}; the server's log has the details"
        raise MCPError(types.INTERNAL_ERROR, message) from None


def protocol_error(error: TasksError, **said: str) -> MCPError:
    """The same as an error of JSON-RPC. What is not there is a wrong parameter, as 2026-07-28 has it."""
    match error:
        case InvalidArgument() | SessionNotFound() | TaskNotFound():
            code = types.INVALID_PARAMS
        case PolicyDenied():
            code = types.INVALID_REQUEST
        case _:
            code = types.INTERNAL_ERROR
    message = redact_text(error.message[:_MAX_MESSAGE])
    data = {"code": error.code, "hint": error.hint, **said}
    return MCPError(
        code, message, data={name: redact_text(text[:_MAX_MESSAGE]) for name, text in data.items()}
    )
