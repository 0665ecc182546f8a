from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.waiting import wait_until

ALL_BYTES = bytes(range(256)) * 3


def test_run_prints_the_id_of_a_task_that_outlives_the_command(cli: CommandLine, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    task_id = cli.run(f"while [ ! -e {gate} ]; do sleep 0.02; done; echo through")

    assert cli.json("poll", task_id)["state"] == "running"
    gate.touch()
    assert cli.text("wait", task_id).startswith(f"{task_id}  completed")
    assert cli("logs", task_id).stdout == b"through\n"


def test_one_word_is_a_shell_line_and_several_are_a_program_with_arguments(cli: CommandLine) -> None:
    assert cli("run", "--wait", "--", "echo a | tr a b").stdout == b"b\n"
    assert cli("run", "--wait", "echo", "a | tr a b", "-n").stdout == b"a | tr a b -n\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["exit 7"], 7),
        (["kill -TERM $$"], 128 + 15),
        (["--timeout", "0.1", "sleep 30"], 124),
        (["no-such-program-anywhere", "x"], 127),
        (["true"], 0),
    ],
)
def test_run_with_wait_exits_as_the_command_did(command: list[str], code: int, cli: CommandLine) -> None:
    cli("run", "--wait", *command, code=code)


def test_run_with_wait_passes_on_both_streams_byte_for_byte(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(ALL_BYTES)

    done = cli("run", "--wait", "--", f"cat {tmp_path}/bytes; cat {tmp_path}/bytes >&2")

    assert done.stdout == ALL_BYTES
    assert done.stderr == ALL_BYTES


def test_run_with_wait_in_json_prints_the_view_and_nothing_else(cli: CommandLine) -> None:
    view = cli.json("run", "--wait", "--label", "l", "--", "echo out; exit 2", code=2)

    assert (view["state"], view["exit_code"], view["stdout"], view["label"]) == ("failed", 2, "out\n", "l")


def test_an_interrupted_wait_leaves_the_task_running(cli: CommandLine, tmp_path: Path) -> None:
    started = tmp_path / "started"
    with cli.started("run", "--wait", "--", f"touch {started}; sleep 60") as process:
        wait_until(started.exists, "the command runs")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130

    [task] = cli.json("ps")["tasks"]
    assert task["state"] == "running"


def test_what_a_command_needs_can_be_given(cli: CommandLine, tmp_path: Path) -> None:
    script = 'pwd; echo "$A-$B-${C-unset}"; cat'

    done = subprocess.run(
        cli.arguments(
            "run", "-w", "--cwd", str(tmp_path), "-e", "A=1", "-e", "B=x=y", "-e", "C", "--stdin", "-", script
        ),
        input=b"typed",
        capture_output=True,
        env={**cli.env, "C": "set"},
        timeout=30,
        check=True,
    )

    assert done.stdout.decode() == f"{tmp_path}\n1-x=y-unset\ntyped"


def test_given_input_is_exact_and_bytes_that_are_no_text_are_refused(
    cli: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "text").write_bytes("a\r\nä".encode())
    (tmp_path / "bytes").write_bytes(ALL_BYTES)

    assert cli("run", "-w", "--stdin", str(tmp_path / "text"), "cat").stdout == "a\r\nä".encode()
    assert b"UTF-8" in cli("run", "-w", "--stdin", str(tmp_path / "bytes"), "cat", code=2).stderr


def test_what_never_ran_does_not_look_like_a_command_that_exited_with_1(
    cli: CommandLine, tmp_path: Path
) -> None:
    cli("run", "--wait", "exit 1", code=1)
    cli("run", "--wait", "true", code=2, MCP_TASKS_STORE="redis")
    cli("run", "--wait", "true", code=2, MCP_TASKS_MAX_RUNNING="many")
    cli("run", "--wait", "--timeout", "0", "true", code=2)
    cli("run", "--wait", "true", code=4, MCP_TASKS_MIN_FREE_BYTES="1000000TiB")
    (tmp_path / "other" / "mcp-tasks").mkdir(parents=True)
    (tmp_path / "other" / "mcp-tasks" / "config.toml").write_text('store = "redis"')
    cli("run", "--wait", "true", code=2, XDG_CONFIG_HOME=str(tmp_path / "other"))


def test_the_same_key_starts_once(cli: CommandLine) -> None:
    first = cli.run("--key", "k", "true")

    assert cli.run("--key", "k", "true") == first
    assert b"k" in cli("run", "--key", "k", "false", code=2).stderr


def test_logs_and_result_give_exact_bytes_to_what_is_no_terminal(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(ALL_BYTES)
    task_id = cli.run(f"cat {tmp_path}/bytes; echo problem >&2")
    cli("wait", task_id)

    for command in ("logs", "result"):
        done = cli(command, task_id)
        assert (done.stdout, done.stderr) == (ALL_BYTES, b"problem\n")
        assert cli(command, task_id, "--stream", "stdout").stderr == b""


def test_logs_of_megabytes_are_complete(cli: CommandLine) -> None:
    task_id = cli.run("seq 1 300000")
    cli("wait", task_id)

    assert cli("logs", task_id).stdout == b"".join(b"%d\n" % number for number in range(1, 300_001))


def test_logs_can_show_the_last_lines_only(cli: CommandLine) -> None:
    task_id = cli.run("seq 1 1000; seq 5 >&2; printf unfinished")
    cli("wait", task_id)

    done = cli("logs", "-n", "2", task_id)

    assert (done.stdout, done.stderr) == (b"1000\nunfinished", b"4\n5\n")
    assert cli("logs", "-n", "0", task_id).stdout == b""
    assert len(cli("logs", "-n", "5000", task_id).stdout) == len(cli("logs", task_id).stdout)


def test_the_last_lines_are_those_after_what_is_gone(cli: CommandLine) -> None:
    task = cli.run("--keep-tail", "--max-output", "100000", "seq 1 100000")
    cli("wait", task)
    assert cli.text("logs", "--tail", "3", task).split() == ["99998", "99999", "100000"]


def test_logs_follow_until_the_end(cli: CommandLine, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    task_id = cli.run(f"echo first; while [ ! -e {gate} ]; do sleep 0.02; done; echo last >&2")

    with cli.started("logs", "-f", task_id) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"first\n"
        gate.touch()
        assert process.stderr.read() == b"last\n"
        assert process.wait(10) == 0


def test_a_reader_that_has_enough_ends_logs_quietly(cli: CommandLine) -> None:
    task_id = cli.run("seq 1 200000")
    cli("wait", task_id)

    with cli.started("logs", task_id) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"1\n"
        process.stdout.close()
        assert process.stderr.read() == b""


def test_output_cannot_drive_a_terminal_unless_asked_for_raw(cli: CommandLine) -> None:
    task_id = cli.run(r"printf '\033[2Jred\033]0;title\007\r\nnext\r'; printf '\342\200\256x\377' >&2")
    cli("wait", task_id)

    for command in ("logs", "result", "poll"):
        shown = cli.on_terminal(command, task_id)
        assert b"\x1b[2J" not in shown
        assert b"\x1b]0" not in shown
        assert b"\x07" not in shown
        assert "\u202e".encode() not in shown
        assert b"red" in shown
    for command in ("logs", "result"):
        assert b"\x1b[2J" in cli.on_terminal(command, "--raw", task_id)
    assert b"^[[2Jred" in cli.on_terminal("logs", task_id)


def test_on_a_terminal_both_streams_come_in_their_order_in_time(cli: CommandLine) -> None:
    script = "for i in 1 2 3; do echo out$i; sleep 0.1; echo err$i >&2; sleep 0.1; done"
    task_id = cli.run(script)
    cli("wait", task_id)

    shown = cli.on_terminal("logs", task_id).split()

    assert shown == [b"out1", b"err1", b"out2", b"err2", b"out3", b"err3"]


def test_result_shows_record_and_history_in_json(cli: CommandLine) -> None:
    task_id = cli.run("echo done")
    cli("wait", task_id)

    view = cli.json("result", task_id)

    assert view["command"] == "echo done"
    assert view["stdout"] == "done\n"
    assert [change["state"] for change in view["history"]][-1] == "completed"


def test_poll_waits_for_a_pattern(cli: CommandLine) -> None:
    task_id = cli.run("echo preparing; sleep 0.2; echo ready to serve; sleep 60")

    view = cli.json("poll", task_id, "--pattern", "ready .*", "--wait", "20")

    assert view["wait_result"] == "matched"
    assert "ready to serve" in cli.text("poll", task_id)


def test_a_unique_beginning_of_an_id_is_enough(cli: CommandLine) -> None:
    first, second = cli.run("true"), cli.run("true")
    length = next(at for at in range(36) if first[at] != second[at])

    assert cli.json("poll", first[: length + 1])["task_id"] == first
    assert b"2 tasks" in cli("poll", first[:length], code=2).stderr


def test_search_finds_lines_and_tells_when_there_are_none(cli: CommandLine) -> None:
    task_id = cli.run("echo alpha; echo beta; echo ALPHA >&2")
    cli("wait", task_id)

    assert cli.text("search", "^al") == f"{task_id}:stdout:1: alpha\n"
    assert len(cli.json("search", "-i", "alpha")["matches"]) == 2
    assert "alpha" in cli.text("search", "-C", "1", "--task", task_id[:20], "beta")
    assert cli.text("search", "gamma", code=1) == ""
    assert b"mcp-tasks: " in cli("search", "(", code=2).stderr
