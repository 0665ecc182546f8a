"""What commands print: safe on a terminal, exact everywhere else."""

from __future__ import annotations

import codecs
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mcp_tasks.output.ansi import neutralise

__all__ = [
    "ByteSink",
    "duration",
    "is_terminal",
    "note",
    "print_json",
    "print_table",
    "print_text",
    "size",
    "waiting",
]

_GAP = 2
_STYLES = {
    "completed": "32",
    "failed": "31",
    "cancelled": "33",
    "lost": "35",
    "running": "36",
    "well": "32",
    "look": "33",
    "wrong": "31",
}
"""Colours of the terminal (ECMA-48, SGR) for states and verdicts."""


def is_terminal(stream: str) -> bool:
    """Whether `stdout` or `stderr` of this process is a terminal."""
    return (sys.stdout if stream == "stdout" else sys.stderr).isatty()


class ByteSink:
    """Passes output of commands on: exact bytes, or on a terminal what cannot drive it.

    Args:
        stream: `stdout` or `stderr`, of this process.
        raw: Exact bytes on a terminal as well.
    """

    def __init__(self, stream: str, *, raw: bool = False) -> None:
        self._file = sys.stdout if stream == "stdout" else sys.stderr
        self._exact = raw or not self._file.isatty()
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""

    def write(self, data: bytes, *, final: bool = False) -> None:
        """Pass on the next bytes, and at the end whatever was held back for its next part."""
        if self._exact:
            self._file.buffer.write(data)
        else:
            text = self._held + self._decoder.decode(data, final)
            # A carriage return is a line's end or a control, which the next character tells.
            self._held = "\r" if text.endswith("\r") and not final else ""
            self._file.write(neutralise(text.removesuffix(self._held) if self._held else text))
        self._file.flush()


def print_text(text: str) -> None:
    """Print text that commands or agents had a hand in, on stdout."""
    print(neutralise(text) if sys.stdout.isatty() else text)


def note(text: str) -> None:
    """Say something to the person, on stderr."""
    print(neutralise(text), file=sys.stderr)


def print_json(value: Any) -> None:
    """Print JSON on stdout, indented on a terminal."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout; on a terminal the last column is cut to fit, elsewhere nothing is."""
    from rich.cells import cell_len, set_cell_size

    terminal = sys.stdout.isatty()
    lines = [list(titles), *([neutralise(cell).replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    last = max(8, shutil.get_terminal_size().columns - sum(widths[:-1]) - _GAP * (len(widths) - 1))
    for number, line in enumerate(lines):
        cells = [set_cell_size(cell, width) for cell, width in zip(line[:-1], widths, strict=False)]
        end = line[-1]
        if terminal and cell_len(end) > last:
            end = set_cell_size(end, last - 1) + "…"
        if terminal:
            cells = [_styled(cell, "1" if number == 0 else _STYLES.get(cell.strip())) for cell in cells]
        print((" " * _GAP).join([*cells, end]).rstrip())


def _styled(text: str, style: str | None) -> str:
    return text if style is None else f"\x1b[{style}m{text}\x1b[m"


def duration(ms: int) -> str:
    """A time span in the two units that matter."""
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}m"
    return f"{hours // 24}d{hours % 24:02d}h"


def size(count: int) -> str:
    """A number of bytes in the unit that fits."""
    value = float(count)
    for unit in ("B", "K", "M", "G"):
        if value < 1024:
            return f"{value:.0f}{unit}" if unit == "B" or value >= 10 else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}T"


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on stderr, where that is a terminal, that something is waited for, and for how long."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(Text(neutralise(what)).plain, total=None)
        yield
