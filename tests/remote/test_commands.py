from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcp_tasks.cli import server_checkup
from tests.cli.conftest import CommandLine
from tests.http.server_process import HttpServer, running_server
from tests.remote.conftest import elsewhere


def test_what_is_over_is_shown_elsewhere_as_it_is_here(
    near: CommandLine, far: CommandLine, tmp_path: Path
) -> None:
    done = far.run("--label", "done", "--", "seq", "5")
    far("wait", done)
    failed = far.run("echo it broke >&2; exit 3")
    far("wait", failed, code=3)
    kept = far.run("--keep-tail", "--max-output", "100000", "seq 1 100000")
    far("wait", kept)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(["true", "echo second"]))
    made = far("plan", "run", "--wait", str(plan)).stdout
    far("journal", "add", "where are we?")

    for arguments, code in [
        (("ps", "--json"), 0),
        (("ps", "--state", "failed", "--limit", "1"), 0),
        (("logs", failed), 0),
        (("logs", "--tail", "2", done), 0),
        (("logs", "--tail", "3", kept), 0),
        (("logs", "--follow", "--stream", "stdout", done[:30]), 0),
        (("result", done), 0),
        (("result", "--json", failed), 0),
        (("poll", "--wait", "5", done), 0),
        (("search", "--json", "-C", "1", "broke"), 0),
        (("search", "nowhere"), 1),
        (("wait", "--any", failed, done), 0),
        (("plan", "progress"), 0),
        (("plan", "list", "--json"), 0),
        (("journal", "search", "where"), 0),
        (("journal", "read", "--role", "user", "--json"), 0),
        (("logs", "0" * 36), 3),
        (("logs", "no/such"), 3),
        (("plan", "progress", "01zzz"), 3),
        (("sessions", "show", "nowhere"), 3),
        (("run", "--timeout", "-1", "x"), 2),
    ]:
        here, there = near(*arguments, code=code), far(*arguments, code=code)
        assert _lasting(there.stdout) == _lasting(here.stdout), arguments
        assert there.stderr == here.stderr, arguments
    assert b"2 of 2" in made


def _lasting(stdout: bytes) -> bytes:
    """What does not depend on who asked, and when."""
    return b"\n".join(line for line in stdout.splitlines() if b"waited" not in line)


def test_a_command_runs_on_the_server_and_its_end_is_passed_on(far: CommandLine, near: CommandLine) -> None:
    done = far("run", "--wait", "--cwd", "/", "--", "pwd")
    assert (done.stdout, done.stderr) == (b"/\n", b"")
    assert far("run", "--wait", "echo oh >&2; exit 7", code=7).stderr == b"oh\n"
    assert far("run", "--wait", "--timeout", "0.2", "sleep 60", code=124).stdout == b""
    exact = far("run", "--wait", "head -c 2000000 /dev/urandom | tee /proc/self/fd/2 | cat").stdout
    task = near.json("ps", "--limit", "1")["tasks"][0]["task_id"]
    assert exact == near("logs", "--stream", "stdout", task).stdout
    assert len(exact) == 2_000_000


def test_what_every_run_has_printed_is_followed(far: CommandLine) -> None:
    shown = far("run", "--wait", "--retries", "1", "echo again; echo oh >&2; exit 4", code=4)
    assert shown.stdout == b"again\n" * 2
    assert shown.stderr == b"oh\n" * 2


