"""Excerpts of one stream: where they may begin and end, and how their bytes become text."""

from __future__ import annotations

import base64
import codecs
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from mcp_tasks.output.ansi import LONGEST_SEQUENCE, reaches_into, strip, unfinished
from mcp_tasks.output.captured import RunOutput, Stream

__all__ = [
    "LEAST",
    "Ansi",
    "Encoding",
    "Form",
    "Shown",
    "Side",
    "backward",
    "both_ends",
    "forward",
    "head_length",
    "into_character",
    "into_sequence",
    "tail_length",
]

Ansi: TypeAlias = Literal["strip", "keep"]
Encoding: TypeAlias = Literal["text", "base64"]

LEAST: Final = 4
"""Raw bytes with which an excerpt can always show a character, so that it makes progress."""
_CONTINUATION: Final = range(0x80, 0xC0)
_BLOCK: Final = 65_536


@dataclass(frozen=True, slots=True)
class Shown:
    """The part of one stream that a view shows.

    Attributes:
        text: As decoded, or base64.
        start: Position of the first byte shown.
        end: Position after the last byte shown.
        gap: Range that is left out in between or, at the beginning of the view, gone; None mostly.
    """

    text: str
    start: int
    end: int
    gap: tuple[int, int] | None = None


class Side(NamedTuple):
    """One stream of a view: what it shows, the bytes it leaves out, whether more could be shown."""

    shown: Shown
    omitted: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """How bytes become text. `final`: the output can be taken for complete."""

    final: bool
    ansi: Ansi = "strip"
    encoding: Encoding = "text"

    def text(self, data: bytes, *, last: bool, torn: bool = False) -> tuple[str, int]:
        """Render `data` and say how many of its bytes the text shows.

        A character or an escape sequence that is incomplete at the end is left to the next excerpt.

        Args:
            data: The raw bytes.
            last: Whether nothing was captured after them at this moment.
            torn: Whether what follows them is gone, so that nothing can be completed.
        """
        if self.encoding == "base64":
            return base64.b64encode(data).decode("ascii"), len(data)
        whole = torn or (last and self.final)
        text, used = codecs.utf_8_decode(data, "backslashreplace", whole)
        if self.ansi == "keep":
            return text, used
        begun = 0 if whole else unfinished(data[:used])
        if begun and (begun < used or last):
            used -= begun
            text = data[:used].decode("utf-8", "backslashreplace")
        return strip(text), used


def forward(output: RunOutput, stream: Stream, start: int, size: int, limit: int, *, form: Form) -> Side:
    """Show from `start` on, up to the next hole; a hole at `start` is passed, and said."""
    wanted = min(limit, size - start)
    if wanted <= 0:
        return Side(Shown("", start, start), more=size > start)
    begin, data = output.read(stream, start, wanted)
    begin = min(begin, size)
    data = data[: size - begin]
    end = begin + len(data)
    text, used = form.text(data, last=end >= size, torn=end < size and len(data) < wanted)
    gap = None
    if begin > start:
        gap = (start, begin)
        if form.encoding == "text":
            text = f"{_gone(begin - start)}\n{text}"
    return Side(Shown(text, begin, begin + used, gap), begin - start, more=end < size)


