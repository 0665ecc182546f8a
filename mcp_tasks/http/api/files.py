"""Answers that are bytes: the captured output, of which ranges can be asked for, and a whole export."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final, NamedTuple

import anyio.to_thread
from starlette.responses import Response, StreamingResponse

from mcp_tasks.http.api.answers import problem_answer
from mcp_tasks.output import RunOutput, Stream
from mcp_tasks.service import Caller, Service

__all__ = ["ByteRange", "export_whole", "parse_range", "read_stream"]

_CHUNK: Final = 262_144
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII | re.IGNORECASE)
_TYPES: Final = {"json": "application/json", "markdown": "text/markdown"}
_PRIVATE: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class ByteRange(NamedTuple):
    """From the first byte to the one after the last."""

    start: int
    end: int


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The part that is asked for (RFC 9110, 14.2); None where all of it is.

    What is malformed, in other units or of several parts is ignored, as the standard lets us. A part that
    begins after the end is empty, and cannot be answered.
    """
    asked = _RANGE.fullmatch((header or "").strip().replace(" ", ""))
    if asked is None:
        return None
    first, last = asked[1], asked[2]
    if not first:
        return ByteRange(max(0, size - int(last)), size) if last else None
    start, end = int(first), int(last) + 1 if last else size
    if last and end <= start:
        return None
    return ByteRange(start, min(end, size))


async def read_stream(
    service: Service, caller: Caller, task_id: str, stream: Stream, headers: Mapping[str, str]
) -> Response:
    """The bytes of one stream that are there now.

    Where a part in between is gone (`on_output_limit: keep_tail`), a range ends before the gap, and one
    that begins in it begins after it instead, as its Content-Range tells; the whole leaves the gap out, and
    tells of it in Mcp-Tasks-Gap.
    """
    task, output = await anyio.to_thread.run_sync(service.output_of, caller, task_id)
    size, holes = await anyio.to_thread.run_sync(_measured, output, stream)
    told = {
        **_PRIVATE,
        "accept-ranges": "bytes",
        "mcp-tasks-state": task.state_name,
        "mcp-tasks-run": str(task.begun),
    }
    # There is no validator that If-Range could name, so with it the whole is right (RFC 9110, 13.1.5).
    wanted = parse_range(None if "if-range" in headers else headers.get("range"), size)
    if wanted is None:
        if holes:
            told["mcp-tasks-gap"] = ",".join(f"{start}-{end}" for start, end in holes)
        else:
            told["content-length"] = str(size)
        return _bytes(output, stream, ByteRange(0, size), 200, told)
    for start, end in holes:
        if start <= wanted.start < end:
            wanted = ByteRange(end, max(wanted.end, end))
        elif wanted.start < start < wanted.end:
            wanted = ByteRange(wanted.start, start)
    if wanted.start >= wanted.end:
        return problem_answer(
            416,
            f"there are {size} bytes so far",
            "ask again for the rest when there is more",
            headers={"content-range": f"bytes */{size}", **told},
        )
    told["content-range"] = f"bytes {wanted.start}-{wanted.end - 1}/{size}"
    told["content-length"] = str(wanted.end - wanted.start)
    return _bytes(output, stream, wanted, 206, told)


async def export_whole(service: Service, caller: Caller, kind: str) -> Response:
    """The journal with the records of the tasks, piece by piece as it is read."""
    pieces = await anyio.to_thread.run_sync(service.export_pieces, caller, kind)
    suffix = "json" if kind == "json" else "md"
    name = {"content-disposition": f'attachment; filename="{caller.session}.{suffix}"'}
    return StreamingResponse(
        _encoded(pieces), headers={**_PRIVATE, **name}, media_type=f"{_TYPES[kind]}; charset=utf-8"
    )


def _measured(output: RunOutput, stream: Stream) -> tuple[int, list[tuple[int, int]]]:
    return output.size(stream), output.holes(stream)


def _bytes(
    output: RunOutput, stream: Stream, wanted: ByteRange, status: int, headers: Mapping[str, str]
) -> Response:
    return StreamingResponse(
        _chunks(output, stream, wanted), status, headers, media_type="application/octet-stream"
    )


async def _chunks(output: RunOutput, stream: Stream, wanted: ByteRange) -> AsyncIterator[bytes]:
    at = wanted.start
    while at < wanted.end:
        at, data = await anyio.to_thread.run_sync(output.read, stream, at, min(_CHUNK, wanted.end - at))
        data = data[: wanted.end - at]
        if not data:
            return
        yield data
        at += len(data)


def _encoded(pieces: Iterator[str]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece.encode("utf-8", "backslashreplace")
