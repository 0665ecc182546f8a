"""What an answer shows of a run's output: excerpts of both streams, and where to read on.

Positions count raw bytes of a stream. The size of each stream is taken once per view, so that a view is one
moment's truth while the output grows. A view costs what it shows, however long the output is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from mcp_tasks.output.captured import STREAMS, Cursor, RunOutput, Stream
from mcp_tasks.output.excerpts import (
    LEAST,
    Ansi,
    Encoding,
    Form,
    Shown,
    Side,
    backward,
    both_ends,
    forward,
    head_length,
    into_character,
    into_sequence,
    tail_length,
)

__all__ = [
    "Ansi",
    "Encoding",
    "OutputView",
    "Shown",
    "view_head_tail",
    "view_lines",
    "view_new",
    "view_none",
    "view_range",
    "view_tail",
]

JSON_BUDGET: Final = 56_000
"""Characters of JSON that the texts of a view may take, of the 60,000 that the whole answer may."""


@dataclass(frozen=True, slots=True)
class OutputView:
    """An excerpt of both streams.

    Attributes:
        stdout_bytes: Captured in all when the view was made; `stderr_bytes` likewise.
        cursor: Where to read on.
        omitted_bytes: Bytes before the end of the view that it does not show and the caller has not passed.
        more: Whether bytes past the cursor are there to be shown, of the streams asked for.
    """

    stdout: Shown
    stderr: Shown
    stdout_bytes: int
    stderr_bytes: int
    cursor: Cursor
    omitted_bytes: int
    more: bool

    @property
    def truncated(self) -> bool:
        """Whether the view leaves bytes out."""
        return self.omitted_bytes > 0


_Builder: TypeAlias = Callable[[int], Side]
"""Makes one side of a view of at most so many raw bytes."""


def view_new(
    output: RunOutput,
    cursor: Cursor,
    max_bytes: int,
    *,
    final: bool,
    ansi: Ansi = "strip",
    encoding: Encoding = "text",
    streams: Collection[Stream] = STREAMS,
) -> OutputView:
    """Show what came after the cursor, oldest first.

    Args:
        output: The run.
        cursor: Where the caller has read to; `Cursor(run)` is the beginning.
        max_bytes: Raw bytes of both streams together, each sure of half of them. At least 4 are shown.
        final: Whether the output can be taken for complete: then a character cut by its end is shown.
        ansi: Whether terminal sequences are dropped.
        encoding: Text, or base64 of the exact bytes.
        streams: Those to show; of the others nothing is shown and the cursor stays.
    """
    sizes = _sizes(output)
    form = Form(final, ansi, encoding)
    starts = {stream: min(cursor.of(stream), sizes[stream]) for stream in STREAMS}
    waiting = {stream: sizes[stream] - starts[stream] if stream in streams else 0 for stream in STREAMS}
    limits = _share(max(max_bytes, 2 * LEAST), waiting)

    def builder(stream: Stream) -> _Builder:
        return lambda limit: forward(output, stream, starts[stream], sizes[stream], limit, form=form)

    return _assemble(
        cursor.run, sizes, {stream: builder(stream) for stream in streams}, limits, form, starts=starts
    )


def view_tail(
    output: RunOutput,
    run: int,
    max_bytes: int,
    *,
    since: Cursor | None = None,
    final: bool,
    ansi: Ansi = "strip",
) -> OutputView:
    """Show the newest output, nothing that the caller has passed with `since`; the cursor is at the end."""
    sizes = _sizes(output)
    form = Form(final, ansi)
    starts = {stream: min(since.of(stream), sizes[stream]) if since else 0 for stream in STREAMS}
    waiting = {stream: sizes[stream] - starts[stream] for stream in STREAMS}
    limits = _share(max(max_bytes, 2 * LEAST), waiting)

    def builder(stream: Stream) -> _Builder:
        return lambda limit: backward(output, stream, starts[stream], sizes[stream], limit, form=form)

    return _assemble(run, sizes, {stream: builder(stream) for stream in STREAMS}, limits, form, starts=starts)


def view_head_tail(
    output: RunOutput, run: int, max_bytes: int, *, final: bool, ansi: Ansi = "strip"
) -> OutputView:
    """Show everything if it fits, else the beginning and the end with a line in between that says so."""
    sizes = _sizes(output)
    form = Form(final, ansi)
    limits = _share(max(max_bytes, 4 * LEAST), sizes)

    def builder(stream: Stream) -> _Builder:
        return lambda limit: both_ends(output, stream, sizes[stream], limit, form)

    return _assemble(run, sizes, {stream: builder(stream) for stream in STREAMS}, limits, form)


def view_range(
    output: RunOutput,
    run: int,
    streams: Collection[Stream],
    offset: int,
    limit: int,
    *,
    encoding: Encoding = "text",
    final: bool,
    ansi: Ansi = "strip",
) -> OutputView:
    """Show at most `limit` bytes of each of `streams` from `offset` on.

    A text that would begin inside a character begins with it, so that reading on by adding `limit` to
    `offset` shows every character.
    """
    sizes = _sizes(output)
    form = Form(final, ansi, encoding)
    starts = dict.fromkeys(STREAMS, 0)
    for stream in streams:
        starts[stream] = min(offset, sizes[stream])
        if encoding == "text":
            starts[stream] -= into_character(output, stream, starts[stream])[0]
            if ansi == "strip":
                starts[stream] += into_sequence(output, stream, starts[stream])
    limits = {
        stream: max(limit + min(offset, sizes[stream]) - starts[stream], 1 if encoding == "base64" else LEAST)
        for stream in STREAMS
    }

    def builder(stream: Stream) -> _Builder:
        return lambda limit: forward(output, stream, starts[stream], sizes[stream], limit, form=form)

    return _assemble(run, sizes, {stream: builder(stream) for stream in streams}, limits, form)


def view_lines(
    output: RunOutput,
    run: int,
    streams: Collection[Stream],
    *,
    head_lines: int | None = None,
    tail_lines: int | None = None,
    max_bytes: int,
    final: bool,
    ansi: Ansi = "strip",
) -> OutputView:
    """Show the first or the last lines of each of `streams`, at most `max_bytes` together."""
    sizes = _sizes(output)
    form = Form(final, ansi)
    max_bytes = max(max_bytes, 2 * LEAST)
    lengths = dict.fromkeys(STREAMS, 0)
    for stream in streams:
        if head_lines is not None:
            lengths[stream] = head_length(output, stream, head_lines, min(sizes[stream], max_bytes))
        else:
            lengths[stream] = tail_length(output, stream, tail_lines or 0, sizes[stream], max_bytes)

    def builder(stream: Stream) -> _Builder:
        if head_lines is not None:
            return lambda limit: forward(output, stream, 0, sizes[stream], limit, form=form)
        return lambda limit: backward(output, stream, 0, sizes[stream], limit, form=form)

    limits = _share(max_bytes, lengths)
    return _assemble(run, sizes, {stream: builder(stream) for stream in streams}, limits, form)


def view_none(output: RunOutput, run: int, since: Cursor | None = None) -> OutputView:
    """Show nothing, only how much there is; the cursor stays where it was."""
    sizes = _sizes(output)
    starts = {stream: min(since.of(stream), sizes[stream]) if since else 0 for stream in STREAMS}
    view = _assemble(run, sizes, {}, sizes, Form(final=True), starts=starts)
    return replace(view, more=any(sizes[stream] > starts[stream] for stream in STREAMS))


def _sizes(output: RunOutput) -> dict[Stream, int]:
    return {stream: output.size(stream) for stream in STREAMS}


def _share(total: int, wanted: dict[Stream, int]) -> dict[Stream, int]:
    """Split `total` so that each stream is sure of half, and what one does not need the other may have."""
    out, err = wanted["stdout"], wanted["stderr"]
    half = total // 2
    return {
        "stdout": min(out, max(half, total - err)),
        "stderr": min(err, max(total - half, total - out)),
    }


def _assemble(
    run: int,
    sizes: dict[Stream, int],
    builders: dict[Stream, _Builder],
    limits: dict[Stream, int],
    form: Form,
    *,
    starts: dict[Stream, int] | None = None,
) -> OutputView:
    """Build each side, and build again with less until the texts fit into the JSON budget."""
    resting = starts or dict.fromkeys(STREAMS, 0)
    sides = {stream: Side(Shown("", resting[stream], resting[stream])) for stream in STREAMS}
    sides.update({stream: build(limits[stream]) for stream, build in builders.items()})
    while form.encoding == "text":
        lengths = {stream: _json_length(sides[stream].shown.text) for stream in STREAMS}
        if sum(lengths.values()) <= JSON_BUDGET:
            break
        allowed = _share(JSON_BUDGET, lengths)
        for stream, build in builders.items():
            if lengths[stream] > allowed[stream]:
                # Text is not spread evenly, so this may take a few rounds; each takes off a twentieth.
                limits[stream] = max(LEAST, limits[stream] * allowed[stream] * 19 // (lengths[stream] * 20))
                sides[stream] = build(limits[stream])
    out, err = sides["stdout"], sides["stderr"]
    return OutputView(
        stdout=out.shown,
        stderr=err.shown,
        stdout_bytes=sizes["stdout"],
        stderr_bytes=sizes["stderr"],
        cursor=Cursor(run, out.shown.end, err.shown.end),
        omitted_bytes=out.omitted + err.omitted,
        more=out.more or err.more,
    )


def _json_length(text: str) -> int:
    """Characters that a text takes in JSON, in the longest usual form (all but ASCII escaped)."""
    return 0 if not text else len(json.dumps(text))
