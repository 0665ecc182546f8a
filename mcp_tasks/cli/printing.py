"""What commands print: safe on a terminal, exact everywhere else."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mcp_tasks.ansi import neutralise

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

_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "lost": "magenta", "running": "cyan"}


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


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout; on a terminal the last column is cut to fit, elsewhere nothing is."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else 100_000, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, title in enumerate(titles):
        last = index == len(titles) - 1
        table.add_column(title, no_wrap=True, overflow="ellipsis", min_width=None if last else len(title))
    for row in rows:
        table.add_row(*(Text(neutralise(cell).replace("\n", " "), _STYLES.get(cell, "")) for cell in row))
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())


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
