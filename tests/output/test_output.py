"""Views of captured output: nothing lost, nothing twice, nothing cut in two, nothing too large."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_tasks.errors import InvalidArgument, StoreUnavailable
from mcp_tasks.output import (
    STREAMS,
    Cursor,
    OutputView,
    RunOutput,
    view_head_tail,
    view_lines,
    view_new,
    view_none,
    view_range,
    view_tail,
)

START = Cursor(1)
# Bytes among which cut characters, broken characters and escape sequences are likely.
RAW = st.lists(
    st.one_of(
        st.binary(max_size=6),
        st.text(max_size=6).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.sampled_from(
            [b"\x1b[31mred\x1b[0m", b"\x1b", b"\x1b]0;t\x07", b"10%\r20%\n", b"\xf0\x9f\x98", b"\r\n"]
        ),
    ),
    max_size=30,
).map(b"".join)


def captured(folder: Path, stdout: bytes = b"", stderr: bytes = b"") -> RunOutput:
    (folder / "stdout").write_bytes(stdout)
    (folder / "stderr").write_bytes(stderr)
    return RunOutput(folder)


def segment(folder: Path, start: int, data: bytes) -> None:
    (folder / f"stdout.{start:020}").write_bytes(data)


def decoded(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def test_a_cursor_survives_its_text_form() -> None:
    cursor = Cursor(3, 8 << 30, 35)
    assert Cursor.parse(cursor.encode()) == cursor
    assert len(cursor.encode()) < 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1-2",
        "1-2-3-4",
        "0-0-0",
        "1-01-0",
        "1--0",
        "1-A-0",
        " 1-0-0",
        "1-0-0\n",
        "1-\u0661-0",
        "9" * 5000,
    ],
)
def test_a_cursor_that_nobody_gave_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidArgument, match="cursor"):
        Cursor.parse(text)


def test_a_run_without_files_has_no_output(tmp_path: Path) -> None:
    output = RunOutput(tmp_path / "missing")
    assert output.size("stdout") == 0
    assert output.read("stdout", 0, 10) == (0, b"")
    assert output.holes("stderr") == []
    assert output.last_output_at() is None
    assert view_head_tail(output, 1, 100, final=True).cursor == START


def test_empty_files_say_nothing_about_the_last_output(tmp_path: Path) -> None:
    output = captured(tmp_path)
    assert output.last_output_at() is None
    (tmp_path / "stderr").write_bytes(b"x")
    os.utime(tmp_path / "stderr", ns=(0, 1_700_000_000_123_456_789))
    assert output.last_output_at() == 1_700_000_000_123


def test_segments_that_touch_are_read_as_one_and_holes_are_jumped(tmp_path: Path) -> None:
    output = captured(tmp_path, b"0123")
    segment(tmp_path, 4, b"45")
    segment(tmp_path, 10, b"abc")
    segment(tmp_path, 13, b"def")
    assert output.size("stdout") == 16
    assert output.holes("stdout") == [(6, 10)]
    assert output.read("stdout", 1, 100) == (1, b"12345")
    assert output.read("stdout", 7, 4) == (10, b"abcd")
    assert output.read("stdout", 16, 4) == (16, b"")


def test_a_segment_that_vanishes_between_listing_and_opening_is_a_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = captured(tmp_path, b"0123")
    segment(tmp_path, 4, b"4567")
    segment(tmp_path, 8, b"89")
    real_open = os.open

    def open_after_the_supervisor_deleted(path: Path, flags: int) -> int:
        if path.name.endswith("04"):
            path.unlink(missing_ok=True)
        return real_open(path, flags)

    monkeypatch.setattr("mcp_tasks.output.captured.os.open", open_after_the_supervisor_deleted)
    assert output.read("stdout", 5, 10) == (8, b"89")


def test_a_link_in_place_of_output_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "stdout").symlink_to(tmp_path / "secret")
    assert RunOutput(tmp_path).read("stdout", 0, 10) == (0, b"")


def test_unreadable_output_is_said_without_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = captured(tmp_path, b"0123")

    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("mcp_tasks.output.captured.os.open", refuse)
    with pytest.raises(StoreUnavailable) as caught:
        output.read("stdout", 0, 1)
    assert str(tmp_path) not in str(caught.value)
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable):
        RunOutput(tmp_path / "file").size("stdout")


@settings(max_examples=150, deadline=None)
@given(stdout=RAW, stderr=RAW, max_bytes=st.integers(1, 60))
def test_reading_on_by_cursor_gives_every_byte_and_every_character_once(
    stdout: bytes, stderr: bytes, max_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        output = captured(Path(folder), stdout, stderr)
        raw = _read_all(
            output, lambda cursor: view_new(output, cursor, max_bytes, final=True, encoding="base64")
        )
        assert b"".join(map(base64.b64decode, raw[0])) == stdout
        assert b"".join(map(base64.b64decode, raw[1])) == stderr
        texts = _read_all(output, lambda cursor: view_new(output, cursor, max_bytes, final=True, ansi="keep"))
        assert "".join(texts[0]) == decoded(stdout)
        assert "".join(texts[1]) == decoded(stderr)


def _read_all(output: RunOutput, view_at: object) -> tuple[list[str], list[str]]:
    assert callable(view_at)
    cursor, texts = START, ([], [])  # type: tuple[Cursor, tuple[list[str], list[str]]]
    while True:
        view = view_at(cursor)
        assert isinstance(view, OutputView)
        assert view.omitted_bytes == 0
        assert view.stdout.start == cursor.stdout
        assert view.stderr.start == cursor.stderr
        texts[0].append(view.stdout.text)
        texts[1].append(view.stderr.text)
        cursor, before = Cursor.parse(view.cursor.encode()), cursor
        if not view.more:
            return texts
        assert cursor != before


@settings(max_examples=150, deadline=None)
@given(data=RAW, cuts=st.lists(st.integers(0, 200), max_size=6), max_bytes=st.integers(1, 40))
def test_following_output_as_it_grows_gives_every_character_once(
    data: bytes, cuts: list[int], max_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        output, cursor, text = RunOutput(Path(folder)), START, ""
        for end in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
            (Path(folder) / "stdout").write_bytes(data[:end])
            for final in (False, True) if end == len(data) else (False,):
                more = True
                while more:
                    view = view_new(output, cursor, max_bytes, final=final, ansi="keep")
                    text, cursor, more = text + view.stdout.text, view.cursor, view.more
        assert text == decoded(data)


@settings(max_examples=150, deadline=None)
@given(data=RAW, max_bytes=st.integers(4, 60))
def test_every_kind_of_view_says_truly_what_it_shows_and_leaves_out(data: bytes, max_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        output = captured(Path(folder), data)
        tail = view_tail(output, 1, max_bytes, final=True, ansi="keep")
        assert tail.stdout.text == decoded(data[tail.stdout.start :])
        assert tail.omitted_bytes == tail.stdout.start
        assert tail.cursor.stdout == len(data)
        both = view_head_tail(output, 1, max_bytes, final=True, ansi="keep").stdout
        gap = both.gap or (len(data), len(data))
        assert both.text.startswith(decoded(data[: gap[0]]))
        assert both.text.endswith(decoded(data[gap[1] :]))
        plain = view_range(output, 1, ["stdout"], max_bytes, 20, final=True, ansi="keep").stdout
        assert plain.text == decoded(data[plain.start : plain.end])


def test_each_stream_is_sure_of_half_and_may_have_what_the_other_leaves(tmp_path: Path) -> None:
    output = captured(tmp_path, b"o" * 1000, b"e" * 10)
    view = view_new(output, START, 100, final=True)
    assert (len(view.stdout.text), len(view.stderr.text), view.more) == (90, 10, True)
    view = view_tail(captured(tmp_path, b"o" * 1000, b"e" * 1000), 1, 100, final=True)
    assert (len(view.stdout.text), len(view.stderr.text), view.omitted_bytes) == (50, 50, 1900)
    assert view.truncated


def test_an_incomplete_character_waits_while_output_grows_and_shows_when_final(tmp_path: Path) -> None:
    output = captured(tmp_path, "grün €".encode()[:-1])
    view = view_new(output, START, 100, final=False)
    assert (view.stdout.text, view.more, view.stdout_bytes) == ("grün ", False, 8)
    assert view_new(output, view.cursor, 100, final=False).cursor == view.cursor
    assert view_new(output, view.cursor, 100, final=True).stdout.text == "\\xe2\\x82"


def test_a_view_does_not_end_inside_an_escape_sequence(tmp_path: Path) -> None:
    output = captured(tmp_path, b"plain \x1b[1;31mred\x1b[0m")
    view = view_new(output, START, 9, final=True)
    assert (view.stdout.text, view.cursor.stdout, view.more) == ("plain ", 6, True)
    assert view_new(output, view.cursor, 100, final=True).stdout.text == "red"
    assert view_tail(output, 1, 11, final=True).stdout.text == "red"
    assert view_range(output, 1, ["stdout"], 8, 100, final=True).stdout.text == "red"


def test_a_tail_shows_nothing_that_was_passed_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    output = captured(tmp_path, b"0123456789")
    view = view_tail(output, 1, 8, since=Cursor(1, 7, 0), final=True)
    assert (view.stdout.text, view.omitted_bytes, view.cursor) == ("789", 0, Cursor(1, 10))
    view = view_tail(output, 1, 8, since=Cursor(1, 1, 0), final=True)
    assert (view.stdout.text, view.omitted_bytes, view.stdout.start) == ("23456789", 1, 2)
    assert view_tail(output, 1, 8, since=Cursor(1, 99, 0), final=True).cursor == Cursor(1, 10)


def test_a_view_of_nothing_keeps_the_cursor_and_knows_of_more(tmp_path: Path) -> None:
    output = captured(tmp_path, b"0123456789")
    assert view_none(output, 1).more
    view = view_none(output, 1, Cursor(1, 10))
    assert (view.more, view.cursor, view.stdout_bytes, view.omitted_bytes) == (False, Cursor(1, 10), 10, 0)


def test_long_output_is_shown_as_head_and_tail_with_a_line_in_between(tmp_path: Path) -> None:
    lines = [f"line {number:04}\n" for number in range(1000)]
    output = captured(tmp_path, "".join(lines).encode(), b"oops\n")
    view = view_head_tail(output, 1, 400, final=True)
    shown = view.stdout.text.splitlines(keepends=True)
    assert view.stdout.gap is not None
    start, end = view.stdout.gap
    note = shown.index(f"[{end - start} bytes left out here; read on at offset {start}]\n")
    assert shown[:note] == lines[: start // 10]
    assert shown[note + 1 :] == lines[end // 10 :]
    assert (view.omitted_bytes, view.more, view.stderr.text) == (end - start, False, "oops\n")
    assert view.cursor == Cursor(1, 10_000, 5)
    whole = view_head_tail(output, 1, 16_384, final=True)
    assert (whole.stdout.text, whole.stdout.gap, whole.truncated) == ("".join(lines), None, False)


def test_bytes_that_the_output_limit_dropped_are_said_in_every_view(tmp_path: Path) -> None:
    output = captured(tmp_path, b"head\n")
    segment(tmp_path, 105, b"tail\n")
    first = view_new(output, START, 100, final=True)
    assert (first.stdout.text, first.more, first.omitted_bytes) == ("head\n", True, 0)
    second = view_new(output, first.cursor, 100, final=True)
    assert second.stdout.text.endswith("\ntail\n")
    assert "100 bytes are gone" in second.stdout.text
    assert (second.stdout.gap, second.stdout.start, second.omitted_bytes) == ((5, 105), 105, 100)
    assert not second.more
    both = view_head_tail(output, 1, 100, final=True)
    assert both.stdout.text.startswith("head\n[100 bytes are gone")
    assert both.stdout.text.endswith("]\ntail\n")
    assert (both.stdout.gap, both.omitted_bytes) == ((5, 105), 100)
    tail = view_tail(output, 1, 100, final=True)
    assert (tail.stdout.text, tail.omitted_bytes) == ("tail\n", 105)
    assert view_lines(output, 1, ["stdout"], tail_lines=5, max_bytes=99, final=True).stdout.text == "tail\n"
    assert view_lines(output, 1, ["stdout"], head_lines=5, max_bytes=99, final=True).stdout.text == "head\n"
    exact = view_range(output, 1, ["stdout"], 50, 100, encoding="base64", final=True)
    assert (base64.b64decode(exact.stdout.text), exact.stdout.gap) == (b"tail\n", (50, 105))


def test_a_character_cut_by_a_hole_does_not_stop_the_reader(tmp_path: Path) -> None:
    output = captured(tmp_path, b"ab\xe2\x82")
    segment(tmp_path, 50, b"\xac!")
    first = view_new(output, START, 100, final=False)
    assert first.stdout.text == "ab\\xe2\\x82"
    assert view_new(output, first.cursor, 100, final=False).stdout.text.endswith("]\n\\xac!")


def test_output_whose_beginning_is_gone_is_shown_from_where_it_is_kept(tmp_path: Path) -> None:
    segment(tmp_path, 100, b"one\ntwo\n")
    output = RunOutput(tmp_path)
    assert view_head_tail(output, 1, 100, final=True).stdout.text.endswith(
        "gone here: past the output limit only the head and the tail are kept]\none\ntwo\n"
    )
    assert view_lines(output, 1, ["stdout"], head_lines=1, max_bytes=99, final=True).stdout.text.endswith(
        "]\none\n"
    )


def test_a_range_shows_the_streams_asked_for_and_the_cursor_reads_on(tmp_path: Path) -> None:
    output = captured(tmp_path, b"0123456789", b"errors")
    view = view_range(output, 1, ["stdout"], 2, 5, final=True)
    assert (view.stdout.text, view.stdout.start, view.stdout.end, view.more) == ("23456", 2, 7, True)
    assert (view.stderr.text, view.cursor) == ("", Cursor(1, 7, 0))
    assert not view_range(output, 1, ["stdout"], 5, 5, final=True).more
    assert view_range(output, 1, ["stdout"], 99, 5, final=True).stdout.start == 10
    both = view_range(output, 1, ["stdout", "stderr"], 4, 5, final=True)
    assert (both.stdout.text, both.stderr.text) == ("45678", "rs")


def test_adding_the_limit_to_the_offset_shows_every_character(tmp_path: Path) -> None:
    data = "aé€😀z".encode() * 20
    output = captured(tmp_path, data)
    views = [view_range(output, 1, ["stdout"], at, 7, final=True) for at in range(0, len(data), 7)]
    assert "".join(view.stdout.text for view in views) == data.decode()
    assert all(one.stdout.end == other.stdout.start for one, other in pairwise(views))


def test_head_and_tail_lines_are_whole_lines_within_the_limit(tmp_path: Path) -> None:
    output = captured(tmp_path, b"a\nb\nc\nd", b"x\ny\n")
    head = view_lines(output, 1, STREAMS, head_lines=2, max_bytes=1000, final=True)
    assert (head.stdout.text, head.stderr.text, head.more) == ("a\nb\n", "x\ny\n", True)
    assert head.cursor == Cursor(1, 4, 4)
    tail = view_lines(output, 1, STREAMS, tail_lines=2, max_bytes=1000, final=True)
    assert (tail.stdout.text, tail.stderr.text, tail.omitted_bytes) == ("c\nd", "x\ny\n", 4)
    assert tail.cursor == Cursor(1, 7, 4)
    assert (
        view_lines(output, 1, STREAMS, tail_lines=9, max_bytes=1000, final=True).stdout.text == "a\nb\nc\nd"
    )
    none = view_lines(output, 1, STREAMS, tail_lines=0, max_bytes=1000, final=True)
    assert (none.stdout.text, none.stderr.text) == ("", "")


def test_lines_are_counted_over_many_blocks(tmp_path: Path) -> None:
    lines = [f"{number:099}\n" for number in range(5000)]
    output = captured(tmp_path, "".join(lines).encode())
    tail = view_lines(output, 1, ["stdout"], tail_lines=500, max_bytes=200_000, final=True)
    assert tail.stdout.text == "".join(lines[-500:])
    head = view_lines(output, 1, ["stdout"], head_lines=500, max_bytes=200_000, final=True)
    assert head.stdout.text == "".join(lines[:500])
    assert (
        view_lines(output, 1, ["stdout"], tail_lines=4000, max_bytes=9000, final=True).stdout_bytes == 500_000
    )


@pytest.mark.parametrize(
    "data", [b"\0" * 300_000, b"\xff" * 300_000, "€".encode() * 90_000, b'"\\' * 150_000]
)
def test_no_text_view_takes_more_than_its_share_of_json(tmp_path: Path, data: bytes) -> None:
    output = captured(tmp_path, data, data)
    views = [
        view_new(output, START, 262_144, final=True),
        view_tail(output, 1, 262_144, final=True),
        view_head_tail(output, 1, 262_144, final=True),
        view_range(output, 1, STREAMS, 0, 262_144, final=True),
        view_lines(output, 1, STREAMS, tail_lines=10**6, max_bytes=262_144, final=True),
    ]
    for view in views:
        taken = sum(len(json.dumps(shown.text)) for shown in (view.stdout, view.stderr))
        assert 30_000 < taken < 60_000
        assert view.more or view.truncated
    exact = view_range(output, 1, ["stdout"], 0, 262_144, encoding="base64", final=True)
    assert base64.b64decode(exact.stdout.text) == data[:262_144]


@pytest.mark.timeout(60)  # quadratic work would take many minutes
def test_a_view_of_a_gigabyte_costs_what_it_shows(tmp_path: Path) -> None:
    output = captured(tmp_path)
    os.truncate(tmp_path / "stdout", 1 << 30)
    assert view_tail(output, 1, 8192, final=False).omitted_bytes == (1 << 30) - 8192
    view_head_tail(output, 1, 16_384, final=False)
    view_lines(output, 1, ["stdout"], tail_lines=10, max_bytes=8192, final=False)
    view_new(output, Cursor(1, 1 << 29), 8192, final=False)


def test_colours_and_overwritten_lines_are_dropped_or_kept(tmp_path: Path) -> None:
    output = captured(tmp_path, b"\x1b[32m10%\r100%\x1b[0m\r\n")
    assert view_new(output, START, 100, final=True).stdout.text == "100%\n"
    assert view_new(output, START, 100, final=True, ansi="keep").stdout.text == "\x1b[32m10%\r100%\x1b[0m\r\n"
