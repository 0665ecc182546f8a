"""Regular expressions over lines of raw output, in linear time (RE2).

A line is searched as a reader would have it: escape sequences are left out, and a carriage return, which
lets a terminal write the line anew, begins a new piece of it. `^` and `$` are the ends of a piece, nothing
matches across two of them, and of a line the last piece that matches counts. Pieces without a byte are none,
unless the line has no other. Whole blocks of lines are searched at once, which is what makes it fast.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final, NamedTuple

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.output.ansi import origin, without_escapes

__all__ = ["LONGEST_TEXT", "Found", "Pattern", "compile_pattern", "last_piece", "line_text"]

LONGEST_TEXT: Final = 500
"""Bytes of a line that an answer repeats."""
LONGEST_PATTERN: Final = 4_096
"""Characters of a pattern."""
_MEMORY: Final = 8 << 20  # bytes, for the program and its states
# Bytes for a program alone, some 20,000 instructions. RE2 makes it with the interpreter held, in a time that
# grows with the square of its size: 0.1 s for this, and minutes for what would go into the memory above.
_PROGRAM: Final = 512 << 10
_BLOCK: Final = 1 << 20  # bytes
_LIGHT: Final = 512  # instructions; with more, RE2 may have to go slower by as much
_LEAD_IN: Final = 100  # bytes of a long line that are shown before the match
_ELLIPSIS: Final = "…"
_ROOM: Final = LONGEST_TEXT - 2 * len(_ELLIPSIS.encode())
_RETURNS: Final = re.compile(rb"\r*")
# What means the begin or end of the text, matches newlines in spite of never_nl, or turns (?m) off: with
# these a block of lines is not the same as its lines one by one.
_NOT_BLOCKWISE: Final = re.compile(r"\\[AzC]|\(\?[A-Za-z]*-")
_CLASS: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)


class Found(NamedTuple):
    """A line that matches. Positions count the bytes of the block.

    Attributes:
        newlines: How many there are in the block before the line.
        start: Position of the line.
        end: Position after the line, its newline included.
        shown: Position of the first byte that the text shows.
        text: The piece of the line that matches, or what `line_text` cuts of it.
    """

    newlines: int
    start: int
    end: int
    shown: int
    text: str


class _Hit(NamedTuple):
    """A line that matches, in what is searched: from `line` to `line_end`, its piece, the match in it."""

    newlines: int
    line: int
    line_end: int
    start: int
    stop: int
    at: int


class Pattern:
    """A compiled regular expression; `compile_pattern` makes it. Safe for many threads.

    Attributes:
        source: What it was made of.
        block: Bytes to search at once, so that it takes well under a second with a heavy pattern too.
    """

    def __init__(self, source: str, program: Any, *, blockwise: bool) -> None:
        self.source = source
        self.block = _BLOCK * _LIGHT // max(_LIGHT, program.programsize)
        self._program = program
        self._blockwise = blockwise

    def lines(self, block: bytes, *, before: bytes = b"", following: bytes = b"") -> Iterator[Found]:
        """The lines of a block that match, in order, each once.

        Args:
            block: Whole lines, or a part of one that is too long to be searched at once.
            before: For such a part, the byte before it: then no line begins where it begins, and a piece of
                one only after a carriage return.
            following: For such a part, what comes after it. A match may end there, but not begin.
        """
        clean = without_escapes(block)
        whole = before + clean + without_escapes(following) if before or following else clean
        shift = len(before)
        # A `$` at the very end of all that is there matches after its last byte.
        limit = shift + len(clean) if following else len(whole) + 1
        ends: list[int] = []
        for hit in self._hits(whole, shift, limit):
            torn = hit.start == shift and before not in {b"", b"\r"}
            text, cut = line_text(whole[hit.start : hit.stop], hit.at - hit.start, torn=torn)
            start, end = hit.line - shift, hit.line_end - shift + 1
            shown = hit.start - shift + cut
            if len(clean) < len(block):
                # Bytes were left out: the line lies in the block where the line with the same number does.
                ends = ends or list(accumulate(len(line) + 1 for line in block.split(b"\n")))
                within = shown - start
                start, end = ends[hit.newlines - 1] if hit.newlines else 0, ends[hit.newlines]
                shown = start + origin(block[start:end], within)
            yield Found(hit.newlines, start, min(end, len(block)), shown, text)

    def _hits(self, whole: bytes, shift: int, limit: int) -> Iterator[_Hit]:
        """The lines from `shift` on that match before `limit`, each with its last piece that does."""
        searched = whole.replace(b"\r", b"\n")
        hit = None
        newlines, line, line_end = 0, shift, -1
        position = shift
        while 0 <= (at := self._next(searched, position)) < limit:
            if at > line_end:
                if hit:
                    yield hit
                hit = None
                begin = max(shift, whole.rfind(b"\n", 0, at) + 1)
                newlines += whole.count(b"\n", line, begin)
                line, line_end = begin, _find_end(whole, at)
            start, stop = max(shift, searched.rfind(b"\n", 0, at) + 1), _find_end(searched, at)
            # An empty piece counts only where it is the whole line, from its begin to its newline.
            if start < stop or (
                start == line
                and line_end < len(whole)
                and (line > shift or not shift)
                and not whole[line:line_end].strip(b"\r")
            ):
                hit = _Hit(newlines, line, line_end, start, stop, at)
            returns = _RETURNS.match(whole, stop)
            position = max(stop + 1, returns.end() if returns else 0)
        if hit:
            yield hit

    def _next(self, searched: bytes, position: int) -> int:
        """Where the first match from `position` on begins; -1 where there is none."""
        search = self._program.search
        if self._blockwise:
            found = search(searched, position) if position <= len(searched) else None
            return found.start() if found else -1
        while position <= len(searched):
            stop = _find_end(searched, position)
            if found := search(searched[position:stop]):
                return position + int(found.start())
            position = stop + 1
        return -1


def compile_pattern(pattern: str, ignore_case: bool = False) -> Pattern:
    """Compile a regular expression in RE2's syntax. Raises InvalidArgument, which names `pattern`."""
    import re2  # type: ignore[import-untyped]  # costs start-up time

    if not pattern:
        raise InvalidArgument("pattern is empty", "give a regular expression that a line must match")
    if len(pattern) > LONGEST_PATTERN:
        raise InvalidArgument(f"pattern has {len(pattern)} characters, at most {LONGEST_PATTERN} are taken")
    outside_classes = _CLASS.sub(lambda part: part[0] if part[0] == r"\n" else "", pattern)
    if "\n" in outside_classes or r"\n" in outside_classes:
        raise InvalidArgument(
            "pattern asks for a newline, and lines are searched one by one",
            "use ^ and $ for the ends of a line",
        )
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.never_nl = True
    options.max_mem = _PROGRAM
    options.case_sensitive = not ignore_case
    try:
        encoded = pattern.encode()
        re2.compile(encoded, options)  # by itself first: what RE2 says then quotes only what was given
        options.max_mem = _MEMORY
        program = re2.compile(b"(?m)" + encoded, options)
    except UnicodeEncodeError as error:
        raise InvalidArgument("pattern is not valid Unicode text", "leave out lone surrogates") from error
    except re2.error as error:
        said = error.args[0] if error.args else "not a regular expression"
        reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise InvalidArgument(f"pattern is no regular expression: {reason[:200]}", _hint(reason)) from error
    finally:
        re2.purge()  # its cache would keep up to 128 programs of 8 MiB
    return Pattern(pattern, program, blockwise=_NOT_BLOCKWISE.search(pattern) is None)