def test_work_goes_on_in_the_sessions_of_the_server(
    far: CommandLine, near: CommandLine, tmp_path: Path
) -> None:
    far("sessions", "update", "work", "--title", "Work", "--cwd", "/", "-e", "A=b")
    assert far.text("run", "-s", "work", "--wait", "pwd; echo $A") == "/\nb\n"
    message = far.text("journal", "add", "-s", "work", "first").strip()
    far("journal", "edit", "-s", "work", message, "changed")
    document = far("journal", "export", "-s", "work", "--json").stdout
    assert json.loads(document)["session"]["title"] == "Work"
    assert b"0 messages folded" in far("journal", "prune", "-s", "work").stderr
    taken = far("journal", "import", "-s", "other", "-", stdin=document).stderr
    assert taken.startswith(b"4 messages imported") or b"messages imported" in taken
    assert "changed" in near.text("journal", "read", "-s", "other")
    token = far.text("sessions", "share", "work").strip()
    guest = far("ps", MCP_TASKS_SHARE=token)
    assert b"pwd" in guest.stdout
    assert b"changed" in far("journal", "read", MCP_TASKS_SHARE=token).stdout
    far("run", "true", MCP_TASKS_SHARE=token, code=2)
    far("ps", MCP_TASKS_SHARE="tökén", code=2)
    far("sessions", "end", "work")
    assert b"freed" in far("sessions", "delete", "work").stderr
    far("sessions", "show", "work", code=3)


def test_the_knowledge_of_projects_is_that_of_the_server(far: CommandLine, tmp_path: Path) -> None:
    assert b"looked at" in far("context", "warm", str(tmp_path)).stderr
    assert b"is not a directory" in far("context", "warm", str(tmp_path / "gone"), code=1).stderr
    assert f"project {tmp_path}" in far.text("context", "show", "--cwd", str(tmp_path))
    assert "misses" in far.text("context", "stats")
    assert b"1 looked-at folder" in far("context", "clear").stderr


