"""From a line of stdin to a JSON-RPC message, or to the error that answers it.

The SDK's reader drops what it cannot parse, and the client waits for its answer until it gives up.
JSON-RPC 2.0, section 5.1, has errors for that: -32700 for what is no JSON, -32600 for no request.
"""

from __future__ import annotations

import re
from typing import Any, Final

import mcp_types as types
from pydantic import ValidationError
from pydantic_core import from_json

from mcp_tasks.server.wire import MAX_LINE, Oversized

__all__ = ["decoded", "request_key"]

# Where a serialiser puts the id of a request: first or last. Anywhere else it may belong to an argument.
_ID: Final = rb'"id"\s*:\s*(-?\d{1,18}|"(?:[^"\\]|\\.){0,128}")'
_ID_FIRST: Final = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?' + _ID + rb"\s*,", re.DOTALL)
_ID_LAST: Final = re.compile(rb",\s*" + _ID + rb'\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z', re.DOTALL)


def decoded(line: bytes | Oversized) -> types.JSONRPCMessage | types.JSONRPCError | None:
    """Read one line.

    Returns:
        A message to carry on; or an error to send back; or None where nothing is to be done. A
        message that came in as an error cannot be told from one to send back, and need not be: this
        server asks its clients nothing, so no error is for it.
    """
    if isinstance(line, Oversized):
        said = f"the message is longer than {MAX_LINE} bytes"
        return _error(_id_at_the_ends(line), types.INVALID_REQUEST, said)
    if not line.strip():
        return None
    try:
        message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError:
        return _refused(line)
    return None if isinstance(message, types.JSONRPCError) else message


def request_key(request_id: Any) -> str:
    """What tells requests apart: as in the SDK, the ids 7 and "7" are the same."""
    return str(request_id)


def _refused(line: bytes) -> types.JSONRPCError | None:
    try:
        message = from_json(line)
    except ValueError:
        try:
            message = from_json(line.decode(errors="replace"))
        except ValueError:
            return _error(None, types.PARSE_ERROR, "the message is not JSON")
        return _error(_id_of(message), types.PARSE_ERROR, "the message is not UTF-8")
    if isinstance(message, dict) and "method" not in message and ("result" in message or "error" in message):
        return None  # a broken answer to a question that was never asked
    return _error(_id_of(message), types.INVALID_REQUEST, "the message is not a JSON-RPC 2.0 request")


def _id_of(message: Any) -> types.RequestId | None:
    found = message.get("id") if isinstance(message, dict) else None
    return found if isinstance(found, (int, str)) and not isinstance(found, bool) else None


def _id_at_the_ends(line: Oversized) -> types.RequestId | None:
    found = _ID_FIRST.match(line.head) or _ID_LAST.search(line.tail)
    if found is None:
        return None
    try:
        return _id_of({"id": from_json(found[1])})
    except ValueError:
        return None


def _error(request_id: types.RequestId | None, code: int, message: str) -> types.JSONRPCError:
    return types.JSONRPCError(jsonrpc="2.0", id=request_id, error=types.ErrorData(code=code, message=message))
