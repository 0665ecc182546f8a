"""`mcp-tasks sessions`, run as a person or a script does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli.conftest import CommandLine


def _json(cli: CommandLine, *arguments: str) -> Any:
    return json.loads(cli(*arguments, "--json").stdout)


def test_sessions_are_made_shown_listed_and_removed(cli: CommandLine, tmp_path: Path) -> None:
    assert b"no sessions" in cli("sessions", "list").stderr
    shown = cli.text("sessions", "update", "work", "--title", "Release", "--cwd", str(tmp_path), "-e", "A=1")
    assert shown.startswith("open: session work, Release, revision 1")
    assert f"cwd {tmp_path}; env A" in shown
    assert cli.text("run", "-s", "work", "--wait", "pwd; echo $A") == f"{tmp_path}\n1\n"
    view = _json(cli, "sessions", "show", "work")
    assert (view["session"], view["title"], view["tasks"]) == ("work", "Release", {"completed": 1})
    assert view["recent_commands"] == ["pwd; echo $A"]
    listed = cli.text("sessions", "list").splitlines()
    assert listed[0].split() == ["SESSION", "STATE", "ACTIVE", "TASKS", "TITLE"]
    assert listed[1].split()[:2] == ["work", "open"]
    assert _json(cli, "sessions", "update", "work", "--cwd", "")["workspace"] == {"env": ["A"]}
    assert _json(cli, "sessions", "list")["counts"] == {"open": 1}
    assert _json(cli, "sessions", "list", "--state", "closed")["sessions"] == []
    [everybodys] = _json(cli, "sessions", "all")["sessions"]
    assert everybodys["session"] == "work"
    assert cli.text("sessions", "all").splitlines()[0].startswith("OWNER")
    assert b"is gone" in cli("sessions", "delete", "work").stderr
    assert b"no session 'work'" in cli("sessions", "show", "work", code=3).stderr


def test_long_listings_say_what_they_leave_out(cli: CommandLine) -> None:
    for name in ("a", "b", "c"):
        cli("sessions", "update", name, "--title", name)
    assert b"2 of 3 sessions" in cli("sessions", "list", "-n", "2").stderr
    assert len(_json(cli, "sessions", "list", "--all")["sessions"]) == 3


def test_what_is_added_to_an_environment_can_be_forgotten(cli: CommandLine) -> None:
    cli(
        "sessions",
        "update",
        "-e",
        "A=1",
        "-e",
        "B=x=y",
        "--preference",
        'p={"q": 1}',
        "--preference",
        "t=text",
    )
    view = _json(cli, "sessions", "update", "--forget", "A", "--preference", "t=null")
    assert view["workspace"]["env"] == ["B"]
    assert view["workspace"]["preferences"] == {"p": {"q": 1}}
    assert b"has no value" in cli("sessions", "update", "-e", "A", code=2).stderr
    assert b"has no value" in cli("sessions", "update", "--preference", "A", code=2).stderr


def test_a_revision_guards_a_change(cli: CommandLine) -> None:
    cli("sessions", "update", "--title", "one", "--revision", "0")
    done = cli("sessions", "update", "--title", "two", "--revision", "0", code=2)
    assert b"is at revision 1, not 0" in done.stderr


def test_a_share_lets_a_reader_in_until_it_is_revoked(cli: CommandLine) -> None:
    cli.run("-s", "work", "true")
    done = cli("sessions", "share", "work", "--role", "read", "--days", "1")
    token = done.stdout.decode().strip()
    assert b"the token is not shown again" in done.stderr
    [share] = _json(cli, "sessions", "show", "work")["shares"]
    assert share["role"] == "read"
    assert "expires_at" in share
    assert cli("sessions", "show", MCP_TASKS_SHARE=token).stdout.startswith(b"open: session work")
    refused = cli("run", "true", code=2, MCP_TASKS_SHARE=token)
    assert b"lets you read in the session, not write" in refused.stderr
    cli("sessions", "all", code=2, MCP_TASKS_SHARE=token)
    assert b"the share token is not valid" in cli("serve", "--share", "", code=3).stderr
    assert b"is over" in cli("sessions", "revoke", share["share_id"], "work").stderr
    cli("sessions", "show", code=3, MCP_TASKS_SHARE=token)
    again = _json(cli, "sessions", "share", "work", "--role", "write")
    assert again["share"]["token"]
    assert "shares" not in _json(cli, "sessions", "revoke", again["share"]["share_id"], "work")


def test_no_command_is_given_the_token_of_a_share(cli: CommandLine) -> None:
    cli.run("-s", "work", "true")
    token = cli.text("sessions", "share", "work", "--role", "write").strip()
    done = cli("run", "--wait", "echo ${MCP_TASKS_SHARE-none}", MCP_TASKS_SHARE=token)
    assert done.stdout == b"none\n"


def test_a_session_is_ended_when_nothing_runs_in_it_or_by_force(cli: CommandLine) -> None:
    task_id = cli.run("sleep 60")
    refused = cli("sessions", "end", "--wait", "0.1", code=1)
    assert task_id.encode() in refused.stderr
    assert b"--force" in refused.stderr
    cli("sessions", "delete", "default", code=1)
    view = _json(cli, "sessions", "end", "--force", "--reason", "done")
    assert (view["state"], view["reason"], view["cancelled"]) == ("closed", "done", [task_id])
    assert cli.text("sessions", "end").startswith("closed: session default")
    answer = _json(cli, "sessions", "delete", "default", "--force")
    assert answer["deleted"] == "default"


def test_a_session_can_be_given_a_time_and_freed_of_it(cli: CommandLine) -> None:
    assert "expires" in cli.text("sessions", "extend", "work", "--days", "7")
    assert "expires" not in cli.text("sessions", "extend", "work", "--never")
    assert b"until when?" in cli("sessions", "extend", "work", code=2).stderr
    assert b"no span of time" in cli("sessions", "extend", "work", "--days", "inf", code=2).stderr
    assert b"until when?" in cli("sessions", "extend", "--days", "1", "--never", code=2).stderr


def test_who_comes_through_a_share_is_refused_what_concerns_more_than_its_session(
    cli: CommandLine, tmp_path: Path
) -> None:
    cli.run("-s", "work", "true")
    cli("sessions", "update", "other")
    token = cli.text("sessions", "share", "work", "--role", "write").strip()
    state = str(tmp_path / "state")
    for command in (
        *(["sessions", "all"], ["sessions", "archived"], ["sessions", "restore", "other"]),
        *(["store", name] for name in ("audit", "backup", "backups", "cleanup", "restore")),
        *(["store", name] for name in ("rotate-key", "stats", "verify")),
        ["store", "migrate", state, str(tmp_path / "copy")],
        *(["context", name] for name in ("warm", "stats", "clear")),
    ):
        refused = cli(*command, code=2, MCP_TASKS_SHARE=token)
        assert b"this concerns the whole state directory" in refused.stderr, command
    archived = cli("sessions", "archive", "work", code=2, MCP_TASKS_SHARE=token)
    assert b"a share does not let you" in archived.stderr
    assert b"work" in cli("sessions", "list", MCP_TASKS_SHARE=token).stdout


def test_a_token_that_opens_nothing_is_said_to_in_the_same_words_whatever_it_is(cli: CommandLine) -> None:
    cli("sessions", "update", "work")
    token = cli.text("sessions", "share", "work").strip()
    view = _json(cli, "sessions", "show", "work")
    cli("sessions", "revoke", view["shares"][0]["share_id"], "-s", "work")
    told = {cli("ps", code=3, MCP_TASKS_SHARE=given).stderr for given in ("", "nonsense", token)}
    assert len(told) == 1
    assert b"the share token is not valid, or not any more" in told.pop()
