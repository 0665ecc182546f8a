from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_tasks.server.phrases import MAX_TEXT, clipped, length
from mcp_tasks.server.session_text import TOOLS
from mcp_tasks.server.text import render
from mcp_tasks.server.toolsets import FULL, STANDARD

AT = "2026-01-02T03:04:05.678Z"
LATER = "2026-01-02T04:00:00.000Z"


def session(**fields: Any) -> dict[str, Any]:
    return {
        "session": "web",
        "title": "the\nsite",
        "state": "idle",
        "created_at": AT,
        "active_at": LATER,
        "idle_ms": 90_000,
        "revision": 3,
        "workspace": {"cwd": "/srv", "shell": "/bin/bash", "env": ["CI", "A"], "preferences": {"tabs": 4}},
        "tasks": {"completed": 3, "running": 1, "failed": 0},
        "journal": {"live": 12, "folded": 2, "limit": 200},
        **fields,
    }


def message(**fields: Any) -> dict[str, Any]:
    return {"message_id": "m1", "seq": 7, "role": "user", "text": "two\nlines", "at": AT, **fields}


def test_every_tool_of_the_full_set_has_its_words() -> None:
    assert set(TOOLS) == {tool.name for tool in FULL} - {tool.name for tool in STANDARD}


def test_a_session_is_told_with_everything_that_is_known_of_it() -> None:
    text = render(
        "session_info",
        session(
            idle_ms=9_000,
            expires_at=LATER,
            plans=[{"plan_id": "p1", "name": "all", "created_at": AT}],
            connections=[
                {"client": "ed", "version": "1", "transport": "stdio", "began_at": AT, "seen_at": LATER},
                {"transport": "stdio", "began_at": AT, "ended_at": LATER, "ended": "lost"},
            ],
            shares=[{"share_id": "s1", "role": "read", "created_at": AT, "expires_at": LATER}],
            closed_at=LATER,
            reason="all done",
            recent_commands=["make\nall"],
            warning="look\nout",
            next="list_tasks()",
        ),
    )
    assert text.split("\n") == [
        f"idle: session web, the site, revision 3, created {AT}, active {LATER}, idle 9.0 s, expires {LATER}",
        f"closed {LATER}: all done",
        'workspace: cwd /srv; shell /bin/bash; env CI A; preferences {"tabs": 4}',
        "tasks: 3 completed, 1 running",
        "journal: live 12, folded 2, limit 200",
        "warning: look out",
        "recently: $ make all",
        f"plan p1  {AT}  [all]",
        f"connection: ed 1 over stdio, since {AT}, last seen {LATER}",
        f"connection: a client over stdio, since {AT}, lost {LATER}",
        f"share s1: read, until {LATER}",
        "next: list_tasks()",
    ]


def test_a_bare_session_is_a_few_words() -> None:
    text = render("session_info", {"session": "x", "state": "open", "tasks": {}, "workspace": {"cwd": "/"}})
    assert text == "open: session x\nworkspace: cwd /\ntasks: none"


def test_a_new_token_and_what_ended_with_a_session_are_told() -> None:
    shared = render("update_session", session(share={"share_id": "s1", "role": "write", "token": "mts_1"}))
    assert "new share s1: write, token mts_1 (told this once)" in shared
    ended = render("end_session", session(state="closed", cancelled=["a", "b"], archive="web~1.tar.gz"))
    assert ended.startswith("closed: session web")
    assert "cancelled: a b\narchive: web~1.tar.gz" in ended


def test_sessions_are_one_line_each() -> None:
    text = render(
        "list_sessions",
        {
            "sessions": [
                {"session": "a", "title": "A", "state": "open", "active_at": AT, "tasks": {"failed": 1}},
                {"session": "b", "state": "archived"},
            ],
            "counts": {"open": 1, "archived": 1, "idle": 0},
            "next_cursor": "c",
            "next": "session_info(session='a')",
        },
    )
    assert text.split("\n") == [
        "2 sessions shown; in all 1 open, 1 archived",
        f"a  open  {AT}  tasks: 1 failed  [A]",
        "b  archived",
        "next_cursor c",
        "next: session_info(session='a')",
    ]
    assert render("list_sessions", {"sessions": [], "counts": {}}) == "no sessions"


