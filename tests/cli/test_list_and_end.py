from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_tasks.cli.endings import exit_code_of
from mcp_tasks.output import ansi
from tests.cli.conftest import CommandLine
from tests.waiting import wait_until


def test_ps_lists_the_tasks_of_a_session_newest_first(cli: CommandLine) -> None:
    first = cli.run("--label", "one", "exit 3")
    cli("wait", first, code=3)
    second = cli.run("--session", "other", "true")
    third = cli.run("sleep 60")

    listed = cli.json("ps")
    assert [task["task_id"] for task in listed["tasks"]] == [third, first]
    assert listed["counts"] == {"running": 1, "failed": 1}
    assert [task["task_id"] for task in cli.json("ps", "-s", "other")["tasks"]] == [second]
    assert [task["task_id"] for task in cli.json("ps", "--label", "one")["tasks"]] == [first]
    assert [task["task_id"] for task in cli.json("ps", "--state", "active")["tasks"]] == [third]

    header, *rows = cli.text("ps").splitlines()
    assert header.split() == ["ID", "STATE", "EXIT", "TIME", "OUTPUT", "STARTED", "LABEL", "COMMAND"]
    assert rows[0].startswith(f"{third}  running")
    assert rows[1].split()[:3] == [first, "failed", "3"]
    assert rows[1].endswith("one    exit 3")


def test_ps_on_a_terminal_shortens_ids_and_fits_the_width(cli: CommandLine) -> None:
    task_id = cli.run("true; : " + "x" * 300)
    cli("wait", task_id)

    lines = ansi.strip(cli.on_terminal("ps").decode()).splitlines()

    assert all(len(line) <= 100 for line in lines)
    assert lines[1].endswith("…")
    shown = lines[1].split()[0]
    assert len(shown) < 36
    assert task_id.startswith(shown)
    assert cli.json("poll", shown)["task_id"] == task_id


def test_ps_pages_through_everything_when_asked(cli: CommandLine) -> None:
    for _ in range(3):
        cli.run("true")

    assert len(cli.json("ps", "-n", "2")["tasks"]) == 2
    assert len(cli.json("ps", "-n", "2", "--all")["tasks"]) == 3
    assert b"2 of 3" in cli("ps", "-n", "2").stderr


def test_a_store_that_was_never_used_has_no_tasks(cli: CommandLine) -> None:
    done = cli("ps")

    assert (done.stdout, done.stderr) == (b"", b"no tasks\n")


def test_wait_exits_as_the_first_that_did_not_complete(cli: CommandLine) -> None:
    good, bad, worse = cli.run("true"), cli.run("exit 4"), cli.run("exit 5")

    cli("wait", good)
    cli("wait", good, bad, worse, code=4)
    cli("wait", worse, good, code=5)


def test_wait_can_be_for_any_and_for_a_while(cli: CommandLine) -> None:
    long, short = cli.run("sleep 60"), cli.run("exit 6")

    answer = cli.json("wait", "--any", long, short, code=6)
    assert answer["open"] == [long]
    assert b"not over yet" in cli("wait", "--timeout", "0.1", long, code=124).stderr


def test_waiting_for_any_of_those_that_are_over_exits_as_the_one_that_ended_first(cli: CommandLine) -> None:
    first = cli.run("exit 7")
    cli("wait", first, code=7)
    second = cli.run("exit 8")
    cli("wait", second, code=8)
    good = cli.run("true")
    cli("wait", good)

    cli("wait", "--any", second, first, code=7)
    cli("wait", "--any", good, second, code=8)
    third = cli.run("exit 9")
    cli("wait", third, code=9)
    cli("wait", "--any", third, good, code=0)