def _hint(reason: str) -> str:
    if "perl operator" in reason:
        return "the syntax is RE2's, which has no lookaround; match the wider text instead"
    if r"\Z" in reason:
        return r"the syntax is RE2's; write \z or $"
    if re.search(r"escape sequence: \\[1-9]", reason):
        return "the syntax is RE2's, which has no backreferences"
    if "too large" in reason or "repetition size" in reason:
        return "the pattern needs too much memory; use fewer or smaller repetitions"
    return r"the syntax is RE2's (no lookaround, no backreferences); write \( \[ for the characters"


def _find_end(data: bytes, position: int) -> int:
    newline = data.find(b"\n", position)
    return len(data) if newline < 0 else newline


def last_piece(line: bytes) -> bytes:
    """What a reader sees of a line in the end: no escape sequences, nothing that was overwritten."""
    return without_escapes(line).rstrip(b"\r").rpartition(b"\r")[2]


def line_text(line: bytes, at: int = 0, *, torn: bool = False) -> tuple[str, int]:
    """Decode a line, or as much of it around position `at` as fits into 500 bytes.

    Args:
        line: Without escape sequences and without its newline.
        at: What must be shown, in bytes.
        torn: Whether the line has begun before.

    Returns:
        The text, with an ellipsis where it is cut, and the position of the first byte that it shows.
    """
    lead = _ELLIPSIS if torn else ""
    if len(line) <= LONGEST_TEXT:
        text = lead + line.decode("utf-8", "backslashreplace")
        if len(text.encode()) <= LONGEST_TEXT:
            return text, 0
    text, start = _excerpt(line, at, max(0, min(at - _LEAD_IN, len(line) - _ROOM)))
    if len(text.encode()) > _ROOM and start < at - _LEAD_IN:
        # Bytes that are not UTF-8 take more room, so the match might not be reached.
        text, start = _excerpt(line, at, at - _LEAD_IN)
    encoded = text.encode()
    if len(encoded) > _ROOM or start + _ROOM < len(line):
        text = encoded[:_ROOM].decode("utf-8", "ignore") + _ELLIPSIS
    return (_ELLIPSIS if start else lead) + text, start


def _excerpt(line: bytes, at: int, start: int) -> tuple[str, int]:
    """Decode what fits from `start` on, or from the next character on where that cuts one."""
    while 0 < start < at and 0x80 <= line[start] < 0xC0:
        start += 1
    end = start + _ROOM
    return codecs.utf_8_decode(line[start:end], "backslashreplace", end >= len(line))[0], start
