"""Searching output finds every line once, in linear time, whatever the blocks and the clock do."""

from __future__ import annotations

import json
import tempfile
from itertools import count
from pathlib import Path

import pytest
import re2  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.output import Cursor, RunOutput, Stream, scans
from mcp_tasks.output.ansi import origin, without_escapes
from mcp_tasks.output.patterns import line_text
from mcp_tasks.output.search import BUDGET, Hit, Order, PatternWatch, Position, compile_pattern, search_run

NEVER = float("inf")
LINES = st.lists(
    st.lists(st.sampled_from([b"a", b"b", b"\xff", b"\r", "é".encode(), b"\x1b[1m", b""]), max_size=5).map(
        b"".join
    ),
    max_size=40,
).map(b"\n".join)


def captured(folder: Path, stdout: bytes = b"", stderr: bytes = b"") -> RunOutput:
    (folder / "stdout").write_bytes(stdout)
    (folder / "stderr").write_bytes(stderr)
    return RunOutput(folder)


def pages(
    output: RunOutput,
    pattern: str,
    order: Order,
    limit: int = 50,
    *,
    stream: Stream | None = None,
    deadline: float = NEVER,
) -> list[Hit]:
    hits: list[Hit] = []
    start = None
    for _ in range(10_000):
        page = search_run(
            output,
            compile_pattern(pattern),
            stream=stream,
            order=order,
            limit=limit,
            start=start,
            deadline=deadline,
        )
        assert len(page.matches) <= limit
        hits += page.matches
        if page.next is None:
            return hits
        start = Position.parse(page.next.encode())
    raise AssertionError("the search does not end")


@pytest.mark.parametrize("order", ["oldest", "newest"])
@settings(max_examples=100, deadline=None)
@given(
    stdout=LINES,
    stderr=LINES,
    pattern=st.sampled_from(["a", "^a", "b$", "^$", "a.b", "é|ab", r"\Aa", r"[^b]$", r"(?-m:^)b", "(?i)A*"]),
    limit=st.integers(1, 9),
    hurried=st.booleans(),
)
def test_the_pages_of_a_search_give_every_line_that_matches_once(
    *, order: Order, stdout: bytes, stderr: bytes, pattern: str, limit: int, hurried: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scans, "_FORWARD", 64)
        patch.setattr(scans, "_BACKWARD", 64)
        output = captured(Path(folder), stdout, stderr)
        # A deadline that has passed leaves one block to each call.
        hits = pages(output, pattern, order, limit, deadline=0 if hurried else NEVER)
        for stream, data in (("stdout", stdout), ("stderr", stderr)):
            expected = _lines_that_match(data, pattern)
            if order == "newest":
                expected.reverse()
            found = [hit for hit in hits if hit.stream == stream]
            assert [(hit.offset, hit.text) for hit in found] == [places[-1] for _, places in expected]
            numbers = [(hit.line, number) for hit, (number, _) in zip(found, expected, strict=True)]
            assert all(line == number or (hurried and line is None) for line, number in numbers)


def _lines_that_match(data: bytes, pattern: str) -> list[tuple[int, list[tuple[int, str]]]]:
    """Number, and offset and text of each piece that matches, by searching them one after the other."""
    alone = re2.compile(pattern.encode())
    matching, at = [], 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        clean, places, position = without_escapes(line), [], 0
        # After the last newline there is a line only if something is in it.
        blank = not clean.strip(b"\r") and number < len(lines)
        for piece in clean.split(b"\r"):
            if (piece or (blank and not position)) and alone.search(piece):
                places.append((at + origin(line, position), line_text(piece)[0]))
            position += len(piece) + 1
        if places:
            matching.append((number, places))
        at += len(line) + 1
    return matching