def test_cancel_ends_the_whole_tree(cli: CommandLine, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"(trap '' TERM; setsid sleep 61) & trap '' TERM; touch {ready}; sleep 62"
    task_id = cli.run(script)
    wait_until(ready.exists, "the command runs")

    assert cli.text("cancel", task_id[:20], "--grace", "0.1") == f"{task_id}  cancelled\n"
    cli("wait", task_id, code=128 + 9)


def test_clear_removes_what_is_finished_and_nothing_that_runs(cli: CommandLine) -> None:
    running, finished = cli.run("sleep 60"), cli.run("true")
    cli("wait", finished)

    assert cli.text("clear", "--finished") == f"{finished}\n"
    cli("poll", finished, code=3)
    assert b"--cancel ends it first" in cli("clear", running, code=1).stderr
    assert cli.json("clear", "--cancel", running)["cleared"] == [running]
    assert cli.json("ps")["tasks"] == []


def test_clear_wants_to_know_what(cli: CommandLine) -> None:
    cli("clear", code=2)
    cli("clear", "--finished", "x", code=2)


def test_input_is_typed_into_a_task_of_an_earlier_command(cli: CommandLine) -> None:
    task_id = cli.run("-i", "cat; echo end")

    assert cli.json("input", task_id, "hello")["stdout"] == "hello\n"
    assert cli.json("input", task_id, "--no-enter", "a")["stdout"] == "a"
    cli("input", task_id, stdin=b"from stdin\n")
    assert cli.json("input", task_id, "--eof")["stdout"] == "end\n"
    assert cli("logs", task_id).stdout == b"hello\nafrom stdin\nend\n"


def test_what_is_piped_in_is_typed_before_the_input_ends(cli: CommandLine) -> None:
    task_id = cli.run("-i", "cat; echo end")

    done = cli("input", task_id, "--eof", "--json", stdin="ä\r\nx\n".encode())

    assert json.loads(done.stdout)["stdout_bytes"] == len("ä\r\nx\nend\n".encode())
    assert cli("logs", task_id).stdout == "ä\r\nx\nend\n".encode()


def test_ending_the_input_at_a_terminal_reads_nothing(cli: CommandLine) -> None:
    task_id = cli.run("-i", "cat; echo end")

    assert b"end" in cli.on_terminal("input", task_id, "--eof")


def test_piped_bytes_that_are_no_text_are_refused_and_nothing_is_typed(cli: CommandLine) -> None:
    task_id = cli.run("-i", "cat")

    assert b"UTF-8" in cli("input", task_id, "--eof", stdin=b"\xff", code=2).stderr
    assert cli.json("poll", task_id)["state"] == "running"


def test_a_signal_reaches_the_command(cli: CommandLine) -> None:
    task_id = cli.run("trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.02; done")
    cli("poll", task_id, "--pattern", "ready", "--wait", "20")

    cli("input", task_id, "--signal", "INT")

    cli("wait", task_id, code=9)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["poll", "nothing-like-that"], 3),
        (["logs", "nothing-like-that"], 3),
        (["nonsense"], 2),
        (["run"], 2),
        (["run", "--cwd", "/nowhere/at/all", "true"], 2),
        (["ps", "--session", "a/b"], 2),
        (["ps", "--state", "asleep"], 2),
        (["ps", "--store", "redis"], 2),
        (["ps", "--store", "memory"], 2),
        (["serve", "--store", "redis"], 2),
        (["serve", "--max-running", "0"], 2),
        (["serve", "--tools", "some"], 2),
        (["config", "netscape"], 2),
        (["bench", "--only", "nothing"], 2),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_in_the_exit_code(
    arguments: list[str], code: int, cli: CommandLine
) -> None:
    done = cli(*arguments, code=code)

    assert done.stdout == b""
    assert done.stderr.strip()


TOOL_WORDS = re.compile(r"[a-z]+_(task|tasks|result|input|output|command|ms|id)\b|: true")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["poll", "nothing-like-that"], 3, "`mcp-tasks ps` shows the tasks"),
        (["input", "RUNNING", "text"], 2, "start it with --interactive"),
        (["clear", "RUNNING"], 1, "--cancel ends it first"),
        (
            ["clear", "--label", "x", "RUNNING"],
            2,
            "--label does not go with ID (label and cwd narrow --finished)",
        ),
        (
            ["clear", "--finished", "--cancel"],
            2,
            "--cancel goes with ID only (`mcp-tasks cancel` ends several",
        ),
        (["run", "--timeout", "0", "true"], 2, "--timeout is too small (give at least 1 ms)"),
        (["run", "-i", "--stdin", "/dev/null", "cat"], 2, "`mcp-tasks input` instead"),
        (
            ["poll", "RUNNING", "--until", "never"],
            2,
            "--until has a value that it cannot have (give one of 'exit'",
        ),
        (["poll", "RUNNING", "--until", "exit", "--idle", "1"], 2, "--idle implies it"),
        (["ps", "--label", ""], 2, "--label is empty"),
    ],
)
def test_a_person_is_told_of_commands_and_flags_and_not_of_tools(
    arguments: list[str], code: int, said: str, cli: CommandLine
) -> None:
    running = cli.run("sleep 60")

    [line] = cli(
        *(running if word == "RUNNING" else word for word in arguments), code=code
    ).stderr.splitlines()

    assert said in line.decode()
    assert not TOOL_WORDS.search(line.decode())