def test_a_plan_is_told_step_by_step() -> None:
    text = render(
        "run_plan",
        {
            "plan_id": "p1",
            "name": "all",
            "session": "web",
            "state": "running",
            "total": 2,
            "done": 1,
            "counts": {"completed": 1, "pending": 1},
            "tasks": [
                {"task_id": "t1", "name": "build", "command": "make", "state": "completed"},
                {"task_id": "t2", "command": "make test", "state": "pending", "after": ["t1"]},
            ],
            "reused": True,
            "more": True,
            "max_wait_ms": 25_000,
            "next": "plan_progress()",
        },
    )
    assert text.split("\n") == [
        (
            "running: plan p1, [all], session web, 1 of 2 done (1 completed, 1 pending), reused,"
            " a wait is 25.0 s at most, more steps than these"
        ),
        "1. t1  completed  [build]  $ make",
        "2. t2  pending  after t1  $ make test",
        "next: plan_progress()",
    ]


def test_progress_says_what_failed_and_what_goes_on() -> None:
    text = render(
        "plan_progress",
        {
            "plan_id": "p1",
            "session": "web",
            "state": "running",
            "total": 9,
            "done": 2,
            "current": [{"task_id": "t3", "label": "lint", "state": "running"}],
            "failed": [{"task_id": "t2", "label": "test", "outcome": "exited", "exit_code": 2}],
            "created_at": AT,
            "elapsed_ms": 61_000,
            "warning": "slow",
        },
    )
    assert text.split("\n") == [
        f"running: plan p1, session web, 2 of 9 done, 1 min 1 s, created {AT}",
        "warning: slow",
        "failed: t2  exited (exit code 2)  [test]",
        "now: t3  running  [lint]",
    ]


def test_messages_are_told_with_who_when_and_what_they_belong_to() -> None:
    text = render(
        "read_journal",
        {
            "session": "web",
            "messages": [
                message(task_id="t1", parent="m0", edited_at=LATER),
                message(seq=8, role="tool", text="run_command", data={"ms": 3}),
            ],
            "next_cursor": "c",
            "next": "more",
        },
    )
    assert text.split("\n") == [
        "2 messages, session web",
        f"#7 user {AT} id m1, task t1, answers m0, edited {LATER}:",
        "two",
        "lines",
        f"#8 tool {AT} id m1:",
        "run_command",
        'data: {"ms": 3}',
        "next_cursor c",
        "next: more",
    ]
    added = render("add_message", {"session": "web", "message": message()})
    assert added == f"added, session web\n#7 user {AT} id m1:\ntwo\nlines"
    edited = render("add_message", {"session": "web", "message": message(edited_at=LATER)})
    assert edited.startswith("edited, session web")


def test_a_single_long_message_is_shown_as_far_as_there_is_room() -> None:
    one = render("read_journal", {"session": "s", "messages": [message(text="x" * 70_000)]})
    assert 50_000 < length(one) < 60_000
    assert "characters more; export_session has all" in one
    cut = render("read_journal", {"session": "s", "messages": [message(omitted_characters=7)]})
    assert "lines… (7 characters more; export_session has all)" in cut
    many = render("search_journal", {"session": "s", "messages": [message(text="é" * 9_000)] * 100})
    assert length(many) < 60_000
    assert "left out here" in many