def test_input_is_given_and_tasks_are_ended_and_cleared(far: CommandLine) -> None:
    task = far.run("--interactive", "cat")
    assert "hello" in far.text("input", task, "hello")
    assert f"{task}  cancelled" in far.text("cancel", "--grace", "1", task)
    stubborn = far.run("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    far("poll", stubborn, "--pattern", "ready", "--wait", "10")
    assert f"{stubborn}  cancelled" in far.text("cancel", "--grace", "1.5", stubborn)
    assert far.text("clear", task[:20]).strip() == task
    assert stubborn in far.text("clear", "--finished")


@pytest.mark.parametrize(
    "arguments",
    [["serve"], ["store", "stats"], ["config", "cursor"], ["demo"], ["bench"], ["token"]],
)
def test_what_works_on_one_machine_only_is_refused_elsewhere(tmp_path: Path, arguments: list[str]) -> None:
    done = CommandLine(tmp_path)("--server", "http://127.0.0.1:1", *arguments, code=2)
    assert b"works on this machine and not through a server" in done.stderr


def test_a_server_that_is_named_stands_for_this_machine_in_no_other_command(tmp_path: Path) -> None:
    line = CommandLine(tmp_path, {"MCP_TASKS_SERVER": "http://127.0.0.1:1"})
    for arguments in (["archived"], ["restore", "x"]):
        assert b"not through a server" in line("sessions", *arguments, code=2).stderr
    assert b"no tasks" in line("ps", "--dir", str(tmp_path / "state")).stderr
    assert b"does not go with" in line("--server", "unix:x", "ps", "--dir", "x", code=2).stderr
    assert b"goes with a command" in line("--server", "unix:x", code=2).stderr
    assert b"no URL" in line("--server", "http://[x", "ps", code=2).stderr


@pytest.mark.parametrize(
    "arguments",
    [["ps", "--server", "http://x"], ["sessions", "list", "--server=http://x"], ["run", "--server"]],
)
def test_who_names_the_server_behind_the_command_is_told_where_it_goes(
    tmp_path: Path, arguments: list[str]
) -> None:
    done = CommandLine(tmp_path)(*arguments, code=2)
    assert b"--server goes before the command" in done.stderr
    assert f"`mcp-tasks --server URL {arguments[0]}`".encode() in done.stderr
    assert done.stdout == b""


def test_another_unknown_option_is_refused_as_ever(tmp_path: Path) -> None:
    assert b"No such option: --servre" in CommandLine(tmp_path)("ps", "--servre", "x", code=2).stderr


def test_an_option_of_that_name_is_left_to_the_program_that_is_run(tmp_path: Path) -> None:
    done = CommandLine(tmp_path)("run", "--wait", "echo", "--server", "x")
    assert done.stdout == b"--server x\n"


def test_what_works_on_this_machine_says_so_where_a_server_is_named(tmp_path: Path) -> None:
    line = CommandLine(tmp_path, {"MCP_TASKS_SERVER": "http://127.0.0.1:1"})
    done = line("config", "cursor")
    assert b"config works on this machine, and not on the server of MCP_TASKS_SERVER" in done.stderr
    assert b"works on this machine" not in line("config", "cursor", MCP_TASKS_SERVER="").stderr


@pytest.mark.parametrize("options", [["--new"], ["--hooks"], []])
def test_a_token_is_not_asked_of_this_machine_by_mistake(tmp_path: Path, options: list[str]) -> None:
    line = CommandLine(tmp_path, {"MCP_TASKS_SERVER": "http://127.0.0.1:1"})
    assert b"not through a server" in line("token", *options, code=2).stderr
    assert not (tmp_path / "state").exists()
    assert line("token", *options, "--dir", str(tmp_path / "state")).stdout.count(b"\n") == 1


def test_who_has_no_token_is_told_where_to_get_one(far: CommandLine) -> None:
    refused = far("ps", code=2, MCP_TASKS_TOKEN="another-token-that-is-long-enough")
    assert b"set MCP_TASKS_TOKEN" in refused.stderr
    assert b"another-token" not in refused.stderr


def test_a_server_that_does_not_answer_is_no_empty_store(tmp_path: Path) -> None:
    line = CommandLine(tmp_path)
    done = line("--server", f"unix:{tmp_path}/nothing", "ps", code=4)
    assert b"does not answer (No such file or directory)" in done.stderr
    found = line("--server", f"unix:{tmp_path}/nothing", "doctor", code=1)
    assert b"wrong  reach" in found.stdout


def test_doctor_looks_at_the_server(far: CommandLine) -> None:
    found = json.loads(far("doctor", "--json").stdout)
    assert found["well"]
    assert [one["what"] for one in found["findings"]] == ["reach", "version", "token", "clock"]
    wrong = json.loads(far("doctor", "--json", code=1, MCP_TASKS_TOKEN="x" * 40).stdout)
    assert {one["what"]: one["verdict"] for one in wrong["findings"]}["token"] == "wrong"


def test_a_socket_file_is_as_good_as_an_address(tmp_path: Path, near: CommandLine) -> None:
    with running_server(tmp_path / "state", "--uds", str(tmp_path / "s")) as server:
        far = elsewhere(tmp_path, server.where)
        assert server.where.startswith("unix:")
        assert far.text("run", "--wait", "echo well") == "well\n"


def test_a_server_is_named_by_a_flag_as_well(tmp_path: Path, server: HttpServer, near: CommandLine) -> None:
    far = elsewhere(tmp_path, "http://127.0.0.1:1")
    assert far.text("--server", server.where, "run", "--wait", "echo well") == "well\n"


def test_doctor_tells_of_another_version_and_of_clocks_that_are_apart() -> None:
    [other] = server_checkup._versions("0.0.1")
    [behind] = server_checkup._clock({"now": "2026-01-01T00:00:00.000Z"}, 1_767_225_700.0, 1_767_225_700.2)
    [ahead] = server_checkup._clock({"now": "2026-01-01T00:00:00.000Z"}, 1_767_225_100.0, 1_767_225_100.2)

    assert (behind.verdict, behind.found) == ("look", "the server's clock is 100 s behind this one")
    assert (ahead.verdict, ahead.found) == ("look", "the server's clock is 500 s ahead of this one")
    assert other.verdict == ("well" if "not installed" in other.found else "look")