def backward(
    output: RunOutput,
    stream: Stream,
    since: int,
    size: int,
    limit: int,
    *,
    form: Form,
    by_line: bool = False,
) -> Side:
    """Show the newest bytes before `size`, after the last hole; what is left out begins at `since`.

    With `by_line` it begins with a line where one begins within its first quarter.
    """
    if size <= since:
        return Side(Shown("", since, since))
    wanted = max(since, size - limit)
    begin, data = output.read(stream, wanted, size - wanted)
    while data and begin + len(data) < size:
        following, rest = output.read(stream, begin + len(data), size - begin - len(data))
        if not rest:
            break
        begin, data = following, rest
    begin = min(begin, size)
    data = data[: size - begin]
    if begin == wanted and wanted > since:
        skipped = into_character(output, stream, begin)[1]
        if form.ansi == "strip":
            skipped = max(skipped, into_sequence(output, stream, begin))
        if by_line:
            skipped = max(skipped, data.find(b"\n", 0, len(data) // 4) + 1)
        begin, data = begin + len(data[:skipped]), data[skipped:]
    text, used = form.text(data, last=True)
    return Side(Shown(text, begin, begin + used), begin - since)


def both_ends(output: RunOutput, stream: Stream, size: int, limit: int, form: Form) -> Side:
    """Show a stream whole, or its head and its tail, cut at line ends where one is near."""
    holes = output.holes(stream)
    if size <= limit and not holes:
        return forward(output, stream, 0, size, limit, form=form)
    begin, data = output.read(stream, 0, min(limit, size))
    if begin > 0:
        data = b""
    if size - sum(end - start for start, end in holes) > limit:
        data = data[: limit // 2]
        line_end = data.rfind(b"\n") + 1
        if line_end * 4 > len(data) * 3:
            data = data[:line_end]
    head, used = form.text(data, last=False, torn=any(start == len(data) for start, _ in holes))
    tail = backward(output, stream, used, size, max(limit - used, LEAST), form=form, by_line=True)
    gap = (used, tail.shown.start)
    if gap[0] >= gap[1]:
        return Side(Shown(head + tail.shown.text, 0, tail.shown.end))
    gone = sum(max(0, min(end, gap[1]) - max(start, gap[0])) for start, end in holes)
    if head and not head.endswith("\n"):
        head += "\n"
    text = f"{head}{_left_out(gap, gone)}\n{tail.shown.text}"
    return Side(Shown(text, begin if begin == gap[1] else 0, tail.shown.end, gap), gap[1] - gap[0])


def _gone(count: int) -> str:
    return f"[{count} bytes are gone here: past the output limit only the head and the tail are kept]"


def _left_out(gap: tuple[int, int], gone: int) -> str:
    count = gap[1] - gap[0]
    if gone >= count:
        return _gone(count)
    also = f", {gone} of them gone for good" if gone else ""
    return f"[{count} bytes left out here{also}; read on at offset {gap[0]}]"


def into_character(output: RunOutput, stream: Stream, position: int) -> tuple[int, int]:
    """Bytes before and after `position` of the UTF-8 character that it cuts in two; mostly zeros."""
    back = max(0, position - 3)
    at, data = output.read(stream, back, position - back + 3)
    cut = position - at
    if not 0 < cut < len(data):
        return 0, 0
    lead = cut - 1
    while lead > 0 and data[lead] in _CONTINUATION:
        lead -= 1
    first = data[lead]
    length = 2 if 0xC0 <= first < 0xE0 else 3 if 0xE0 <= first < 0xF0 else 4 if first >= 0xF0 else 1
    if lead + length <= cut:
        return 0, 0
    try:
        data[lead : lead + length].decode("utf-8")
    except UnicodeDecodeError:
        return 0, 0
    return cut - lead, lead + length - cut


def into_sequence(output: RunOutput, stream: Stream, position: int) -> int:
    """Bytes from `position` on that belong to an escape sequence begun before it; mostly 0."""
    back = max(0, position - LONGEST_SEQUENCE)
    at, data = output.read(stream, back, position - back + LONGEST_SEQUENCE)
    cut = position - at
    return reaches_into(data[:cut], data[cut:]) if 0 < cut < len(data) else 0


def head_length(output: RunOutput, stream: Stream, lines: int, most: int) -> int:
    """Length in bytes of the first `lines` lines, as far as they are within `most` and before a hole."""
    length = position = 0
    while length < most and lines > 0:
        begin, data = output.read(stream, position, min(_BLOCK, most - length))
        if not data or (begin > position and length):
            break
        at = -1
        while lines > 0 and (at := data.find(b"\n", at + 1)) >= 0:
            lines -= 1
        taken = len(data) if lines else at + 1
        length += taken
        position = begin + taken
    return length


def tail_length(output: RunOutput, stream: Stream, lines: int, size: int, most: int) -> int:
    """Length in bytes of the last `lines` lines, as far as they are within `most` and after a hole."""
    end = size
    floor = max(0, size - most)
    while end > floor and lines > 0:
        start = max(floor, end - _BLOCK)
        begin, data = output.read(stream, start, end - start)
        if begin + len(data) < end:
            break
        # The newline that ends the very last line does not begin another.
        at = len(data) - 1 if end == size and data.endswith(b"\n") else len(data)
        while (at := data.rfind(b"\n", 0, at)) >= 0:
            lines -= 1
            if not lines:
                return size - begin - at - 1
        end = begin
        if begin > start:
            break
    return size - end
