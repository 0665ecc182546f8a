"""What the suite finds wanting in our server, and why that is as it should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["EXPECTED"]

_COMMAND_FAILS: Final = (
    "a command that fails is no error of the tool: its exit code is the result, completed without isError"
)
_NEVER_FAILED: Final = (
    "the status `failed` is for calls that end in a JSON-RPC error, and a command that has been registered"
    " cannot: there is no tool of ours that the suite's `protocol_error_job` could stand for"
)
_NEVER_ASKS: Final = "a command asks a client for nothing, so no task of ours is ever input_required"

EXPECTED: Final[Mapping[str, str]] = {
    "sep-2663-tool-error-uses-completed-status": _COMMAND_FAILS,
    "sep-2663-tasks-get-status-failed": _NEVER_FAILED,
    "sep-2663-tasks-get-status-input-required": _NEVER_ASKS,
    "tasks-mrtr-partial-fulfillment": _NEVER_ASKS,
}
"""By the id of the check. All of them are of the tasks extension, which only the alpha version knows."""
