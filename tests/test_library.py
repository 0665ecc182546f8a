"""The service without a server, from asynchronous and from plain Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import mcp_tasks
from mcp_tasks import Tasks, TasksError, open_blocking_tasks, open_tasks
from mcp_tasks.errors import InvalidArgument

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.anyio


@pytest.fixture
async def tasks(tmp_path: Path) -> AsyncIterator[Tasks]:
    async with open_tasks(tmp_path / "state", session="lib") as opened:
        yield opened


async def test_a_command_is_started_waited_for_and_read_to_the_last_byte(tasks: Tasks) -> None:
    task = await tasks.run(["sh", "-c", r"printf 'a\0b\377'; echo oops >&2; exit 3"], wait_ms=0)
    done = await tasks.wait(task["task_id"])
    assert (done["state"], done["exit_code"], done["session"]) == ("failed", 3, "lib")
    assert b"".join(tasks.output(task["task_id"])) == b"a\0b\xff"
    assert b"".join(tasks.output(task["task_id"], "stderr")) == b"oops\n"
    result = await tasks.result(task["task_id"], stream="stderr", offset=0)
    assert result["stderr"] == "oops\n"


async def test_what_one_program_started_another_finds(tmp_path: Path) -> None:
    async with open_tasks(tmp_path / "state") as first:
        task = await first.run("sleep 0.3; echo late", wait_ms=0)
    async with open_tasks(tmp_path / "state") as second:
        done = await second.wait(task["task_id"], timeout_ms=20_000)
        assert (done["state"], done["stdout"]) == ("completed", "late\n")
        assert [one["task_id"] for one in (await second.list())["tasks"]] == [task["task_id"]]


async def test_several_are_waited_for_searched_and_cleared(tasks: Tasks) -> None:
    ids = [(await tasks.run(f"echo number {n}", wait_ms=0))["task_id"] for n in range(3)]
    answer = await tasks.wait_all(*ids)
    assert [one["state"] for one in answer["done"]] == ["completed"] * 3
    found = await tasks.search("number 1")
    assert [match["task_id"] for match in found["matches"]] == [ids[1]]
    assert sorted((await tasks.clear(all_finished=True))["cleared"]) == sorted(ids)


async def test_input_is_typed_and_a_task_is_cancelled(tasks: Tasks) -> None:
    task = await tasks.run("cat", interactive=True, wait_ms=0)
    answer = await tasks.send(task["task_id"], "hello", enter=True, pattern="hello")
    assert answer["stdout"] == "hello\n"
    assert (await tasks.cancel(task["task_id"]))["state"] == "cancelled"


async def test_a_session_has_a_workspace_and_an_end(tasks: Tasks, tmp_path: Path) -> None:
    await tasks.update(cwd=str(tmp_path), title="work")
    done = await tasks.run("pwd", wait_ms=20_000)
    assert done["stdout"] == f"{tmp_path}\n"
    assert (await tasks.info())["title"] == "work"
    assert [session["session"] for session in (await tasks.sessions())["sessions"]] == ["lib"]
    assert (await tasks.end())["state"] == "closed"


async def test_errors_are_those_of_the_tools(tasks: Tasks) -> None:
    with pytest.raises(TasksError) as refused:
        await tasks.poll("0" * 36)
    assert refused.value.code == "task_not_found"
    with pytest.raises(ValueError, match="stdout or stderr"):
        next(tasks.output("0" * 36, "neither"))


def test_plain_code_has_the_same_methods(tmp_path: Path) -> None:
    with open_blocking_tasks(tmp_path / "state", session="plain") as tasks:
        task = tasks.run("echo plain")
        assert task["state"] == "completed"
        assert b"".join(tasks.output(task["task_id"])) == b"plain\n"
        assert tasks.clear(task["task_id"])["cleared"] == [task["task_id"]]
        with pytest.raises(TasksError):
            tasks.poll(task["task_id"])


def test_the_package_offers_what_it_names_and_nothing_else() -> None:
    assert mcp_tasks.Tasks is Tasks
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mcp_tasks.nothing  # noqa: B018


def test_the_examples_do_what_they_say(tmp_path: Path) -> None:
    env = {**os.environ, "MCP_TASKS_DIR": str(tmp_path / "state"), "PYTHONPATH": str(EXAMPLES.parent)}

    def run(name: str) -> str:
        done = subprocess.run(
            [sys.executable, EXAMPLES / name],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert "run me again" in run("outlive_the_program.py")
    assert run("outlive_the_program.py").splitlines() == [
        "completed, exit code 0",
        *(f"step {n}" for n in range(1, 6)),
    ]
    assert sorted(run("plain_python.py").split()) == ["1", "2", "3", "completed", "completed", "completed"]


async def test_a_plan_is_run_and_looked_at(tmp_path: Path) -> None:
    async with open_tasks(tmp_path) as tasks:
        plan = await tasks.run_plan(["true", {"command": "echo two", "name": "second"}], wait_ms=20_000)
        assert plan["state"] == "completed"
        assert (await tasks.plan_progress(plan["plan_id"]))["done"] == 2
        assert (await tasks.list(label="second"))["tasks"][0]["state"] == "completed"


@pytest.mark.parametrize("nothing", [None, 5, b"true"])
async def test_what_is_no_command_is_refused_like_any_other_wrong_argument(
    nothing: Any, tasks: Tasks
) -> None:
    with pytest.raises(InvalidArgument, match="command must be a string or a list of strings"):
        await tasks.run(nothing)
    with pytest.raises(InvalidArgument, match="commands"):
        await tasks.run_plan(nothing)
