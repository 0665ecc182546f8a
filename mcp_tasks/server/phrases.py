"""The phrases that answers in words are made of, and how much of them there may be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["MAX_TEXT", "clipped", "count", "duration", "fitting", "length", "line", "several"]

MAX_TEXT: Final = 58_000
"""Characters of JSON that the text of an answer about many things may take, of 60,000 that any answer may."""
_MOST: Final = 200  # ids in one line


def fitting(opening: list[str], entries: Iterable[str], closing: list[str], rest: str) -> str:
    """Put an answer together, and say how many entries are left out where all would be too long.

    Args:
        opening: Lines before the entries.
        entries: A text for each thing that the answer is about.
        closing: Lines after the entries.
        rest: What the entries left out are, and how to have them.
    """
    room = MAX_TEXT - sum(map(length, (*opening, *closing))) - 200
    lines, left_out = [], 0
    for entry in entries:
        room -= length(entry)
        if room < 0 or left_out:
            left_out += 1
        else:
            lines.append(entry)
    if left_out:
        lines.append(f"left out here: {left_out} more {rest}")
    return "\n".join([*opening, *lines, *closing])


def length(text: str) -> int:
    """Characters that a text takes in JSON."""
    return len(json.dumps(text))


def several(names: Sequence[str]) -> str:
    """Ids or names in one line; how many there are beyond those that one line holds."""
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return " ".join(names[:_MOST]) + more


def count(things: Sequence[object], one: str, many: str = "") -> str:
    """How many things there are, with the word for one or for several."""
    return f"{len(things)} {one if len(things) == 1 else many or f'{one}s'}"


def line(value: object) -> str:
    """Any text as one line."""
    return " ".join(str(value).split())


def duration(ms: int) -> str:
    """A time span in the units that matter."""
    if ms < 1_000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms / 1_000:.1f} s"
    minutes, seconds = divmod(ms // 1_000, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def clipped(text: str, room: int) -> tuple[str, int]:
    """The beginning of a text that takes at most `room` characters of JSON, and how many are left out."""
    if length(text) <= room:
        return text, 0
    low, high = 0, min(len(text), room)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if length(text[:middle]) <= room else (low, middle - 1)
    return text[:low], len(text) - low