@pytest.mark.parametrize("letter", ["x", "é", "🦄", "\n", "\ud800"])
def test_an_export_says_from_which_byte_to_read_on(letter: str) -> None:
    text = letter * 60_000
    view = {"session": "s", "format": "markdown", "text": text, "offset": 10, "total_bytes": 999_999}
    shown = render("export_session", view)
    assert length(shown) < 60_000
    status, rest = shown.split("\n", 1)
    body, more = rest.rsplit("\n", 1)
    end = 10 + len(body.encode("utf-8", "surrogatepass"))
    assert status == f"markdown export of session s: bytes 10 to {end} of 999999"
    assert more == f"more: give offset {end}"


def test_an_export_that_is_all_there_says_nothing_of_more() -> None:
    view = {"session": "s", "format": "json", "text": "{}", "offset": 0, "total_bytes": 2}
    assert render("export_session", view) == "json export of session s: bytes 0 to 2 of 2\n{}"
    assert render("export_session", {**view, "more": True}).endswith("more: give offset 2")


def test_a_project_is_told_with_its_commands() -> None:
    text = render(
        "project_context",
        {
            "cwd": "/w/app",
            "root": "/w",
            "vcs": {"kind": "git", "branch": "main", "commit": "abc"},
            "languages": [{"name": "Python", "files": 3}, {"name": "C", "files": 1}],
            "build": [{"command": "make", "from": "Makefile"}],
            "test": [{"command": "npm test", "from": "app/package.json", "cwd": "/w/app"}],
            "manifests": ["Makefile", "app/package.json"],
            "set": {"owner": "me"},
            "changes": ["branch: a -> main"],
            "since": AT,
            "problems": ["composer.json is not valid JSON"],
            "checked_at": AT,
            "cached": True,
            "cache": {"hits": 1, "misses": 2},
            "next": "run_command(command='npm test')",
        },
    )
    assert text.split("\n") == [
        f"project /w, cwd /w/app, checked {AT} (cached)",
        "git: branch main, commit abc",
        "languages: Python (3 files), C (1 file)",
        "build: make  (from Makefile)",
        "test: npm test  (from app/package.json, in /w/app)",
        "manifests: Makefile app/package.json",
        'set: {"owner": "me"}',
        "changed: branch: a -> main",
        f"last look {AT}",
        "problem: composer.json is not valid JSON",
        "cache: hits 1, misses 2",
        "next: run_command(command='npm test')",
    ]
    assert "svn" in render("project_context", {"root": "/w", "checked_at": AT, "vcs": {"kind": "svn"}})


LONG = "x" * 70_000


@pytest.mark.parametrize(
    ("tool", "view"),
    [
        ("session_info", session(title=LONG, workspace={"cwd": LONG, "preferences": {"a": LONG}})),
        ("session_info", session(shares=[{"share_id": "s" * 200, "role": "read"}] * 1_000)),
        ("end_session", session(cancelled=["a" * 36] * 5_000)),
        (
            "list_sessions",
            {"sessions": [{"session": "s" * 128, "title": LONG}] * 1_000, "counts": {"open": 1}},
        ),
        ("run_plan", {"plan_id": "p", "name": LONG, "tasks": [{"task_id": "t", "command": LONG}] * 1_000}),
        ("plan_progress", {"plan_id": "p", "failed": [{"task_id": "t", "label": LONG}] * 1_000}),
        ("add_message", {"session": "s", "message": message(text=LONG, data={"a": LONG})}),
        ("search_journal", {"session": "s", "messages": [message(text=LONG)] * 1_000}),
        (
            "project_context",
            {"root": "/", "checked_at": AT, "changes": [LONG] * 10, "manifests": ["m"] * 999},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_text_is_longer_than_a_client_takes(tool: str, view: dict[str, Any]) -> None:
    assert len(json.dumps(render(tool, view))) < 60_000


def test_a_text_is_clipped_at_the_last_character_that_fits() -> None:
    assert clipped("abc", 5) == ("abc", 0)
    assert clipped("abcd", 5) == ("abc", 1)
    assert clipped("éé", 8) == ("é", 1)
    assert MAX_TEXT < 60_000
