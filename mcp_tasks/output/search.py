"""Searching a run's output: waiting for a line to come, and pages of the lines that are there.

Lines are numbered from 1 by their newlines, up to the first hole: how many are gone there nobody knows. A
line longer than a block is searched in parts that count as lines of their own with the same number; a match
may reach 4 KiB into the next part.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.output.ansi import without_escapes
from mcp_tasks.output.captured import STREAMS, Cursor, RunOutput, Stream, base36, parse_base36
from mcp_tasks.output.patterns import Pattern, compile_pattern
from mcp_tasks.output.scans import (
    DONE,
    REACH,
    Batch,
    Hit,
    Located,
    Place,
    neighbours,
    newlines_before,
    scan_newest,
    scan_oldest,
)

__all__ = [
    "Hit",
    "Match",
    "Order",
    "Pattern",
    "PatternWatch",
    "Position",
    "SearchPage",
    "compile_pattern",
    "search_run",
]

Order: TypeAlias = Literal["newest", "oldest"]

_ADVANCE: Final = 8  # blocks that one step of a watch may read
BUDGET: Final = 48_000
"""Characters that the hits of a page may take, as JSON and as text."""
_FIELDS: Final = 130  # characters of JSON that the names of a hit's fields and the id of its task take


@dataclass(frozen=True, slots=True)
class Match:
    """The line that a watch was waiting for.

    Attributes:
        line: Number of the line in its stream, from 1; None after a hole.
        offset: Position of the first byte that the text shows: mostly the first of the line, or of the
            watch's start where that is within it.
        text: The line as far as it is there, or the 500 bytes of it around the match.
    """

    stream: Stream
    line: int | None
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class Position:
    """Where a search goes on: up to there it is done, in both streams.

    Attributes:
        stdout: Bytes before which (newest first) or from which on (oldest first) lines are to be searched;
            None where the stream is done.
        stdout_lines: Newlines before that place, None where nobody has counted.
    """

    order: Order
    stdout: int | None
    stderr: int | None
    stdout_lines: int | None = None
    stderr_lines: int | None = None

    def encode(self) -> str:
        """Write the position as clients see it, without a space or anything to escape."""
        numbers = (self.stdout, self.stderr, self.stdout_lines, self.stderr_lines)
        return "-".join([self.order[0], *("" if number is None else base36(number) for number in numbers)])

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what `encode` wrote. Raises InvalidArgument for anything else."""
        order, *fields = text.split("-") if len(text) < 64 else [""]
        numbers = [parse_base36(field) for field in fields]
        broken = any(field and number is None for field, number in zip(fields, numbers, strict=True))
        if order in {"n", "o"} and len(numbers) == len(STREAMS) * 2 and not broken:
            return cls("newest" if order == "n" else "oldest", *numbers)
        raise InvalidArgument(
            "cursor is not one that search_output gave",
            "give next_cursor of an earlier answer exactly as it was, or leave cursor out",
        )


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Part of what a search finds. `next` is None when there is nothing left to search."""

    matches: list[Hit]
    next: Position | None
    scanned_bytes: int
    length: int = 0
    """Characters of the budget that the matches have taken."""

    @property
    def more(self) -> bool:
        """Whether there is output left to search."""
        return self.next is not None


@dataclass(slots=True)
class _Frontier:
    """How far a watch has come in a stream."""

    line: int  # where the line, or its piece, begins that is still growing
    seen: int
    before: bytes = b""


class PatternWatch:
    """Looks for the first line that matches, in what comes after a cursor, step by step.

    A line matches as soon as what is there of it does (a prompt has no newline), so `$` is the end of what
    has been written. Memory is bounded: of an endless line one block is looked at, again when it grows.
    """

    def __init__(self, output: RunOutput, pattern: Pattern, start: Cursor) -> None:
        self._output = output
        self._pattern = pattern
        self._window = pattern.block
        self._frontiers = {stream: _Frontier(start.of(stream), start.of(stream)) for stream in STREAMS}
        self.behind = False
        """Whether the last step ended before all that is there was searched: take another."""

    def advance(self) -> Match | None:
        """Search what is new, at most 8 blocks of it, and return the first line that matches."""
        budget = _ADVANCE * self._window
        self.behind = False
        for index, stream in enumerate(STREAMS):
            found, used = self._advance(stream, budget // (len(STREAMS) - index))
            if found:
                return found
            budget -= used
        return None

    def _advance(self, stream: Stream, budget: int) -> tuple[Match | None, int]:
        frontier = self._frontiers[stream]
        used = 0
        while True:
            begin, data = self._output.read(stream, frontier.line, self._window)
            end = begin + len(data)
            if data and end > frontier.seen:
                if begin > frontier.line:
                    frontier.before = b""
                found = next(self._pattern.lines(data, before=frontier.before), None)
                if found:
                    self._frontiers[stream] = _Frontier(begin + found.end, begin + found.end)
                    self.behind = True
                    newlines = newlines_before(self._output, stream, begin + found.start)
                    line = None if newlines is None else newlines + 1
                    return Match(stream, line, begin + found.shown, found.text), used
                used += len(data)
                self._settle(frontier, begin, data)
            if len(data) < self._window:
                following, more = self._output.read(stream, end, 1)
                if not more:
                    return None, used
                if following > end:  # a hole ends the line
                    frontier.line, frontier.before = following, b""
                    frontier.seen = max(frontier.seen, following)
            if used >= budget:
                self.behind = True
                return None, used

    def _settle(self, frontier: _Frontier, begin: int, data: bytes) -> None:
        """Leave behind what is complete, lines and pieces of them, and of what is endless all but its end."""
        frontier.seen = begin + len(data)
        newline = data.rfind(b"\n")
        if newline >= 0:
            frontier.line, frontier.before = begin + newline + 1, b""
        elif len(data) >= self._window:
            frontier.line, frontier.before = frontier.seen - REACH, data[-REACH - 1 : -REACH]
        else:
            frontier.line = begin
        piece = data.rfind(b"\r", newline + 1) + 1
        # Carriage returns alone are no pieces: the line may still turn out to be an empty one.
        if begin + piece > frontier.line and without_escapes(data[newline + 1 : piece]).strip(b"\r"):
            frontier.line, frontier.before = begin + piece, b"\r"


def search_run(
    output: RunOutput,
    pattern: Pattern,
    *,
    stream: Stream | None = None,
    order: Order = "newest",
    context: int = 0,
    limit: int = 50,
    start: Position | None = None,
    budget: int = BUDGET,
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
) -> SearchPage:
    """Find the lines that match, a page at a time.

    A page has the hits of stdout, then those of stderr, each in the order asked for; each stream is sure of
    half of the page and of the time. Pages that follow each other give every line once. What is written after
    the first page of a search from the newest on is not part of it.

    Args:
        output: The run.
        pattern: What to look for.
        stream: The one to search; None for both.
        order: From the end on or from the beginning on.
        context: Lines to give before and after each hit.
        limit: Hits on a page, at least 1.
        start: `next` of the page before. It brings its own order and streams.
        budget: Characters that the hits may take, as JSON and as text. A hit that does not fit into what
            others have left of a page is left to the next; one that fits into none has less context.
        deadline: When to stop, on `clock`, in seconds. A block is searched in any case.
        clock: Seconds that only grow.
    """
    if start is None:
        places = {one: _first_place(output, one, order) if stream in {one, None} else DONE for one in STREAMS}
    else:
        order = start.order
        places = {
            "stdout": Place(start.stdout, start.stdout_lines),
            "stderr": Place(start.stderr, start.stderr_lines),
        }
    scan = scan_newest if order == "newest" else scan_oldest
    open_streams = [one for one in STREAMS if places[one].at is not None]
    batches: dict[Stream, Batch] = {one: Batch([], DONE, 0) for one in STREAMS}
    for left, one in zip(range(len(open_streams), 0, -1), open_streams, strict=True):
        now = clock()
        batches[one] = scan(
            output,
            pattern,
            one,
            places[one],
            limit=limit,
            deadline=now + (deadline - now) / left,
            clock=clock,
        )
    taken, length = _take(output, batches, limit, context, budget)
    matches: list[Hit] = []
    for one in STREAMS:
        hits = batches[one].hits
        matches += taken[one]
        if len(taken[one]) < len(hits):
            places[one] = hits[len(taken[one]) - 1].next if taken[one] else places[one]
        else:
            places[one] = batches[one].next
    out, err = places["stdout"], places["stderr"]
    going_on = out.at is not None or err.at is not None
    return SearchPage(
        matches,
        Position(order, out.at, err.at, out.lines, err.lines) if going_on else None,
        sum(batch.scanned for batch in batches.values()),
        length,
    )


def _first_place(output: RunOutput, stream: Stream, order: Order) -> Place:
    return Place(output.size(stream)) if order == "newest" else Place(0, 0)


def _take(
    output: RunOutput, batches: dict[Stream, Batch], limit: int, context: int, budget: int
) -> tuple[dict[Stream, list[Hit]], int]:
    """Choose what goes on the page, each stream sure of half of it; and the characters that this takes."""
    found = {stream: len(batches[stream].hits) for stream in STREAMS}
    sure = limit // 2
    counts = {
        "stdout": min(found["stdout"], max(sure, limit - found["stderr"])),
        "stderr": min(found["stderr"], max(limit - sure, limit - found["stdout"])),
    }
    share = budget // max(1, sum(1 for count in counts.values() if count))
    taken: dict[Stream, list[Hit]] = {}
    total = 0
    for stream in STREAMS:
        taken[stream] = []
        length = 0
        for located in batches[stream].hits[: counts[stream]]:
            first = budget >= BUDGET and not taken[stream]
            hit, taking = _with_context(output, located, context, share if first else None)
            if length + taking > share:
                break
            length += taking
            taken[stream].append(hit)
        total += length
    return taken, total


def _with_context(output: RunOutput, located: Located, context: int, most: int | None) -> tuple[Hit, int]:
    """Give a hit its neighbours, or the nearest that stay within `most` characters; and tell its length."""
    hit = located.hit
    length = _FIELDS + len(json.dumps([hit.stream, hit.line, hit.offset, hit.text]))
    before, after = neighbours(output, hit.stream, located.start, located.end, context)
    kept = 0
    for distance in range(max(len(before), len(after))):
        near = [*before[::-1][distance : distance + 1], *after[distance : distance + 1]]
        # Beside the line itself: a comma and a space as JSON, an indent and a newline as text.
        taking = sum(max(len(json.dumps(line)) + 2, len(line) + 5) for line in near)
        if most is not None and length + taking > most:
            break
        length += taking
        kept = distance + 1
    before = before[max(0, len(before) - kept) :]
    return replace(hit, before=before, after=after[:kept]), length