@pytest.mark.parametrize(
    ("pattern", "said", "hint"),
    [
        ("", "pattern is empty", "regular expression"),
        ("foo(", "missing ): foo(", "RE2"),
        ("a(?=b)", "invalid perl operator", "lookaround"),
        (r"(a)\1", "escape sequence", "backreferences"),
        (r"end\Z", "escape sequence", r"\z"),
        ("((a{100}){100}){100}", "pattern is no regular expression", "memory"),
        ("a" * 5000, "5000 characters", ""),
        ("a\nb", "newline", "one by one"),
        (r"a\nb", "newline", "one by one"),
        ("\ud800", "Unicode", "surrogates"),
    ],
)
def test_a_bad_pattern_is_refused_with_what_is_wrong_and_says_nothing_elsewhere(
    pattern: str, said: str, hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidArgument, match="pattern") as caught:
        compile_pattern(pattern)
    assert said in caught.value.message
    assert hint in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_class_may_name_the_newline_that_no_line_has(tmp_path: Path) -> None:
    output = captured(tmp_path, b"one two\nthree\n")
    assert [hit.text for hit in pages(output, r"e[^\n]*o$", "oldest")] == ["one two"]


def test_case_matters_unless_it_is_ignored(tmp_path: Path) -> None:
    output = captured(tmp_path, "FEHLER Ä\n".encode())
    assert not search_run(output, compile_pattern("fehler ä"), deadline=NEVER).matches
    assert search_run(output, compile_pattern("fehler ä", ignore_case=True), deadline=NEVER).matches


def test_words_are_found_inside_colours_and_before_carriage_returns(tmp_path: Path) -> None:
    output = captured(tmp_path, b"ok\r\n\x1b[31mERR\x1b[0mOR: no\r\n")
    (hit,) = pages(output, "^ERROR: no$", "newest")
    assert (hit.stream, hit.line, hit.offset, hit.text) == ("stdout", 2, 4, "ERROR: no")


def test_a_hit_brings_its_neighbours_and_at_most_500_bytes_of_text(tmp_path: Path) -> None:
    long = b"\xc3\xa4" * 2000 + b"NEEDLE" + b"\xff" * 4000
    output = captured(tmp_path, b"one\ntwo\n" + long + b"\nthree\nfour\nfive")
    page = search_run(output, compile_pattern("NEEDLE"), context=2, deadline=NEVER)
    (hit,) = page.matches
    assert (hit.before, hit.after, hit.line) == (("one", "two"), ("three", "four"), 3)
    assert "äNEEDLE\\xff" in hit.text
    assert len(hit.text.encode()) <= 500
    (hit,) = search_run(output, compile_pattern("^five"), context=9, deadline=NEVER).matches
    assert (hit.before[-2:], hit.after) == (("three", "four"), ())
    (hit,) = search_run(output, compile_pattern("^one"), context=1, deadline=NEVER).matches
    assert (hit.before, hit.after) == ((), ("two",))


def test_a_page_stays_within_its_share_of_json_and_the_next_goes_on(tmp_path: Path) -> None:
    output = captured(tmp_path, (b"\x01" * 499 + b"\n") * 100)
    page = search_run(output, compile_pattern("\x01"), limit=100, deadline=NEVER)
    assert 1 < len(page.matches) < 100
    assert len(json.dumps([hit.text for hit in page.matches])) < 60_000
    assert [hit.line for hit in pages(output, "\x01", "newest", 100)] == list(range(100, 0, -1))


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("streams", [1, 2])
def test_a_page_with_much_context_stays_within_its_budget_and_the_pages_give_every_line(
    tmp_path: Path, order: Order, streams: int
) -> None:
    lines = b"".join(b"line %d %s\n" % (n, b"" if n % 3 else b"\x02" * 300) for n in range(200)) + b"\n" * 200
    output = captured(tmp_path, lines, lines if streams == 2 else b"")
    found, start = [], None
    for _ in range(1000):
        page = search_run(
            output,
            compile_pattern(".*"),
            order=order,
            context=50,
            limit=1000,
            start=start,
            deadline=NEVER,
        )
        assert page.matches
        assert _as_json(page.matches) <= page.length <= BUDGET
        context = [line for hit in page.matches for line in hit.before + hit.after]
        assert sum(len(line) + 5 for line in context) <= BUDGET
        found += [(hit.stream, hit.line) for hit in page.matches]
        start = page.next
        if start is None:
            break
    assert sorted(found) == sorted(
        (stream, n) for stream in ("stdout", "stderr")[:streams] for n in range(1, 401)
    )