def test_what_is_left_in_the_background_is_ended_by_a_command_of_this_command_line(cli: CommandLine) -> None:
    task_id = cli.run("sleep 60 & echo on")
    cli("wait", task_id)

    assert "`mcp-tasks cancel` ends them" in cli.text("poll", task_id)
    cli("cancel", task_id, "--grace", "0.1")


def test_words_that_somebody_gave_are_not_reworded(cli: CommandLine) -> None:
    assert b"no task 'list_tasks'" in cli("poll", "list_tasks", code=3).stderr


def test_a_store_that_cannot_be_used_is_exit_code_4(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("not a folder")

    cli("ps", code=4)


def test_a_broken_settings_file_is_named(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "config" / "mcp-tasks").mkdir(parents=True)
    (tmp_path / "config" / "mcp-tasks" / "config.toml").write_text("= =")

    assert b"config.toml" in cli("ps", code=2).stderr


@pytest.mark.parametrize(
    ("view", "code"),
    [
        ({"outcome": "exited", "exit_code": 0}, 0),
        ({"outcome": "exited", "exit_code": 255}, 255),
        ({"outcome": "signalled", "signal": "SIGSEGV"}, 139),
        ({"outcome": "signalled", "signal": "SIGRTMIN+3"}, 128),
        ({"outcome": "timed_out", "exit_code": 0}, 124),
        ({"outcome": "cancelled", "exit_code": 0}, 1),
        ({"outcome": "cancelled", "signal": "SIGTERM"}, 143),
        ({"outcome": "cancelled"}, 1),
        ({"outcome": "output_limit", "signal": "SIGKILL"}, 1),
        ({"outcome": "spawn_failed"}, 127),
        ({"outcome": "dependency_failed"}, 1),
        ({"outcome": "lost"}, 1),
    ],
)
def test_only_a_task_that_completed_is_exit_code_0(view: dict[str, object], code: int) -> None:
    assert exit_code_of(view) == code


def test_doctor_finds_a_fresh_directory_well(cli: CommandLine) -> None:
    report = cli.json("doctor")

    assert report["well"] is True
    assert {finding["verdict"] for finding in report["findings"]} == {"well"}
    assert {finding["what"] for finding in report["findings"]} >= {
        "directory", "modes", "disk", "locks", "commands", "tasks", "records",
    }  # fmt: skip
    assert "commands" in cli.text("doctor")


def test_doctor_tells_of_modes_that_were_too_wide(cli: CommandLine, tmp_path: Path) -> None:
    cli("ps")
    (tmp_path / "state").chmod(0o755)

    report = cli.json("doctor")

    assert "look" in {finding["verdict"] for finding in report["findings"]}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_doctor_finds_a_broken_record_and_then_what_was_set_aside(cli: CommandLine, tmp_path: Path) -> None:
    task_id = cli.run("true")
    cli("wait", task_id)
    [record] = (tmp_path / "state").glob("sessions/*/*/tasks/*.json")
    record.write_text("{")

    assert cli.json("doctor", code=1)["well"] is False
    after = cli.json("doctor")
    assert ("look", "quarantine") in {(finding["verdict"], finding["what"]) for finding in after["findings"]}


def test_doctor_says_when_the_disk_is_too_full(cli: CommandLine) -> None:
    done = cli("doctor", "--json", code=1, MCP_TASKS_MIN_FREE_BYTES="1000000TiB")

    wrong = [finding for finding in json.loads(done.stdout)["findings"] if finding["verdict"] == "wrong"]
    assert [finding["what"] for finding in wrong] == ["disk"]


def test_doctor_counts_the_supervisors_that_live(cli: CommandLine) -> None:
    cli.run("sleep 60")

    [found] = [each["found"] for each in cli.json("doctor")["findings"] if each["what"] == "tasks"]

    assert found == "1 run under supervisors, 0 wait"


def test_doctor_goes_on_where_the_directory_is_of_no_use(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("not a folder")

    report = cli.json("doctor", code=1)

    verdicts = {finding["what"]: finding["verdict"] for finding in report["findings"]}
    assert verdicts["directory"] == "wrong"
    assert verdicts["commands"] == "well"


def test_config_shows_the_entry_and_writes_it_only_when_asked(cli: CommandLine, tmp_path: Path) -> None:
    shown = cli("config", "cursor")
    entry = json.loads(shown.stdout)
    assert b"mcp.json" in shown.stderr
    assert not (tmp_path / ".cursor").exists()

    cli("config", "cursor", "--write")

    assert json.loads((tmp_path / ".cursor" / "mcp.json").read_text()) == entry
    assert b"already" in cli("config", "cursor", "--write").stderr


def test_config_prints_what_it_cannot_merge(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / ".cursor").mkdir()
    (tmp_path / ".cursor" / "mcp.json").write_text("// mine\n{}")

    done = cli("config", "cursor", "--write", code=2)

    assert "mcp-tasks" in json.loads(done.stdout)["mcpServers"]
    assert (tmp_path / ".cursor" / "mcp.json").read_text() == "// mine\n{}"


def test_the_configured_command_serves(cli: CommandLine) -> None:
    entry = json.loads(cli("config", "cursor").stdout)["mcpServers"]["mcp-tasks"]
    initialize = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "0"},
        },
    }
    assert os.path.isabs(entry["command"])

    for command in ([entry["command"], *entry["args"]], cli.arguments()):
        done = subprocess.run(
            command,
            input=json.dumps(initialize).encode() + b"\n",
            capture_output=True,
            env={**cli.env, **entry["env"]},
            timeout=30,
            check=True,
        )
        [line] = done.stdout.splitlines()
        assert json.loads(line)["result"]["serverInfo"]["name"]


