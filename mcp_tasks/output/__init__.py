"""Captured output: reading it, showing parts of it, finding lines in it. Changes nothing.

`captured` is what a run has written, byte for byte; `shown` are the parts of it that an answer shows
(`excerpts` their edges, `ansi` what terminals are told); `search` finds lines (`patterns` what is looked
for, `scans` the way through).
"""

from __future__ import annotations

from mcp_tasks.output.captured import STREAMS, Cursor, RunOutput, Stream
from mcp_tasks.output.shown import (
    Ansi,
    Encoding,
    OutputView,
    Shown,
    view_head_tail,
    view_lines,
    view_new,
    view_none,
    view_range,
    view_tail,
)

__all__ = [
    "STREAMS",
    "Ansi",
    "Cursor",
    "Encoding",
    "OutputView",
    "RunOutput",
    "Shown",
    "Stream",
    "view_head_tail",
    "view_lines",
    "view_new",
    "view_none",
    "view_range",
    "view_tail",
]
