"""How a launch is written: for the supervisor on a socket, and for a pending task in a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.executors import wire
from mcp_tasks.ports import Launch

__all__ = ["from_file", "to_file", "to_wire"]


def to_wire(launch: Launch, folder: Path) -> dict[str, Any]:
    """The frame that a supervisor is sent. Raises InvalidArgument for what no system call would take."""
    try:
        argv = [os.fsencode(word) for word in launch.argv]
        cwd = os.fsencode(launch.cwd)
        env = {os.fsencode(name): os.fsencode(value) for name, value in launch.env.items()}
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            "the command has characters that cannot be encoded", "leave them out"
        ) from error
    return {
        "argv": argv,
        "cwd": cwd,
        "env": env,
        "stdin": bytes(launch.stdin),
        "interactive": launch.interactive,
        "timeout_ms": launch.timeout_ms,
        "grace_ms": launch.grace_ms,
        "max_output_bytes": launch.max_output_bytes,
        "on_output_limit": launch.on_output_limit,
        "min_free_bytes": launch.min_free_bytes,
        "lifeline": launch.lifeline,
        # What may be removed, when it is empty, if the run never comes to be.
        "folders": [str(folder)],
    }


def to_file(launch: Launch) -> bytes:
    """What a pending task keeps of its launch until it is started."""
    record = {
        "v": wire.RECORD_VERSION,
        "argv": list(launch.argv),
        "cwd": launch.cwd,
        "env": dict(launch.env),
        "stdin": launch.stdin.hex(),
        "interactive": launch.interactive,
        "timeout_ms": launch.timeout_ms,
        "grace_ms": launch.grace_ms,
        "max_output_bytes": launch.max_output_bytes,
        "on_output_limit": launch.on_output_limit,
        "min_free_bytes": launch.min_free_bytes,
        "lifeline": launch.lifeline,
    }
    return json.dumps(record).encode()


def from_file(content: bytes) -> Launch:
    """Read what `to_file` wrote. Raises ValueError, KeyError or TypeError for anything else."""
    record = json.loads(content)
    if not isinstance(record, dict) or record.pop("v") != wire.RECORD_VERSION:
        raise ValueError("this is no launch that this version can read")
    return Launch(**{**record, "stdin": bytes.fromhex(record["stdin"])})