def _as_json(hits: list[Hit]) -> int:
    fields = [
        {
            "task_id": "x" * 36,
            "stream": hit.stream,
            "line": hit.line,
            "offset": hit.offset,
            "text": hit.text,
            "before": hit.before,
            "after": hit.after,
        }
        for hit in hits
    ]
    return len(json.dumps(fields)) - 2


def test_a_hit_whose_context_fits_on_no_page_has_the_nearest_lines(tmp_path: Path) -> None:
    output = captured(
        tmp_path, (b"\x01" * 400 + b"\n") * 50 + b"near\nhit\nnext\n" + (b"\x01" * 400 + b"\n") * 50
    )
    (hit,) = search_run(output, compile_pattern("^hit$"), context=50, deadline=NEVER).matches
    assert (hit.before[-1], hit.after[0]) == ("near", "next")
    assert 1 < len(hit.before) == len(hit.after) < 50
    assert _as_json([hit]) <= BUDGET


def test_on_a_page_that_others_have_begun_a_hit_that_does_not_fit_is_left_to_the_next(tmp_path: Path) -> None:
    output = captured(tmp_path, b"hit\n" * 3)
    page = search_run(output, compile_pattern("hit"), budget=10, deadline=NEVER)
    assert (page.matches, page.more) == ([], True)
    page = search_run(output, compile_pattern("hit"), start=page.next, deadline=NEVER)
    assert [hit.line for hit in page.matches] == [3, 2, 1]


def test_one_stream_can_be_searched_alone(tmp_path: Path) -> None:
    output = captured(tmp_path, b"a\n", b"a\n")
    assert [hit.stream for hit in pages(output, "a", "newest", stream="stderr")] == ["stderr"]


def test_each_stream_is_sure_of_half_a_page(tmp_path: Path) -> None:
    output = captured(tmp_path, b"a\n" * 10, b"a\n" * 10)
    page = search_run(output, compile_pattern("a"), limit=4, order="oldest", deadline=NEVER)
    assert [(hit.stream, hit.line) for hit in page.matches] == [
        ("stdout", 1),
        ("stdout", 2),
        ("stderr", 1),
        ("stderr", 2),
    ]


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_matches_are_found_over_the_edges_of_a_line_without_end(tmp_path: Path, order: Order) -> None:
    data = bytearray(b"." * (3 << 20))
    for edge in range(1 << 18, len(data), 1 << 18):
        data[edge - 3 : edge + 3] = b"NEEDLE"
    output = captured(tmp_path, bytes(data))
    parts = 2 if order == "oldest" else 11
    hits = pages(output, "NEEDLE", order)
    assert len(hits) >= parts
    assert all("NEEDLE" in hit.text and hit.line == 1 for hit in hits)
    assert len({hit.offset for hit in hits}) == len(hits)
    assert len(pages(output, r"^\.", order)) == 1


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("limit", [1, 2, 50])
def test_lines_after_a_hole_have_no_number(tmp_path: Path, order: Order, limit: int) -> None:
    output = captured(tmp_path, b"a\na\na")
    (tmp_path / f"stdout.{1000:020}").write_bytes(b"a\na\n")
    (tmp_path / f"stdout.{2000:020}").write_bytes(b"a\na\n")
    numbers = [1, 2, 3, None, None, None, None]
    hits = pages(output, "a", order, limit)
    assert [hit.line for hit in hits] == (numbers if order == "oldest" else numbers[::-1])
    assert [hit.offset for hit in hits][:: 1 if order == "oldest" else -1] == [
        0,
        2,
        4,
        1000,
        1002,
        2000,
        2002,
    ]


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("data", [b"a\rready\n", b"a\rready\r", b"a\rready\r\r\n", b"a\r\x1b[Kready"])
def test_a_carriage_return_begins_a_new_piece_of_a_line(tmp_path: Path, order: Order, data: bytes) -> None:
    output = captured(tmp_path, b"first\r\n" + data)
    (hit,) = pages(output, "^ready$", order)
    assert (hit.line, hit.offset, hit.text) == (2, 9, "ready")
    assert pages(output, r"^$|a.*ready|\s", order) == []
    found = PatternWatch(output, compile_pattern("^ready$"), Cursor(1)).advance()
    assert found is not None
    assert (found.line, found.offset, found.text) == (2, 9, "ready")


