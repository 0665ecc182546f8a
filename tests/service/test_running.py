"""run_command: what is started, with what, and what is said of it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from mcp_tasks.errors import InvalidArgument, KeyConflict, LimitReached, NotSupported
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually

ALWAYS = {"task_id", "session", "state", "elapsed_ms", "stdout_bytes", "stderr_bytes", "next_cursor"}


async def test_a_short_command_is_over_in_the_answer_and_nothing_empty_is_said(agent: Agent) -> None:
    view = await agent.run("echo out; echo err >&2")

    assert view.pop("waited_ms") >= 0
    assert view.pop("elapsed_ms") >= 0
    assert re.fullmatch(r"[0-9a-z]{36}", view.pop("task_id"))
    assert view.pop("next_cursor")
    assert view == {
        "session": "default",
        "state": "completed",
        "outcome": "exited",
        "exit_code": 0,
        "stdout": "out\n",
        "stderr": "err\n",
        "stdout_bytes": 4,
        "stderr_bytes": 4,
        "shown": {"stdout": [0, 4], "stderr": [0, 4]},
        "wait_result": "exited",
    }


async def test_a_command_without_output_has_only_the_fields_that_are_always_there(agent: Agent) -> None:
    view = await agent.run("true")
    assert set(view) == ALWAYS | {"outcome", "exit_code", "wait_result", "waited_ms"}


async def test_a_command_that_takes_longer_is_answered_as_running_with_what_to_do_next(agent: Agent) -> None:
    view = await agent.run("echo begun; sleep 60", wait_ms=1, until="output")
    view = await agent.poll(view["task_id"], wait_ms=20_000, until="output", cursor="1-0-0")

    assert view["state"] == "running"
    assert view["idle_ms"] >= 0
    assert view["task_id"] in view["next"]
    assert view["next_cursor"] in view["next"]
    assert "outcome" not in view
    assert (await agent.cancel(view["task_id"]))["state"] == "cancelled"


async def test_the_exit_code_makes_the_state(agent: Agent) -> None:
    view = await agent.run("exit 3")
    assert (view["state"], view["outcome"], view["exit_code"]) == ("failed", "exited", 3)


async def test_a_signal_that_nobody_here_sent_is_told_by_name(agent: Agent) -> None:
    view = await agent.run("kill -SEGV $$")
    assert (view["state"], view["outcome"], view["signal"]) == ("failed", "signalled", "SIGSEGV")
    assert "exit_code" not in view


async def test_the_deadline_ends_a_command_and_the_wait_does_not(agent: Agent) -> None:
    view = await agent.run("sleep 60", timeout_ms=100, wait_ms=1)
    assert view["state"] == "running"
    view = await agent.ended(view["task_id"])
    assert (view["state"], view["outcome"], view["signal"]) == ("failed", "timed_out", "SIGTERM")


async def test_a_list_is_run_without_a_shell(agent: Agent) -> None:
    view = await agent.run(["printf", "%s|", "$HOME", "a b", ""])
    assert view["stdout"] == "$HOME|a b||"


async def test_a_shell_that_is_named_runs_the_string(agent: Agent) -> None:
    view = await agent.run("echo $0", shell="/bin/bash")
    assert view["stdout"] == "/bin/bash\n"


async def test_env_is_laid_over_the_servers_and_null_unsets(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "HOME" in os.environ
    view = await agent.run('echo "$NEW ${HOME-unset} ${PATH:+path}"', env={"NEW": "new", "HOME": None})
    assert view["stdout"] == "new unset path\n"


async def test_every_command_knows_its_task_and_not_the_servers_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_TASKS_TOKEN", "hidden")
    async with open_agent(tmp_path) as agent:
        view = await agent.run("echo $MCP_TASKS_TASK${MCP_TASKS_TOKEN-}")
        assert view["stdout"].strip() == view["task_id"]


async def test_stdin_is_given_once_and_is_empty_otherwise(agent: Agent) -> None:
    assert (await agent.run("cat", stdin='{"a":1}'))["stdout"] == '{"a":1}'
    assert (await agent.run("cat | wc -c"))["stdout"].strip() == "0"


async def test_more_input_than_a_pipe_holds_arrives_whole(agent: Agent) -> None:
    assert (await agent.run("cat | wc -c", stdin="x" * 3_000_000))["stdout"].strip() == "3000000"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no limit for one argument")
async def test_a_command_as_long_as_the_system_takes_runs_and_a_longer_one_is_refused(agent: Agent) -> None:
    longest = ": " + "x" * 131_069
    assert (await agent.run(longest))["state"] == "completed"
    assert (await agent.run(["true", longest]))["state"] == "completed"
    for longer in (f"{longest}x", ["true", f"{longest}x"], ["true"] * 500_000):
        with pytest.raises(InvalidArgument, match="the system cannot start"):
            await agent.run(longer)
    assert (await agent.list())["counts"] == {"completed": 2}


async def test_the_working_directory_is_the_one_given(agent: Agent, tmp_path: Path) -> None:
    await agent.run("echo here > here", cwd=str(tmp_path))
    assert (tmp_path / "here").read_text() == "here\n"


async def test_a_missing_working_directory_is_refused_and_nothing_is_registered(
    agent: Agent, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match="cwd"):
        await agent.run("true", cwd=str(tmp_path / "nowhere"))
    assert (await agent.list())["tasks"] == []


@pytest.mark.parametrize("program", [["no-such-program-anywhere"], ["/etc/passwd"], ["/no/such/file"]])
async def test_a_program_that_cannot_be_started_is_a_failed_task(agent: Agent, program: list[str]) -> None:
    view = await agent.run(program)
    assert (view["state"], view["outcome"]) == ("failed", "spawn_failed")
    assert view["error"]["code"] == "spawn_failed"
    assert view["error"]["message"].startswith("the program could not be started: ")
    assert view["error"]["hint"]
    record = await agent.result(view["task_id"])
    assert "started_at" not in record
    assert [entry["state"] for entry in record["history"]] == ["pending", "running", "failed"]


async def test_a_shell_that_does_not_find_the_program_exits_127(agent: Agent) -> None:
    view = await agent.run("no-such-program-anywhere")
    assert (view["state"], view["exit_code"]) == ("failed", 127)
    assert "not found" in view["stderr"]


async def test_what_is_not_there_yet_is_refused_by_name(agent: Agent) -> None:
    with pytest.raises(NotSupported, match="pty"):
        await agent.run("true", pty=True)
    assert (await agent.list())["counts"] == {}


async def test_secrets_are_redacted_in_the_record_and_given_to_the_command(agent: Agent) -> None:
    view = await agent.run("echo --password=hunter2 | tr a-z A-Z", env={"API_KEY": "sesame"})
    record = await agent.result(view["task_id"])
    assert view["stdout"] == "--PASSWORD=HUNTER2\n"
    assert "hunter2" not in record["command"]
    assert "sesame" not in str(record)


async def test_env_values_and_input_are_in_no_file_of_the_state_directory(
    narrow: Agent, tmp_path: Path
) -> None:
    blocker = await narrow.start("sleep 60")
    waiting = await narrow.start("cat >/dev/null", env={"K": "very-private-value"}, stdin="typed-in-private")
    await narrow.cancel(blocker)
    assert (await narrow.ended(waiting))["state"] == "completed"
    for path in (tmp_path / "state").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"very-private-value" not in content, path
            assert b"typed-in-private".hex().encode() not in content, path
            assert b"typed-in-private" not in content, path


# -- output limits ---------------------------------------------------------------------------------


async def test_at_the_output_limit_the_task_fails_with_exactly_the_first_bytes(agent: Agent) -> None:
    view = await agent.run("seq 1 100000; sleep 60", max_output_bytes=1_000, grace_ms=100)
    assert (view["state"], view["outcome"]) == ("failed", "output_limit")
    assert view["error"]["code"] == "limit_reached"
    assert view["stdout_bytes"] == 1_000
    page = await agent.result(view["task_id"], offset=0, limit=2_000)
    assert page["stdout"] == "".join(f"{n}\n" for n in range(1, 1_000))[:1_000]


async def test_keep_tail_lets_the_command_end_by_itself_and_keeps_head_and_tail(agent: Agent) -> None:
    view = await agent.run("seq 1 100000; exit 4", max_output_bytes=64_000, on_output_limit="keep_tail")
    whole = "".join(f"{n}\n" for n in range(1, 100_001))
    assert (view["state"], view["exit_code"], view["stdout_bytes"]) == ("failed", 4, len(whole))
    assert whole.endswith(view["stdout"])
    digest = await agent.result(view["task_id"])
    assert digest["stdout"].startswith("1\n2\n")
    assert digest["stdout"].endswith("99999\n100000\n")
    assert digest["truncated"]


async def test_from_half_of_the_output_limit_a_running_task_warns(agent: Agent) -> None:
    task_id = await agent.start(
        "head -c 400 /dev/zero | tr '\\0' x; read _", max_output_bytes=1_000, interactive=True
    )
    view = await agent.poll(task_id, pattern="x{400}")
    assert "warning" not in view
    await agent.cancel(task_id)

    task_id = await agent.start("head -c 600 /dev/zero | tr '\\0' x; sleep 60", max_output_bytes=1_000)
    view = await agent.poll(task_id, pattern="x{600}")
    assert "600 of at most 1000 bytes" in view["warning"]
    await agent.cancel(task_id)


async def test_a_disk_with_too_little_room_takes_no_new_task(tmp_path: Path) -> None:
    async with open_agent(tmp_path, min_free_bytes=str(2**61)) as agent:
        with pytest.raises(LimitReached, match="bytes free"):
            await agent.run("true")
        assert (await agent.list())["tasks"] == []


# -- idempotency -----------------------------------------------------------------------------------


async def test_the_same_key_and_arguments_are_the_same_task(agent: Agent, tmp_path: Path) -> None:
    command = f"echo ran >> {tmp_path}/runs"
    first = await agent.run(command, key="once")
    again = await agent.run(command, key="once", label="other", wait_ms=5, show="none", max_bytes=9)
    assert again["reused"] is True
    assert "reused" not in first
    assert again["task_id"] == first["task_id"]
    assert (tmp_path / "runs").read_text() == "ran\n"


async def test_a_key_with_other_arguments_is_a_conflict_that_names_the_task(agent: Agent) -> None:
    first = await agent.run("true", key="once")
    for options in ({"env": {"A": "1"}}, {"stdin": "x"}, {"timeout_ms": 5}, {"cwd": "/"}):
        with pytest.raises(KeyConflict, match=first["task_id"]):
            await agent.run("true", key="once", **options)
    with pytest.raises(KeyConflict, match=first["task_id"]):
        await agent.run("false", key="once")
    assert (await agent.list())["counts"] == {"completed": 1}


async def test_a_key_is_another_one_in_another_session_and_free_after_clearing(agent: Agent) -> None:
    first = await agent.run("true", key="once")
    assert "reused" not in await agent.of("other").run("false", key="once")
    await agent.clear(first["task_id"])
    assert "reused" not in await agent.run("false", key="once")


async def test_a_key_finds_a_running_task_and_waits_for_it(agent: Agent) -> None:
    task_id = await agent.start("sleep 0.3; echo done", key="k")
    view = await agent.run("sleep 0.3; echo done", key="k")
    assert (view["task_id"], view["reused"], view["stdout"]) == (task_id, True, "done\n")


# -- what is left in the background ----------------------------------------------------------------


async def test_what_is_left_in_the_background_lives_on_is_counted_and_heard(
    agent: Agent, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    view = await agent.run(f"(cat {gate}; echo late; sleep 60) & echo ok")
    assert (view["state"], view["exit_code"]) == ("completed", 0)
    assert "in the background" in view["warning"]

    gate.write_text("early ")

    async def all_there() -> bool:
        return bool((await agent.poll(view["task_id"]))["stdout_bytes"] == len("ok\nearly late\n"))

    await eventually(all_there, "the late output is captured")
    seen = await agent.poll(view["task_id"], cursor=view["next_cursor"])
    assert seen["stdout"] == "early late\n"

    after = await agent.cancel(view["task_id"])
    assert (after["state"], after["exit_code"]) == ("completed", 0)
    assert "warning" not in after


# -- clear_finished --------------------------------------------------------------------------------


async def test_clear_finished_removes_what_is_over_and_not_the_new_task(agent: Agent) -> None:
    old = await agent.run("true")
    busy = await agent.start("sleep 60")
    view = await agent.run("true", clear_finished=True)
    assert view["cleared"] == [old["task_id"]]
    assert {task["task_id"] for task in (await agent.list())["tasks"]} == {busy, view["task_id"]}
    await agent.cancel(busy)
