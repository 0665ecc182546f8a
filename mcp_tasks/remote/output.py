"""The captured output of a run on a server, read at any byte, so that a break costs nothing but time."""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from mcp_tasks.output import Cursor, Stream
from mcp_tasks.remote.attempts import Answer

__all__ = ["RemoteOutput"]

_PAGE: Final = 262_144
"""The longest that get_result shows."""

_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/.*", re.ASCII)
_END: Final = re.compile(r"bytes \*/([0-9]{1,18})", re.ASCII)


class RemoteOutput:
    """The output of one run.

    Args:
        run: Its number.
        read_range: Asks for a range of a stream of the newest run: stream, first byte, bytes.
        read_page: Asks for what came after a cursor, exact bytes in base64: stream, cursor, bytes.
    """

    def __init__(
        self,
        run: int,
        read_range: Callable[[Stream, int, int], Awaitable[Answer]],
        read_page: Callable[[Stream, Cursor, int], Awaitable[dict[str, Any]]],
    ) -> None:
        self._run = run
        self._is_newest = True
        self._read_range = read_range
        self._read_page = read_page

    async def read(self, stream: Stream, start: int, limit: int) -> tuple[int, bytes]:
        """At most `limit` bytes from `start` on, and where they begin: after `start` where those are gone."""
        if self._is_newest:
            answer = await self._read_range(stream, start, limit)
            if answer.headers.get("mcp-tasks-run") == str(self._run):
                told = answer.headers.get("content-range", "")
                part, end = _RANGE.fullmatch(told), _END.fullmatch(told)
                if part and answer.content:
                    return int(part[1]), answer.content
                if end and start >= int(end[1]):
                    return start, b""
                # Nothing of this range is left, and after it there is more; or it was left out on the way.
            else:
                self._is_newest = False  # another has begun; what is left of this one is in pages
        at = Cursor(self._run, start, 0) if stream == "stdout" else Cursor(self._run, 0, start)
        view = await self._read_page(stream, at, min(limit, _PAGE))
        if view["run"] != self._run or stream not in view.get("shown", {}):
            return start, b""
        return int(view["shown"][stream][0]), base64.b64decode(view[stream])

    def in_order(self) -> Iterator[tuple[Stream, int]]:
        """Nothing: which stream was written to first is known at the other end alone."""
        return iter(())
