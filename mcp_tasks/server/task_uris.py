"""The addresses of tasks and their output as resources.

`task://{task_id}`, and `task://{task_id}/stdout{?offset,limit}` and the same of stderr.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import parse_qsl

from mcp_tasks.errors import InvalidArgument, TaskNotFound
from mcp_tasks.models import TASK_ID
from mcp_tasks.output import Stream

__all__ = ["MOST_BYTES", "TaskUri"]

MOST_BYTES: Final = 262_144
"""The most that one read shows."""

_URI: Final = re.compile(r"task://([^/?#]*)(?:/(stdout|stderr)(?:\?([^#]*))?)?", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_HINT: Final = "task://ID, task://ID/stdout or task://ID/stderr, these with ?offset=N&limit=N"


@dataclass(frozen=True, slots=True)
class TaskUri:
    """A task, or some of its output.

    Attributes:
        stream: None means the task itself.
        offset: Of the first byte.
        limit: Bytes at most.
    """

    task_id: str
    stream: Stream | None = None
    offset: int = 0
    limit: int = MOST_BYTES

    @classmethod
    def parse(cls, uri: str) -> TaskUri:
        """Read an address.

        Raises:
            InvalidArgument: It is none of a task.
            TaskNotFound: It names what cannot be a task.
        """
        found = _URI.fullmatch(uri)
        if found is None:
            raise InvalidArgument(f"{uri[:200]!r} is no resource of this server", _HINT)
        task_id, stream, query = found.groups()
        if not TASK_ID.fullmatch(task_id):
            raise TaskNotFound(task_id[:64])
        numbers = {"offset": 0, "limit": MOST_BYTES}
        given = parse_qsl(query or "", keep_blank_values=True)
        for name, value in given:
            if name not in numbers or not _NUMBER.fullmatch(value):
                raise InvalidArgument(f"{name[:64]!r} does not go with an address like that", _HINT)
            numbers[name] = int(value)
        if not 0 < numbers["limit"] <= MOST_BYTES:
            raise InvalidArgument("limit is not right", f"it should be 1 to {MOST_BYTES} bytes")
        return cls(task_id, cast("Stream | None", stream), **numbers)