def test_of_a_progress_bar_the_last_piece_that_matches_is_shown(tmp_path: Path) -> None:
    output = captured(tmp_path, b"start\n10%\r20%\r100%\n\x1b[2Kdone\n")
    (hit,) = search_run(output, compile_pattern("%"), context=1, deadline=NEVER).matches
    assert (hit.line, hit.offset, hit.text, hit.before, hit.after) == (2, 14, "100%", ("start",), ("done",))
    (hit,) = search_run(output, compile_pattern("^20"), deadline=NEVER).matches
    assert (hit.line, hit.offset, hit.text) == (2, 10, "20%")
    (hit,) = search_run(output, compile_pattern("done"), context=1, deadline=NEVER).matches
    assert hit.before == ("100%",)


def test_a_watch_does_not_search_again_what_a_carriage_return_has_ended(tmp_path: Path) -> None:
    output = captured(tmp_path, b"x" * 1000 + b"\r10%")
    watch = PatternWatch(output, compile_pattern("^$|^100%$"), Cursor(1))
    assert watch.advance() is None
    assert watch._frontiers["stdout"].line == 1001
    found = None
    for more in (b"\r", b"\r\n", b"x\r20%\r", b"\n50%\r10", b"0%"):
        with (tmp_path / "stdout").open("ab") as file:
            file.write(more)
        found = watch.advance()
        assert (found is not None) == (more == b"0%")
    assert found is not None
    assert (found.line, found.text) == (3, "100%")


def test_a_line_of_carriage_returns_alone_is_an_empty_one_when_it_has_ended(tmp_path: Path) -> None:
    output = captured(tmp_path, b"\r\x1b[K\r")
    watch = PatternWatch(output, compile_pattern("^$"), Cursor(1))
    assert watch.advance() is None
    with (tmp_path / "stdout").open("ab") as file:
        file.write(b"\r\n")
    found = watch.advance()
    assert found is not None
    assert (found.line, found.offset, found.text) == (1, 0, "")


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("colour", [b"", b"\x1b[1m"])
def test_the_offset_of_a_hit_is_where_its_text_begins_and_a_cut_is_marked(
    tmp_path: Path, order: Order, colour: bytes
) -> None:
    lead = b"short\n" + b"." * 600 + colour + b"." * 400
    output = captured(tmp_path, lead + b"NEEDLE" + b"," * 1000 + b"\n")
    (hit,) = pages(output, "NEEDLE", order)
    found = PatternWatch(output, compile_pattern("NEEDLE"), Cursor(1)).advance()
    assert found is not None
    assert hit.text == found.text == "…" + "." * 100 + "NEEDLE" + "," * 388 + "…"
    assert len(hit.text.encode()) == 500
    assert hit.offset == found.offset == len(lead) - 100
    assert (hit.line, found.line) == (2, 2)
    (hit,) = pages(output, "NEEDLE,+$", order)
    assert hit.offset == len(lead) - 100


@pytest.mark.parametrize(
    ("line", "at", "text", "start"),
    [
        (b"x" * 500, 400, "x" * 500, 0),
        (b"x" * 501, 0, "x" * 494 + "…", 0),
        (b"x" * 501, 500, "…" + "x" * 494, 7),
        ("ä".encode() * 500, 301, "…" + "ä" * 246, 202),
        (b"\xff" * 490 + b"NEEDLE", 490, "…" + r"\xff" * 100 + "NEEDLE", 390),
        (b"\xff" * 200, 0, (r"\xff" * 124)[:494] + "…", 0),
    ],
)
def test_a_cut_text_shows_its_match_within_500_bytes(line: bytes, at: int, text: str, start: int) -> None:
    shown, position = line_text(line, at)
    assert position == start
    assert shown.startswith(text[:100])
    assert len(shown.encode()) <= 500
    assert "NEEDLE" not in text or "NEEDLE" in shown


