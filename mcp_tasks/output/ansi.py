"""Terminal control sequences: taken out for a reader, or made visible on a person's terminal.

Everything here runs in linear time on any input. Grammar: ECMA-48 (escape and control sequences), XTerm
Control Sequences (OSC and the other strings). A sequence never reaches over the end of a line, so one that
is broken cannot swallow what follows.
"""

from __future__ import annotations

import re

__all__ = [
    "LONGEST_SEQUENCE",
    "neutralise",
    "origin",
    "reaches_into",
    "strip",
    "unfinished",
    "without_escapes",
]

LONGEST_SEQUENCE = 256
"""Bytes up to which an escape sequence is recognised when it is cut by the edge of a view."""

# Every branch consumes whatever it has looked at, which is what keeps a megabyte of ESC linear.
# In order: control sequence, operating-system command and other strings, any other escape.
_SEQUENCE = (
    r"\x1b\[[0-?]*[ -/]*[@-~]?"
    r"|\x1b[\]PX^_](?:[^\x07\x1b\n]*(?:\x07|\x1b\\))?"
    r"|\x1b[ -/]*[0-~]?"
)
_IN_TEXT = re.compile(_SEQUENCE + r"|\x9b[0-?]*[ -/]*[@-~]?")
_IN_BYTES = re.compile(_SEQUENCE.encode())
_UNFINISHED = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b\n]*\x1b?|[ -/]*)\Z",
)
# What a terminal obeys: bell, shift out and in, delete, C1. Backspace and carriage return are acted upon.
# NUL and the rest of C0 move nothing and often separate records (`find -print0`), so they stay.
_OBEYED = re.compile("[\x07\x0e\x0f\x7f-\x9f]")
_ANY_CONTROL = re.compile("[\x07\x08\x0d-\x0f\x1b\x7f-\x9f]")


def strip(text: str) -> str:
    r"""Drop what only drives a terminal and fold every line to what was last written on it.

    Escape sequences, bell, shift in and out, DEL and C1 controls go; a backspace takes back the character
    before it; of text overwritten by carriage returns the last version stays. Newline, tab, NUL and the
    remaining C0 controls are kept as they are.

    Example:
        `"10%\r20%\r100%\n"` becomes `"100%\n"`, `"a\r\n"` becomes `"a\n"`.
    """
    if _ANY_CONTROL.search(text) is None:
        return text
    text = _OBEYED.sub("", _IN_TEXT.sub("", text))
    if "\r" not in text and "\b" not in text:
        return text
    return "\n".join(map(_fold, text.split("\n")))


def _fold(line: str) -> str:
    if "\r" in line:
        line = line.rstrip("\r").rpartition("\r")[2]
    if "\b" not in line:
        return line
    kept: list[str] = []
    for character in line:
        if character != "\b":
            kept.append(character)
        elif kept:
            kept.pop()
    return "".join(kept)


def without_escapes(data: bytes) -> bytes:
    """Drop escape sequences, as lines are searched. The number of newlines stays the same."""
    return _IN_BYTES.sub(b"", data) if b"\x1b" in data else data


def origin(data: bytes, position: int) -> int:
    """Where in `data` the byte is that has `position` in `without_escapes(data)`.

    Escape sequences right before it count as its beginning.
    """
    if b"\x1b" in data:
        for sequence in _IN_BYTES.finditer(data):
            if sequence.start() >= position:
                break
            position += sequence.end() - sequence.start()
    return position


def unfinished(data: bytes) -> int:
    """Length in bytes of the escape sequence that has begun, but not ended, at the end of `data`.

    0 where there is none, or where it is longer than LONGEST_SEQUENCE.
    """
    window = data[-LONGEST_SEQUENCE:]
    at = window.find(b"\x1b")
    while at >= 0:
        if _UNFINISHED.match(window, at):
            return len(window) - at
        at = window.find(b"\x1b", at + 1)
    return 0


def reaches_into(before: bytes, after: bytes) -> int:
    """How many bytes of `after` still belong to an escape sequence that begins in `before`."""
    begun = unfinished(before)
    if not begun:
        return 0
    sequence = _IN_BYTES.match(before[-begun:] + after[:LONGEST_SEQUENCE])
    return max(0, sequence.end() - begun) if sequence else 0


def _visible(code: int) -> str:
    if code == 0x7F:
        return "^?"
    return f"^{chr(code + 0x40)}" if code < 0x20 else f"\\u{code:04x}"


# Besides the controls: marks that reorder or break lines, with which text can show what it does not say.
_VISIBLE = {
    code: _visible(code)
    for code in (
        *range(0x20),
        *range(0x7F, 0xA0),
        0x061C,
        0x200E,
        0x200F,
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    )
    if chr(code) not in "\n\t"
}


def neutralise(text: str) -> str:
    r"""Make untrusted text safe to print on a person's terminal.

    Controls become visible (`^[` for escape, `\u009b` for a C1 control), and so do the marks that reverse the
    direction of text. Newline and tab stay, and `"\r\n"` is a newline.
    """
    return text.replace("\r\n", "\n").translate(_VISIBLE)
