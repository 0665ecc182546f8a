"""Copies the captured output of a task to this process's stdout and stderr, byte for byte."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from mcp_tasks.cli.calling import CHUNK_MS
from mcp_tasks.cli.printing import ByteSink

if TYPE_CHECKING:
    from mcp_tasks.models import Task
    from mcp_tasks.output.captured import RunOutput
    from mcp_tasks.service import Caller, Service

__all__ = ["OutputCopy"]

Stream = Literal["stdout", "stderr"]

_STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
_PIECE = 1 << 20
_RECORD = struct.Struct("<QII")
_RECORDS = 4096


class OutputCopy:
    """Where copying has got to, so that following goes on where a first look ended.

    Args:
        streams: Which are copied.
        raw: Exact bytes, even on a terminal.
    """

    def __init__(self, streams: str = "both", *, raw: bool = False) -> None:
        self._streams = _STREAMS if streams == "both" else tuple(name for name in _STREAMS if name == streams)
        self._at: dict[Stream, int] = {"stdout": 0, "stderr": 0}
        self._sinks = {name: ByteSink(name, raw=raw) for name in self._streams}

    def begin_with_lines(self, output: RunOutput, lines: int) -> None:
        """Leave out all but the last lines of each stream."""
        for stream in self._streams:
            self._at[stream] = _start_of_lines(output, stream, lines)

    def copy(self, output: RunOutput) -> int:
        """Copy what is there and has not been copied, and return how many bytes that was.

        As far as the index of the run tells it, the streams come in the order in which the command
        wrote them; what has no entry yet comes after.
        """
        copied = 0
        if self._at == {"stdout": 0, "stderr": 0} and len(self._streams) > 1:
            for stream, end in _in_order(output):
                copied += self._copy_to(output, stream, end)
        for stream in self._streams:
            copied += self._copy_to(output, stream, output.size(stream))
        return copied

    def _copy_to(self, output: RunOutput, stream: Stream, end: int) -> int:
        copied = 0
        while self._at[stream] < end:
            start, data = output.read(stream, self._at[stream], min(_PIECE, end - self._at[stream]))
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

    async def follow(self, service: Service, caller: Caller, task_id: str) -> Task:
        """Copy until the task is over, one run after the other, and return it."""
        from mcp_tasks.output.captured import Cursor
        from mcp_tasks.requests import PollTask

        run = None
        while True:
            task, output = service.output_of(caller, task_id)
            run = run or task.begun
            while run < task.begun:
                self.copy(output.of_run(run))
                run, self._at = run + 1, dict.fromkeys(self._at, 0)
            # The state was read first: what a final task has written is there when it is read now.
            if not self.copy(output) and task.is_final:
                self.finish()
                return task
            if not task.is_final:
                seen = Cursor(task.begun, output.size("stdout"), output.size("stderr"))
                behind = any(self._at[stream] < seen.of(stream) for stream in self._streams)
                if not behind:
                    await service.poll_task(
                        caller,
                        PollTask(
                            task_id=task_id,
                            cursor=seen.encode(),
                            until="output",
                            wait_ms=CHUNK_MS,
                            show="none",
                        ),
                    )


def _in_order(output: RunOutput) -> Iterator[tuple[Stream, int]]:
    """The pieces of output in their order in time, each as its stream and where it ends."""
    ends: dict[Stream, int] = {"stdout": 0, "stderr": 0}
    try:
        with open(output.folder / "chunks", "rb") as index:
            while records := index.read(_RECORDS * _RECORD.size):
                whole = len(records) - len(records) % _RECORD.size
                for _, number, length in _RECORD.iter_unpack(records[:whole]):
                    stream: Stream = "stdout" if number == 1 else "stderr"
                    ends[stream] += length
                    yield stream, ends[stream]
    except FileNotFoundError:
        return


def _start_of_lines(output: RunOutput, stream: Stream, lines: int) -> int:
    """Where the last `lines` lines of a stream begin; a newline at the very end begins none."""
    end = output.size(stream)
    if lines <= 0 or end == 0:
        return end
    wanted = lines
    position = end
    while position > 0:
        start = max(0, position - _PIECE)
        begin, data = output.read(stream, start, position - start)
        if begin >= position:  # nothing but a hole
            position = start
            continue
        data = data[: position - begin]
        if position == end and data.endswith(b"\n"):
            wanted += 1
        at = len(data)
        while (at := data.rfind(b"\n", 0, at)) >= 0:
            wanted -= 1
            if wanted == 0:
                return begin + at + 1
        position = start
    return 0
