"""One pass over a stream for lines that match, forwards or backwards, in blocks and within a time.

Whole lines are searched, wherever the blocks end; a line longer than a block is searched in parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from mcp_tasks.capture import RunOutput, Stream
from mcp_tasks.patterns import Pattern, line_text

__all__ = [
    "DONE",
    "REACH",
    "Batch",
    "Hit",
    "Place",
    "neighbours",
    "newlines_before",
    "scan_newest",
    "scan_oldest",
]

REACH: Final = 4_096
"""Bytes that a match may reach over the edge of a part of a line."""
_FORWARD: Final = 1 << 20  # bytes read at once
_BACKWARD: Final = 1 << 18  # all hits of a block are found to give the last, so it is smaller
_NEIGHBOUR: Final = 4_096  # bytes read for each line of context
# Each attempt follows the loss of a segment; more in a row than this is no race.
_ATTEMPTS: Final = 64
_COUNTING: Final = 0.3  # share of the time that is kept for numbering lines, where nobody has counted


@dataclass(frozen=True, slots=True)
class Hit:
    """A line that matches, with its neighbours.

    Attributes:
        line: Number of the line in its stream, from 1; None where counting took too long.
        offset: Position of the first byte of the line.
        text: The line, or the 500 bytes of it around the match.
        before: The lines before it, oldest first; `after` likewise.
    """

    stream: Stream
    line: int | None
    offset: int
    text: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


class Place(NamedTuple):
    """A place in a stream. `at`: None where the stream is done; `lines`: newlines before it, where known."""

    at: int | None
    lines: int | None = None


DONE: Final = Place(None)


class Batch(NamedTuple):
    """What a pass found. Each hit comes with the position after its line and the place to go on from."""

    hits: list[tuple[Hit, int, Place]]
    next: Place
    scanned: int


class _Raw(NamedTuple):
    """A hit of a backward pass, before lines can be numbered."""

    offset: int
    end: int
    text: str
    newlines_after: int  # from the begin of the line to where the pass began


def scan_oldest(
    output: RunOutput,
    pattern: Pattern,
    stream: Stream,
    place: Place,
    *,
    limit: int,
    deadline: float,
    clock: Callable[[], float],
) -> Batch:
    """Search from `place` on towards the end, until `limit` hits, the end or the deadline."""
    size = output.size(stream)
    at, lines = place.at or 0, place.lines
    before = _byte_before(output, stream, at)
    block = min(_FORWARD, pattern.block)
    hits: list[tuple[Hit, int, Place]] = []
    scanned = 0
    while at < size:
        begin, data = output.read(stream, at, block)
        data = data[: max(0, size - begin)]
        if not data:
            break
        if begin > at:
            before = b""
        following = b""
        if begin + len(data) < size and len(data) == block:
            whole = data.rfind(b"\n") + 1
            if whole:
                data = data[:whole]
            else:
                following = _rest_of_line(output, stream, begin + len(data))
        for found in pattern.lines(data, before=before, following=following):
            number = None if lines is None else lines + found.newlines
            end = begin + found.end
            ended = data[found.end - 1 : found.end] == b"\n"
            after = Place(end, None if number is None else number + ended) if end < size else DONE
            hit = Hit(stream, None if number is None else number + 1, begin + found.start, found.text)
            hits.append((hit, end, after))
            if len(hits) >= limit:
                return Batch(hits, after, scanned + found.end)
        at = begin + len(data)
        before = b"" if data.endswith(b"\n") else data[-1:]
        lines = None if lines is None else lines + data.count(b"\n")
        scanned += len(data)
        if clock() >= deadline:
            break
    return Batch(hits, Place(at, lines) if at < size and scanned else DONE, scanned)


def scan_newest(
    output: RunOutput,
    pattern: Pattern,
    stream: Stream,
    place: Place,
    *,
    limit: int,
    deadline: float,
    clock: Callable[[], float],
) -> Batch:
    """Search from `place` back towards the beginning, until `limit` hits, the beginning or the deadline."""
    size = output.size(stream)
    end = min(place.at or 0, size)
    now = clock()
    stop = deadline if place.lines is not None else deadline - (deadline - now) * _COUNTING
    raw: list[_Raw] = []
    passed = scanned = 0  # newlines and bytes
    low = end
    while end > 0:
        begin, data = _block_before(output, stream, end, min(_BACKWARD, pattern.block))
        if not data:
            end = low = begin
            continue
        before = _byte_before(output, stream, begin)
        following = b"" if data.endswith(b"\n") or end >= size else _rest_of_line(output, stream, end)
        newlines = data.count(b"\n")
        for found in reversed(list(pattern.lines(data, before=before, following=following))):
            raw.append(
                _Raw(begin + found.start, begin + found.end, found.text, passed + newlines - found.newlines)
            )
            if len(raw) >= limit:
                break
        passed += newlines
        scanned += len(data)
        end = low = begin
        if len(raw) >= limit:
            end = raw[-1].offset
            break
        if clock() >= stop:
            break
    top = place.lines
    if top is None and raw:
        under = newlines_before(output, stream, low, deadline=deadline, clock=clock)
        top = None if under is None else under + passed
    hits = []
    for one in raw:
        number = None if top is None else top - one.newlines_after
        hit = Hit(stream, None if number is None else number + 1, one.offset, one.text)
        hits.append((hit, one.end, Place(one.offset, number) if one.offset else DONE))
    if hits and len(hits) >= limit:
        return Batch(hits, hits[-1][2], scanned)
    return Batch(hits, Place(end, None if top is None else top - passed) if end else DONE, scanned)


def _block_before(output: RunOutput, stream: Stream, end: int, most: int) -> tuple[int, bytes]:
    """The whole lines before `end`, at most `most` bytes of them; none where a hole ends at `end`."""
    for _ in range(_ATTEMPTS):
        start = max(0, end - most)
        floor = 0
        for first, after in output.holes(stream):
            if first < end <= after:
                return first, b""
            if after < end:
                floor = after
        start = max(start, floor)
        begin, data = output.read(stream, start, end - start)
        if begin + len(data) != end:
            continue  # a segment has vanished since the holes were listed
        cut = data.find(b"\n") + 1 if begin > floor else 0
        return (begin + cut, data[cut:]) if cut < len(data) else (begin, data)
    return 0, b""


def _byte_before(output: RunOutput, stream: Stream, at: int) -> bytes:
    """The byte before `at` where that is within a line; empty where a line begins at `at`."""
    if at <= 0:
        return b""
    begin, data = output.read(stream, at - 1, 1)
    return data if begin == at - 1 and data != b"\n" else b""


def _rest_of_line(output: RunOutput, stream: Stream, at: int) -> bytes:
    """What follows `at` on the same line, as far as a match may reach."""
    begin, data = output.read(stream, at, REACH)
    return data.split(b"\n", 1)[0] if begin == at else b""


def newlines_before(
    output: RunOutput,
    stream: Stream,
    end: int,
    *,
    deadline: float = float("inf"),
    clock: Callable[[], float] | None = None,
) -> int | None:
    """Count the stored newlines before `end`; None when the deadline passes before that is done."""
    at = count = 0
    while at < end:
        begin, data = output.read(stream, at, min(_FORWARD, end - at))
        if not data or begin >= end:
            break
        count += data.count(b"\n", 0, end - begin)
        at = begin + len(data)
        if clock and at < end and clock() >= deadline:
            return None
    return count


def neighbours(
    output: RunOutput, stream: Stream, start: int, end: int, count: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts of up to `count` lines before the line from `start` to `end`, and of as many after it."""
    if count <= 0:
        return (), ()
    back = max(0, start - count * _NEIGHBOUR)
    begin, data = output.read(stream, back, start - back) if start else (0, b"")
    while data and begin + len(data) < start:  # only what is after the last hole is next to the line
        begin, data = output.read(stream, begin + len(data), start - begin - len(data))
    earlier = data.removesuffix(b"\n").split(b"\n")[-count:] if data and begin < start else []
    begin, data = output.read(stream, end, count * _NEIGHBOUR)
    later = data.removesuffix(b"\n").split(b"\n")[:count] if data and begin == end else []
    return tuple(map(line_text, earlier)), tuple(map(line_text, later))
