"""Regular expressions over lines of raw output, in linear time (RE2).

A line is searched as a reader would have it: escape sequences and the carriage return before its newline are
left out. `^` and `$` are the ends of a line, and nothing matches across lines. Whole blocks of lines are
searched at once, which is what makes it fast.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final, NamedTuple

from mcp_tasks.ansi import without_escapes
from mcp_tasks.errors import InvalidArgument

__all__ = ["LONGEST_TEXT", "Found", "Pattern", "compile_pattern", "line_text"]

LONGEST_TEXT: Final = 500
"""Bytes of a line that an answer repeats."""
LONGEST_PATTERN: Final = 4_096
"""Characters of a pattern."""
_MEMORY: Final = 8 << 20  # bytes, for the program and its states
_BLOCK: Final = 1 << 20  # bytes
_LIGHT: Final = 512  # instructions; with more, RE2 may have to go slower by as much
_LEAD_IN: Final = 100  # bytes of a long line that are shown before the match
# What means the begin or end of the text, matches newlines in spite of never_nl, or turns (?m) off: with
# these a block of lines is not the same as its lines one by one.
_NOT_BLOCKWISE: Final = re.compile(r"\\[AzC]|\(\?[A-Za-z]*-")
_CLASS: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)


class Found(NamedTuple):
    """A line that matches.

    Attributes:
        newlines: How many there are in the block before the line.
        start: Position of the line in the block, in bytes.
        end: Position after the line, its newline included.
        text: The line, or the 500 bytes of it around the match.
    """

    newlines: int
    start: int
    end: int
    text: str


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
            before: For such a part, the byte before it: then no line begins where it begins.
            following: For such a part, what comes after it. A match may end there, but not begin.
        """
        clean = without_escapes(block)
        if not following:
            clean = clean.rstrip(b"\r")
        searched = before + clean + without_escapes(following) if before or following else clean
        shift = len(before)
        # A match at the very end is one only in a last line that has no newline, and has something else.
        limit = len(clean) if following or not clean or clean.endswith(b"\n") else len(clean) + 1
        ends: list[int] = []
        newlines = counted = 0
        for match in self._matches(searched, shift):
            at = match - shift
            if at >= limit:
                return
            start = clean.rfind(b"\n", 0, at) + 1
            newline = searched.find(b"\n", match)
            stop = len(searched) if newline < 0 else newline
            newlines += clean.count(b"\n", counted, start)
            counted = start
            text = line_text(searched[shift + start : stop], at - start)
            if len(clean) == len(block):
                yield Found(newlines, start, min(stop - shift + 1, len(block)), text)
                continue
            # Bytes were left out: the line lies in the block where the line with the same number does.
            ends = ends or list(accumulate(len(line) + 1 for line in block.split(b"\n")))
            start = ends[newlines - 1] if newlines else 0
            yield Found(newlines, start, min(ends[newlines], len(block)), text)

    def _matches(self, searched: bytes, position: int) -> Iterator[int]:
        """Where the first match of each line begins that has one."""
        search = self._program.search
        if not self._blockwise:
            for line in searched[position:].split(b"\n"):
                if found := search(line):
                    yield position + found.start()
                position += len(line) + 1
            return
        while found := search(searched, position):
            yield found.start()
            position = searched.find(b"\n", found.start()) + 1
            if not position:
                return


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
    options.max_mem = _MEMORY
    options.case_sensitive = not ignore_case
    try:
        encoded = pattern.encode()
        re2.compile(encoded, options)  # by itself first: what RE2 says then quotes only what was given
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


def line_text(line: bytes, at: int = 0) -> str:
    """Decode a line, or at most 500 bytes of it around position `at`."""
    start = 0
    if len(line) > LONGEST_TEXT:
        start = max(0, min(at - _LEAD_IN, len(line) - LONGEST_TEXT))
        while start < at and 0x80 <= line[start] < 0xC0:
            start += 1
    end = start + LONGEST_TEXT
    text, _ = codecs.utf_8_decode(line[start:end], "backslashreplace", end >= len(line))
    encoded = text.encode()
    return text if len(encoded) <= LONGEST_TEXT else encoded[:LONGEST_TEXT].decode("utf-8", "ignore")
