from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_tasks.server.phrases import MAX_TEXT
from mcp_tasks.server.text import MAX_BASE64, render

ID = "01k0000000" + "a" * 26


def view(**fields: Any) -> dict[str, Any]:
    return {
        "task_id": ID,
        "session": "default",
        "state": "running",
        "elapsed_ms": 1_234,
        "stdout_bytes": 0,
        "stderr_bytes": 0,
        "next_cursor": "c1",
        **fields,
    }


def test_an_unchanged_poll_is_one_line() -> None:
    text = render("poll_task", view(next=f'poll_task(task_id="{ID}", cursor="c1", wait_ms=25000)'))
    assert text == (
        f"running: task {ID}, session default, 1.2 s, stdout 0 B, stderr 0 B; "
        f'next: poll_task(task_id="{ID}", cursor="c1", wait_ms=25000)'
    )


def test_the_cursor_is_told_where_next_does_not_tell_it() -> None:
    assert render("poll_task", view()).endswith("next_cursor c1")
    assert "next_cursor" not in render("poll_task", view(state="completed"))
    assert "more output is there, next_cursor c1" in render("poll_task", view(state="completed", more=True))


def test_how_a_task_ended_is_in_the_first_line() -> None:
    def first(**fields: Any) -> str:
        return render("get_result", view(**fields)).split(":", 1)[0]

    assert first(state="completed", outcome="exited", exit_code=0) == "completed (exited, exit code 0)"
    assert first(state="failed", outcome="signalled", signal="SIGSEGV") == "failed (signalled, SIGSEGV)"
    assert first(state="failed", outcome="timed_out", signal="SIGKILL") == "failed (timed_out, SIGKILL)"
    assert first(state="cancelled", outcome="cancelled", signal="SIGTERM") == "cancelled (SIGTERM)"
    assert first(state="lost", outcome="lost") == "lost"


def test_output_follows_the_status_with_its_place_in_the_stream() -> None:
    text = render(
        "poll_task",
        view(
            stdout="one\ntwo\n",
            stderr="oops",
            stdout_bytes=108,
            stderr_bytes=4,
            shown={"stdout": [100, 108], "stderr": [0, 4]},
            truncated=True,
            omitted_bytes=100,
            next="poll again",
        ),
    )
    status, *rest = text.split("\n")
    assert "100 B before this left out" in status
    assert rest == ["--- stdout 100-108", "one", "two", "--- stderr 0-4", "oops", "next: poll again"]


def test_what_is_beside_the_output_is_told() -> None:
    text = render(
        "get_result",
        view(
            label="build\nit",
            run=2,
            reused=True,
            idle_ms=90_000,
            elapsed_ms=7_265_000,
            queue={"position": 3, "waiting_for": "one of 16 places"},
            wait_result="deadline",
            waited_ms=25_000,
            max_wait_ms=25_000,
            error={"code": "spawn_failed", "message": "no such program", "hint": "check PATH"},
            warning="two\nprocesses live on",
            match={"stream": "stdout", "offset": 7, "line": 2, "text": "ready"},
            gap={"stdout": [10, 20]},
            command="make -j",
            cwd="/src",
            created_at="2026-11-21T12:00:00.000Z",
            history=[{"state": "pending", "at": "2026-11-21T12:00:00.000Z", "reason": "submitted"}],
        ),
    )
    status, *rest = text.split("\n")
    for words in (
        "label build it",
        "run 2",
        "reused",
        "idle 1 min 30 s",
        "2 h 1 min",
        "position 3 in the queue, waiting for one of 16 places",
        "wait ended by deadline after 25.0 s (a wait is 25.0 s at most)",
    ):
        assert words in status
    assert rest == [
        "error: spawn_failed: no such program. check PATH",
        "warning: two processes live on",
        "match: stdout line 2, byte 7: ready",
        "gap: stdout bytes 10 to 20 are left out",
        "command: make -j",
        "cwd: /src",
        "created 2026-11-21T12:00:00.000Z",
        "history: pending 2026-11-21T12:00:00.000Z (submitted)",
    ]


def test_a_wait_without_a_wait_is_not_told() -> None:
    assert "wait ended" not in render("poll_task", view(wait_result="none", waited_ms=0))


def test_base64_is_in_the_text_only_while_it_is_short() -> None:
    short = render("get_result", view(stdout="QUJD"), base64=True)
    assert short.endswith("--- stdout base64\nQUJD")
    long = render("get_result", view(stdout="A" * (MAX_BASE64 + 4)), base64=True)
    assert long.endswith(
        f"--- stdout base64: {MAX_BASE64 + 4} characters, in the structured content only; "
        "give limit: 12000 to have it in the text"
    )
    assert len(long) < 500
    assert MAX_BASE64 >= 12_000 * 4 / 3


