"""One pass over a stream for lines that match, forwards or backwards, in blocks and within a time.

Whole lines are searched, wherever the blocks end; a line longer than a block is searched in parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from mcp_tasks.output.captured import RunOutput, Stream
from mcp_tasks.output.patterns import Pattern, last_piece, line_text

__all__ = [
    "DONE",
    "REACH",
    "Batch",
    "Hit",
    "Located",
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
        line: Number of the line in its stream, from 1; None where counting took too long, and after a hole.
        offset: Position of the first byte that the text shows, mostly the first of the line.
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


class Located(NamedTuple):
    """A hit, with the positions of its line and after it, and the place to go on from."""

    hit: Hit
    start: int
    end: int
    next: Place


class Batch(NamedTuple):
    """What a pass found."""

    hits: list[Located]
    next: Place
    scanned: int


class _Raw(NamedTuple):
    """A hit of a backward pass, before lines can be numbered."""

    start: int
    end: int
    shown: int
    text: str
    newlines_after: int  # from the begin of the line to where the pass began, or to the hole before that


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
    hits: list[Located] = []
    scanned = 0
    while at < size:
        begin, data = output.read(stream, at, block)
        data = data[: max(0, size - begin)]
        if not data:
            break
        if begin > at:
            before, lines = b"", None
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
            hit = Hit(stream, None if number is None else number + 1, begin + found.shown, found.text)
            hits.append(Located(hit, begin + found.start, end, after))
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
    hits: list[Located] = []
    top = place.lines
    passed = scanned = 0  # newlines since the last hole, and bytes
    low = end
    while end > 0:
        begin, data = _block_before(output, stream, end, min(_BACKWARD, pattern.block))
        if not data:
            hits += _numbered(stream, raw[len(hits) :], top)
            top, passed = None, 0
            end = low = begin
            continue
        before = _byte_before(output, stream, begin)
        following = b"" if data.endswith(b"\n") or end >= size else _rest_of_line(output, stream, end)
        newlines = data.count(b"\n")
        for found in reversed(list(pattern.lines(data, before=before, following=following))):
            raw.append(
                _Raw(
                    begin + found.start,
                    begin + found.end,
                    begin + found.shown,
                    found.text,
                    passed + newlines - found.newlines,
                )
            )
            if len(raw) >= limit:
                break
        passed += newlines
        scanned += len(data)
        end = low = begin
        if len(raw) >= limit:
            end = raw[-1].start
            break
        if clock() >= stop:
            break
    if top is None and len(raw) > len(hits):
        under = newlines_before(output, stream, low, deadline=deadline, clock=clock)
        top = None if under is None else under + passed
    hits += _numbered(stream, raw[len(hits) :], top)
    if hits and len(hits) >= limit:
        return Batch(hits, hits[-1].next, scanned)
    return Batch(hits, Place(end, None if top is None else top - passed) if end else DONE, scanned)


def _numbered(stream: Stream, found: list[_Raw], top: int | None) -> list[Located]:
    """Number the lines of a stretch without a hole; `top`: newlines before its end, None where not known."""
    hits = []
    for one in found:
        number = None if top is None else top - one.newlines_after
        hit = Hit(stream, None if number is None else number + 1, one.shown, one.text)
        hits.append(Located(hit, one.start, one.end, Place(one.start, number) if one.start else DONE))
    return hits


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
    """Count the newlines before `end`; None after a hole, and when the deadline passes before it is done."""
    if any(first < end for first, _ in output.holes(stream)):
        return None
    at = count = 0
    while at < end:
        begin, data = output.read(stream, at, min(_FORWARD, end - at))
        if not data or begin > at:
            return None  # a segment has vanished since the holes were listed
        count += data.count(b"\n")
        at += len(data)
        if clock and at < end and clock() >= deadline:
            return None
    return count


def neighbours(
    output: RunOutput, stream: Stream, start: int, end: int, count: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a reader sees of up to `count` lines before the line from `start` to `end`, and after it."""
    if count <= 0:
        return (), ()
    back = max(0, start - count * _NEIGHBOUR)
    begin, data = output.read(stream, back, start - back) if start else (0, b"")
    while data and begin + len(data) < start:  # only what is after the last hole is next to the line
        begin, data = output.read(stream, begin + len(data), start - begin - len(data))
    torn = bool(data) and begin == back and bool(_byte_before(output, stream, begin))
    earlier = data.removesuffix(b"\n").split(b"\n") if data and begin < start else []
    torn = torn and len(earlier) <= count
    begin, data = output.read(stream, end, count * _NEIGHBOUR)
    later = data.removesuffix(b"\n").split(b"\n")[:count] if data and begin == end else []
    return (
        tuple(_seen(line, torn=torn and not index) for index, line in enumerate(earlier[-count:])),
        tuple(map(_seen, later)),
    )


def _seen(line: bytes, *, torn: bool = False) -> str:
    seen = last_piece(line)
    return line_text(seen, torn=torn and b"\r" not in line)[0]