def test_serve_has_a_flag_for_every_setting_that_the_readme_lists(cli: CommandLine) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    settings = re.findall(r"^\| `MCP_TASKS_([A-Z_]+)`", readme, re.MULTILINE)
    shown = cli.text("serve", "--help")

    assert len(settings) > 5
    for setting in settings:
        assert f"--{setting.lower().replace('_', '-')} " in shown
    for flag in ("--max-wait-ms", "--max-output-bytes", "--min-free-bytes"):
        cli("serve", flag, "some", code=2)


def test_without_a_command_a_person_at_a_terminal_gets_help(cli: CommandLine) -> None:
    assert b"Usage: mcp-tasks" in cli.on_terminal()
    assert cli.text("--version").startswith("mcp-tasks ")


def test_help_loads_nothing_heavy(cli: CommandLine) -> None:
    script = (
        "import sys; from mcp_tasks.cli.program import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'mcp', 'mcp_types', 'pydantic', 'anyio', 'asyncio', 'psutil'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=True)

    assert done.stdout.splitlines()[-1] == b"[]"


def test_a_long_wait_shows_on_a_terminal_that_it_goes_on(cli: CommandLine) -> None:
    task_id = cli.run("sleep 1")

    shown = cli.on_terminal("wait", task_id)

    assert f"waiting for {task_id}".encode() in shown
    assert b"completed" in shown


@pytest.mark.parametrize("store", ["json", "sqlite"])
def test_doctor_tells_of_what_was_set_aside_once_only(cli: CommandLine, tmp_path: Path, store: str) -> None:
    cli.env["MCP_TASKS_STORE"] = store
    cli("sessions", "update", "work")
    cli("journal", "add", "-s", "work", "one")
    for database in (tmp_path / "state").glob("*.db"):
        database.write_bytes(b"garbage" * 2_000)
    for _ in range(2):
        findings = cli.json("doctor")["findings"]
        for aside in (tmp_path / "state" / "quarantine").glob("*.db"):
            name = aside.name.rpartition("-")[2]
            assert len([each for each in findings if name in each["found"]]) == 1, findings


def test_doctor_says_when_the_key_of_sealed_values_is_lost(cli: CommandLine, tmp_path: Path) -> None:
    cli.env["MCP_TASKS_KEY_FILE"] = str(tmp_path / "key")
    cli("sessions", "update", "work", "-e", "A=1", "-e", "B=2")
    [found] = [each for each in cli.json("doctor")["findings"] if each["what"] == "keys"]
    assert (found["verdict"], found["found"]) == ("well", "here for 2 sealed values")
    (tmp_path / "key").unlink()
    [found] = [each for each in cli.json("doctor", code=1)["findings"] if each["what"] == "keys"]
    assert found["found"].startswith("2 sealed values need the key ")
    assert not (tmp_path / "key").exists()


def test_a_misspelt_variable_is_warned_about_once_and_stops_nothing(cli: CommandLine) -> None:
    told = cli("ps", MCP_TASKS_SESION="work").stderr
    assert told.count(b"MCP_TASKS_SESION is no setting; did you mean MCP_TASKS_SESSION?") == 1