def test_a_part_of_a_line_that_begins_before_it_is_marked_as_cut() -> None:
    (found,) = compile_pattern("a").lines(b"abc\n", before=b"x")
    assert found.text == "…abc"
    (found,) = compile_pattern("^a").lines(b"abc\n", before=b"\r")
    assert found.text == "abc"
    assert not list(compile_pattern("^a").lines(b"abc\n", before=b"x"))


@pytest.mark.parametrize("pattern", ["%", "^$", "$", "A*", r"\A\d", "100%$"])
@pytest.mark.parametrize("unit", [b"\r", b"10%\r", b"a\r\r\r", b"\x1b[K\r", b"\r\n", b"10%\r\x1b[K"])
@pytest.mark.timeout(60)  # quadratic work would take many minutes
def test_lines_of_many_pieces_take_linear_time(tmp_path: Path, unit: bytes, pattern: str) -> None:
    output = captured(tmp_path, unit * (200_000 // len(unit)))
    for order in ("oldest", "newest"):
        page = search_run(output, compile_pattern(pattern), order=order, deadline=NEVER)
        assert page.scanned_bytes
    PatternWatch(output, compile_pattern(pattern), Cursor(1)).advance()


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_a_hole_ends_a_line_and_is_passed(tmp_path: Path, order: Order) -> None:
    output = captured(tmp_path, b"a1\nbroken a2")
    (tmp_path / f"stdout.{1 << 33:020}").write_bytes(b"rest a3\na4\n")
    (tmp_path / f"stdout.{1 << 34:020}").write_bytes(b"")
    hits = pages(output, "a", order, 1)
    assert [hit.text for hit in hits] == sorted(
        ["a1", "broken a2", "rest a3", "a4"], key=lambda text: text[-1], reverse=order == "newest"
    )
    assert [hit.offset for hit in pages(output, "^rest", order)] == [1 << 33]
    (hit,) = search_run(output, compile_pattern("rest"), context=3, deadline=NEVER).matches
    assert (hit.before, hit.after) == ((), ("a4",))


def test_a_search_from_the_newest_on_is_not_disturbed_by_growth(tmp_path: Path) -> None:
    output = captured(tmp_path, b"a\n" * 5)
    page = search_run(output, compile_pattern("a"), limit=3, deadline=NEVER)
    (tmp_path / "stdout").write_bytes(b"a\n" * 9)
    page = search_run(output, compile_pattern("a"), limit=3, start=page.next, deadline=NEVER)
    assert ([hit.line for hit in page.matches], page.more, page.next) == ([2, 1], False, None)


def test_a_search_stops_at_its_deadline_and_says_where(tmp_path: Path) -> None:
    output = captured(tmp_path, b"nothing here\n" * 400_000 + b"hit\n")
    ticks = count()
    page = search_run(
        output, compile_pattern("hit$"), order="oldest", deadline=2, clock=lambda: float(next(ticks))
    )
    assert page.more
    assert 0 < page.scanned_bytes <= 3 << 20
    assert [hit.line for hit in pages(output, "hit$", "oldest", deadline=0)] == [400_001]
    (hit,) = search_run(output, compile_pattern("hit$"), deadline=0).matches
    assert (hit.line, hit.offset) == (None, 5_200_000)


@pytest.mark.parametrize(
    "text", ["", "n", "n-1-2-3", "x-1-1-1-1", "n-1-2-3-4-5", "n--------", "o-A-1-1-1", "n" * 99]
)
def test_a_search_cursor_that_nobody_gave_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="cursor"):
        Position.parse(text)


def test_a_prompt_without_a_newline_matches_at_once(tmp_path: Path) -> None:
    output = captured(tmp_path, b"first\nPass")
    watch = PatternWatch(output, compile_pattern("^Password: $"), Cursor(1))
    assert watch.advance() is None
    assert watch.advance() is None
    assert not watch.behind
    with (tmp_path / "stdout").open("ab") as file:
        file.write(b"word\x1b[0m: ")
    found = watch.advance()
    assert found is not None
    assert (found.stream, found.line, found.offset, found.text) == ("stdout", 2, 6, "Password: ")


def test_a_watch_begins_at_its_cursor_and_goes_on_after_a_match(tmp_path: Path) -> None:
    output = captured(tmp_path, b"go\ngo\nstop\ngo\n", b"go\n")
    watch = PatternWatch(output, compile_pattern("go"), Cursor(1, 3, 0))
    found = [watch.advance() for _ in range(4)]
    assert [(one.stream, one.line) for one in found if one] == [("stdout", 2), ("stdout", 4), ("stderr", 1)]


@settings(max_examples=100, deadline=None)
@given(
    data=LINES, cuts=st.lists(st.integers(0, 200), max_size=8), pattern=st.sampled_from(["ab", "^b.a", "é"])
)
def test_a_watch_finds_the_first_line_that_matches_however_it_grows(
    data: bytes, cuts: list[int], pattern: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        output = RunOutput(Path(folder))
        watch = PatternWatch(output, compile_pattern(pattern), Cursor(1))
        found = None
        for end in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
            (Path(folder) / "stdout").write_bytes(data[:end])
            found = found or watch.advance()
        expected = _lines_that_match(data, pattern)
        assert (found and found.line) == (expected[0][0] if expected else None)
        assert found is None or found.offset in {place for place, _ in expected[0][1]}


def test_a_watch_reads_an_endless_line_in_bounded_steps_and_over_its_edges(tmp_path: Path) -> None:
    data = bytearray(b"x" * (20 << 20))
    data[(9 << 20) - 3 : (9 << 20) + 3] = b"NEEDLE"
    output = captured(tmp_path, bytes(data))
    watch = PatternWatch(output, compile_pattern("NEEDLE"), Cursor(1))
    steps = 1
    while (found := watch.advance()) is None:
        assert watch.behind
        steps += 1
    assert steps > 1
    assert "NEEDLE" in found.text
    never = PatternWatch(output, compile_pattern("^NEEDLE|y"), Cursor(1))
    while never.advance() is None and never.behind:
        pass
    assert not never.behind


def test_a_watch_passes_a_hole(tmp_path: Path) -> None:
    output = captured(tmp_path, b"broken")
    (tmp_path / f"stdout.{1000:020}").write_bytes(b"ready\n")
    found = PatternWatch(output, compile_pattern("^ready"), Cursor(1)).advance()
    assert found is not None
    assert (found.offset, found.line) == (1000, None)


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("pattern", ["(a+)+$", "(x+x+)+y", "(?i)error|fail"])
@pytest.mark.timeout(60)  # quadratic work would take many minutes
def test_searching_is_linear_and_fast(tmp_path: Path, order: Order, pattern: str) -> None:
    output = captured(tmp_path, (b"a" * 99 + b"!\n") * 200_000)
    assert pages(output, pattern, order) == []


@pytest.mark.timeout(60)  # quadratic work would take many minutes
def test_a_pattern_that_is_heavy_to_search_for_gets_smaller_blocks(tmp_path: Path) -> None:
    heavy = compile_pattern("(.{0,30}a){0,30}zz")
    assert heavy.block < compile_pattern("error").block // 8
    output = captured(tmp_path, b"ab" * (1 << 16))
    page = search_run(output, heavy, order="oldest", deadline=0)
    assert page.more
    assert PatternWatch(output, heavy, Cursor(1)).advance() is None


@pytest.mark.parametrize(
    "pattern", ["a{1,1000}" * 40, "(?:a{0,1000}){1}" * 200, r"\pL{1,1000}", "(x|y){1,1000}" * 60]
)
def test_a_pattern_that_would_take_seconds_to_be_made_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match="too large") as refused:
        compile_pattern(pattern)
    assert "fewer or smaller repetitions" in refused.value.hint


@pytest.mark.parametrize("pattern", [r"\pL{1,20}", "[a-z]{1,500}", "|".join(f"word{n}" for n in range(300))])
def test_a_large_pattern_that_somebody_may_mean_is_taken(pattern: str) -> None:
    assert compile_pattern(pattern).source == pattern
