"""Answers that are bytes: the captured output, of which ranges can be asked for, and a whole export."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Final, NamedTuple

import anyio.to_thread
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from mcp_tasks.errors import StoreUnavailable, TasksError
from mcp_tasks.http.api.answers import problem_answer
from mcp_tasks.output import RunOutput, Stream
from mcp_tasks.service import Caller, Service

__all__ = ["ByteRange", "export_whole", "parse_range", "read_stream"]

_CHUNK: Final = 262_144
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII | re.IGNORECASE)
_TYPES: Final = {"json": "application/json", "markdown": "text/markdown"}
_PRIVATE: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

_log = logging.getLogger(__name__)


class CutOff(ClientDisconnect):
    """The rest of an answer cannot be had any more. The connection is cut, which tells the client."""


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
    size, kept = await anyio.to_thread.run_sync(_measured, output, stream)
    told = {
        **_PRIVATE,
        "accept-ranges": "bytes",
        "mcp-tasks-state": task.state_name,
        "mcp-tasks-run": str(task.begun),
    }
    # There is no validator that If-Range could name, so with it the whole is right (RFC 9110, 13.1.5).
    wanted = parse_range(None if "if-range" in headers else headers.get("range"), size)
    if wanted is None:
        if gaps := [f"{before.end}-{after.start}" for before, after in pairwise(kept)]:
            told["mcp-tasks-gap"] = ",".join(gaps)
        return _bytes(output, stream, kept, 200, told)
    rest = next((part for part in kept if part.end > wanted.start), ByteRange(size, size))
    part = ByteRange(max(rest.start, wanted.start), min(rest.end, wanted.end))
    if part.start >= part.end:
        return problem_answer(
            416,
            f"there are {size} bytes so far",
            "ask again for the rest when there is more",
            headers={"content-range": f"bytes */{size}", **told},
        )
    told["content-range"] = f"bytes {part.start}-{part.end - 1}/{size}"
    return _bytes(output, stream, [part], 206, told)


async def export_whole(service: Service, caller: Caller, kind: str) -> Response:
    """The journal with the records of the tasks, piece by piece as it is read."""
    pieces = await anyio.to_thread.run_sync(service.export_pieces, caller, kind)
    suffix = "json" if kind == "json" else "md"
    name = {"content-disposition": f'attachment; filename="{caller.session}.{suffix}"'}
    return StreamingResponse(
        _encoded(pieces), headers={**_PRIVATE, **name}, media_type=f"{_TYPES[kind]}; charset=utf-8"
    )


def _measured(output: RunOutput, stream: Stream) -> tuple[int, list[ByteRange]]:
    """How much was captured, and the parts of it that are still there."""
    holes = output.holes(stream)
    size = max(output.size(stream), holes[-1][1] if holes else 0)  # it may be cleared meanwhile
    starts, ends = [0, *(end for _, end in holes)], [*(start for start, _ in holes), size]
    return size, [ByteRange(start, end) for start, end in zip(starts, ends, strict=True)]


def _bytes(
    output: RunOutput, stream: Stream, parts: list[ByteRange], status: int, headers: Mapping[str, str]
) -> Response:
    length = sum(part.end - part.start for part in parts)
    return StreamingResponse(
        _chunks(output, stream, parts),
        status,
        {**headers, "content-length": str(length)},
        media_type="application/octet-stream",
    )


async def _chunks(output: RunOutput, stream: Stream, parts: list[ByteRange]) -> AsyncIterator[bytes]:
    with _cut_off():
        for at, end in parts:
            while at < end:
                wanted = min(_CHUNK, end - at)
                place, data = await anyio.to_thread.run_sync(output.read, stream, at, wanted)
                if place != at or not data:
                    raise StoreUnavailable("some of the output has gone meanwhile")
                yield data
                at += len(data)  # noqa: PLW2901 - it goes through the part


def _encoded(pieces: Iterator[str]) -> Iterator[bytes]:
    with _cut_off():
        for piece in pieces:
            yield piece.encode("utf-8", "backslashreplace")


@contextmanager
def _cut_off() -> Iterator[None]:
    """End an answer that has begun, since what is wrong can be told in no other way any more."""
    try:
        yield
    except TasksError as error:
        _log.info("cut off an answer: %s", error)
        raise CutOff from error
