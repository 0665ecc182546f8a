"""The exit code of this process that tells how a task ended."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

__all__ = ["TIMED_OUT", "exit_code_of"]

TIMED_OUT = 124
"""As timeout(1) has it."""
_NOT_FOUND = 127
_SIGNALLED = 128


def exit_code_of(view: Mapping[str, Any]) -> int:
    """Tell the end of a task as a shell would: its exit code, or 128 and the signal.

    Args:
        view: The view of a final task.

    Returns:
        Never 0 for a task that has not completed, whatever the command itself said.
    """
    code, name = view.get("exit_code"), view.get("signal")
    match view.get("outcome"):
        case "exited" if isinstance(code, int):
            return code
        case "timed_out":
            return TIMED_OUT
        case "spawn_failed":
            return _NOT_FOUND
        case "signalled" | "cancelled" if isinstance(name, str):
            return _SIGNALLED + _number(name)
        case _:
            return code or 1


def _number(name: str) -> int:
    try:
        return signal.Signals[name].value
    except KeyError:  # a real-time signal
        return 0