def test_a_list_has_a_line_for_each_task() -> None:
    tasks = [
        view(command="make\nall", label="build", created_at="2026-11-21T12:00:00.000Z"),
        view(state="failed", outcome="exited", exit_code=2, command="x" * 300),
    ]
    answer = {"tasks": tasks, "counts": {"running": 1, "failed": 4, "lost": 0}, "next_cursor": "n"}
    lines = render("list_tasks", answer).split("\n")
    assert lines[0] == "2 tasks shown; in all 1 running, 4 failed"
    assert lines[1] == f"{ID}  running  1.2 s  2026-11-21T12:00:00.000Z  [build]  $ make all"
    assert lines[2] == f"{ID}  failed (exited, exit code 2)  1.2 s  $ {'x' * 200}"
    assert lines[3:] == ["next_cursor n"]
    assert render("list_tasks", {"tasks": [], "counts": {}}) == "no tasks"


def test_several_cancelled_tasks_are_told_one_after_another() -> None:
    text = render("cancel_task", {"tasks": [view(state="cancelled"), view(state="completed")]})
    assert [line.split(":")[0] for line in text.split("\n")] == ["cancelled", "completed"]


def test_what_was_cleared_is_told() -> None:
    assert (
        render("clear_task", {"cleared": ["a", "b"], "freed_bytes": 9}) == "cleared 2 tasks, freed 9 B: a b"
    )
    answer = {"cleared": [], "freed_bytes": 0, "warning": "w"}
    assert render("clear_task", answer) == "cleared 0 tasks, freed 0 B\nwarning: w"


def test_a_wait_for_several_tells_who_is_done_and_who_is_not() -> None:
    failed = view(state="failed", outcome="exited", exit_code=1, stderr="boom\n")
    answer = {
        "done": [failed],
        "open": ["b"],
        "wait_result": "exited",
        "waited_ms": 5,
        "next": "wait_tasks again",
    }
    lines = render("wait_tasks", answer).split("\n")
    assert lines[0] == "1 done, 1 open, wait ended by exited after 5 ms"
    assert lines[1].startswith(f"failed (exited, exit code 1): task {ID}")
    assert lines[2:] == ["--- stderr", "boom", "open: b", "next: wait_tasks again"]


def test_matches_are_told_by_task_with_their_place_and_context() -> None:
    match = {"task_id": ID, "stream": "stdout", "line": 3, "offset": 40, "text": "error: x"}
    answer = {
        "matches": [match, {**match, "line": 9, "before": ["a"], "after": [{"text": "b"}]}],
        "more": True,
        "next_cursor": "n",
        "scanned_bytes": 100,
        "warning": "w",
    }
    assert render("search_output", answer).split("\n") == [
        "2 matches in 100 B, more to search",
        f"task {ID}",
        "stdout:3 (byte 40): error: x",
        "    a",
        "stdout:9 (byte 40): error: x",
        "    b",
        "warning: w",
        "next_cursor n",
    ]


def test_where_no_line_is_known_the_byte_tells_the_place() -> None:
    match = {"task_id": ID, "stream": "stderr", "line": None, "offset": 40, "text": "x"}
    assert "\nstderr (byte 40): x" in render("search_output", {"matches": [match], "scanned_bytes": 1})
    del match["line"]
    assert "\nstderr (byte 40): x" in render("search_output", {"matches": [match], "scanned_bytes": 1})
    assert "match: stderr byte 40: x" in render("poll_task", view(match=match))


@pytest.mark.parametrize("character", ["x", "\n", "\x01", "ä"])
def test_the_text_about_many_things_stops_early_and_says_how_many_more_there_are(character: str) -> None:
    done = [view(state="failed", stderr=character * 2_000) for _ in range(200)]
    listed = [view(label=character * 2_000 + "."), *done]
    match = {"task_id": ID, "stream": "stdout", "offset": 40, "text": character * 500}
    for tool, answer, entries in (
        ("wait_tasks", {"done": done, "open": [ID] * 5_000, "next": "wait again"}, 200),
        ("cancel_task", {"tasks": done}, 200),
        ("list_tasks", {"tasks": listed * 9, "counts": {"failed": 1809}, "next_cursor": "n"}, 1809),
        ("search_output", {"matches": [match] * 999, "more": True, "next_cursor": "n"}, 999),
    ):
        text = render(tool, answer)
        assert MAX_TEXT // 2 < len(json.dumps(text)) <= MAX_TEXT
        (said,) = [line for line in text.split("\n") if line.startswith("left out here: ")]
        assert 0 < int(said.split()[3]) < entries
        assert tool == "cancel_task" or text.endswith(("next_cursor n", "next: wait again"))
    assert "and 4800 more" in render("wait_tasks", {"done": [], "open": [ID] * 5_000})
    assert len(render("clear_task", {"cleared": [ID] * 5_000})) < MAX_TEXT


def test_an_answer_that_fits_leaves_nothing_out() -> None:
    assert "left out" not in render("list_tasks", {"tasks": [view()] * 100, "counts": {"running": 100}})


def test_of_a_long_history_the_newest_changes_are_told() -> None:
    change = {"state": "pending", "at": "2026-11-21T12:00:00.000Z", "reason": "retry"}
    text = render("get_result", view(history=[change] * 999 + [{**change, "reason": "last"}]))
    assert "history: 980 earlier changes; pending" in text
    assert text.endswith("(last)")
    assert len(text) < 2_000
