"""Copies the captured output of a task to this process's stdout and stderr, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_tasks.cli.printing import ByteSink
from mcp_tasks.output.captured import STREAMS, Cursor, Stream

if TYPE_CHECKING:
    from mcp_tasks.cli.backends import Backend, Captured
    from mcp_tasks.service import Caller

__all__ = ["OutputCopy"]

_PIECE = 1 << 20
_ENDLESS = 1 << 62


class OutputCopy:
    """Where copying has got to, so that following goes on where a first look ended.

    Args:
        streams: Which are copied.
        raw: Exact bytes, even on a terminal.
    """

    def __init__(self, streams: str = "both", *, raw: bool = False) -> None:
        self._streams = STREAMS if streams == "both" else tuple(name for name in STREAMS if name == streams)
        self._at: dict[Stream, int] = {"stdout": 0, "stderr": 0}
        self._sinks = {name: ByteSink(name, raw=raw) for name in self._streams}

    async def copy_all(
        self,
        service: Backend,
        caller: Caller,
        task_id: str,
        *,
        lines: int | None = None,
        follow: bool = False,
    ) -> None:
        """Copy the output of a task as far as it has come, or with `follow` until the task is over.

        With `lines` only so many lines at the end of what is there of each stream, and what follows. What a
        task writes in further runs follows upon each other.
        """
        end, is_final = await service.reached(caller, task_id)
        run = end.run
        captured = await service.captured(caller, task_id, run)
        if lines is not None:
            for stream in self._streams:
                self._at[stream] = await _start_of_lines(captured, stream, end.of(stream), lines)
        while True:
            while run < end.run:
                await self._copy(captured)  # what is left of a run that is over
                run, self._at = run + 1, dict.fromkeys(self._at, 0)
                captured = await service.captured(caller, task_id, run)
            copied = await self._copy(captured, end)
            if not follow or (is_final and not copied):
                self.finish()
                return
            end, is_final = await service.reached(caller, task_id, None if is_final else self._passed(end))

    def _passed(self, end: Cursor) -> Cursor:
        """What need not be waited for: what has been copied, and what is not wanted."""
        at = {stream: self._at[stream] if stream in self._streams else end.of(stream) for stream in STREAMS}
        return Cursor(end.run, at["stdout"], at["stderr"])

    async def _copy(self, captured: Captured, end: Cursor | None = None) -> int:
        """Copy what is there, at most to `end`, and has not been copied, and return how many bytes that was.

        As far as the index of the run tells it, the streams come in the order in which the command
        wrote them; what has no entry yet comes after.
        """
        copied = 0
        if self._at == {"stdout": 0, "stderr": 0} and len(self._streams) > 1:
            for stream, until in captured.in_order():
                copied += await self._copy_to(captured, stream, until)
        for stream in self._streams:
            copied += await self._copy_to(captured, stream, _ENDLESS if end is None else end.of(stream))
        return copied

    async def _copy_to(self, captured: Captured, stream: Stream, end: int) -> int:
        copied = 0
        while self._at[stream] < end:
            start, data = await captured.read(stream, self._at[stream], min(_PIECE, end - self._at[stream]))
            if not data:
                break
            self._sinks[stream].write(data)
            copied += len(data)
            self._at[stream] = start + len(data)
        return copied

    def finish(self) -> None:
        """Let go of what was held back for its next part."""
        for sink in self._sinks.values():
            sink.write(b"", final=True)


async def _start_of_lines(captured: Captured, stream: Stream, end: int, lines: int) -> int:
    """Where the last `lines` lines of a stream begin; a newline at the very end begins none."""
    if lines <= 0 or end == 0:
        return end
    wanted = lines
    position = end
    while position > 0:
        start = max(0, position - _PIECE)
        for begin, data in reversed(await _pieces(captured, stream, start, position)):
            at = len(data)
            if begin + at == end and data.endswith(b"\n"):
                wanted += 1
            while (at := data.rfind(b"\n", 0, at)) >= 0:
                wanted -= 1
                if wanted == 0:
                    return begin + at + 1
        position = start
    return 0


async def _pieces(captured: Captured, stream: Stream, start: int, end: int) -> list[tuple[int, bytes]]:
    """What is left of a part of a stream: where each piece begins, and its bytes. Between them are holes."""
    pieces = []
    while start < end:
        begin, data = await captured.read(stream, start, end - start)
        data = data[: max(0, end - begin)]
        if not data:
            break
        pieces.append((begin, data))
        start = begin + len(data)
    return pieces
