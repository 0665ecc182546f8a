"""Waits: what ends them, how long they may be, and that they never end a task."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from mcp_tasks.errors import InvalidArgument
from tests.service.agent import Agent
from tests.waiting import eventually


async def test_a_poll_without_a_wait_answers_at_once(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    view = await agent.poll(task_id)
    assert (view["state"], view["wait_result"], view["waited_ms"]) == ("running", "none", 0)
    await agent.cancel(task_id)


async def test_a_wait_ends_with_the_task(agent: Agent) -> None:
    task_id = await agent.start("sleep 0.2; echo done")
    view = await agent.poll(task_id, wait_ms=20_000)
    assert (view["state"], view["wait_result"], view["stdout"]) == ("completed", "exited", "done\n")
    assert 1 <= view["waited_ms"] < 20_000


async def test_a_wait_ends_at_its_deadline_and_the_task_runs_on(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    view = await agent.poll(task_id, wait_ms=50)
    assert (view["state"], view["wait_result"]) == ("running", "deadline")
    assert view["waited_ms"] >= 50
    assert "max_wait_ms" not in view
    await agent.cancel(task_id)


async def test_a_wait_of_a_day_is_clamped_and_says_so(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    view = await agent.patient_for(60).poll(task_id, wait_ms=86_400_000)
    assert (view["wait_result"], view["max_wait_ms"]) == ("deadline", 60)
    await agent.cancel(task_id)


async def test_naming_a_condition_waits_as_long_as_allowed_by_default(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    for condition in ({"until": "exit"}, {"pattern": "never"}, {"idle_ms": 50_000}):
        view = await agent.patient_for(60).poll(task_id, **condition)
        assert view["wait_result"] == "deadline", condition
        assert view["waited_ms"] >= 60
        assert "max_wait_ms" not in view
    await agent.cancel(task_id)


async def test_new_output_ends_a_wait_for_output(agent: Agent) -> None:
    task_id = await agent.start("echo first; sleep 0.2; echo second; sleep 60")
    first = await agent.poll(task_id, until="output", cursor="1-0-0")
    assert (first["wait_result"], first["stdout"]) == ("output", "first\n")
    second = await agent.poll(task_id, until="output", cursor=first["next_cursor"])
    assert (second["wait_result"], second["stdout"]) == ("output", "second\n")
    third = await agent.poll(task_id, until="output", cursor=first["next_cursor"])
    assert (third["wait_result"], third["stdout"]) == ("output", "second\n")
    await agent.cancel(task_id)


async def test_without_a_cursor_only_output_from_now_on_counts(agent: Agent) -> None:
    task_id = await agent.start("echo first; read _; echo second; sleep 60", interactive=True)
    await agent.poll(task_id, pattern="first")
    assert (await agent.poll(task_id, until="output", wait_ms=50))["wait_result"] == "deadline"
    await agent.send(task_id, "\n", wait_ms=0)
    assert (await agent.poll(task_id, until="output", cursor="1-6-0"))["stdout"] == "second\n"
    await agent.cancel(task_id)


async def test_silence_ends_a_wait_for_idleness(agent: Agent) -> None:
    task_id = await agent.start("for i in 1 2 3 4 5; do echo $i; sleep 0.05; done; sleep 60")
    view = await agent.poll(task_id, idle_ms=400)
    assert view["wait_result"] == "idle"
    assert view["stdout"] == "1\n2\n3\n4\n5\n"
    assert view["waited_ms"] >= 400
    await agent.cancel(task_id)


async def test_exit_ends_every_wait(agent: Agent) -> None:
    for condition in ({"until": "output"}, {"idle_ms": 20_000}, {"pattern": "never"}):
        task_id = await agent.start("sleep 0.1")
        assert (await agent.poll(task_id, **condition))["wait_result"] == "exited", condition


async def test_a_pattern_is_found_from_the_first_byte_on_with_its_place(agent: Agent) -> None:
    task_id = await agent.start("echo booting; echo 'ready on port 8080'; echo more; sleep 60")
    view = await agent.poll(task_id, pattern=r"port (\d+)")
    assert view["wait_result"] == "matched"
    assert view["match"]["stream"] == "stdout"
    assert view["match"]["offset"] == len("booting\n")
    assert view["match"]["line"] == 2
    assert view["match"]["text"] == "ready on port 8080"
    await agent.cancel(task_id)


async def test_with_a_cursor_a_pattern_is_found_only_after_it(agent: Agent) -> None:
    task_id = await agent.start("echo ready >&2; sleep 60")
    first = await agent.poll(task_id, pattern="ready")
    assert first["match"]["stream"] == "stderr"
    again = await agent.poll(task_id, pattern="ready", cursor=first["next_cursor"], wait_ms=50)
    assert again["wait_result"] == "deadline"
    await agent.cancel(task_id)


async def test_a_pattern_is_looked_for_in_all_that_a_finished_task_said(agent: Agent) -> None:
    view = await agent.run("seq 1 3000000; echo needle; seq 1 1000000", wait_ms=25_000)
    found = await agent.poll(view["task_id"], pattern="^needle$", wait_ms=0, show="none")
    assert (found["wait_result"], found["match"]["line"]) == ("matched", 3_000_001)
    assert (await agent.poll(view["task_id"], pattern="^never$", wait_ms=0))["wait_result"] == "exited"


async def test_one_call_starts_a_server_and_answers_when_it_is_ready(agent: Agent) -> None:
    view = await agent.run("sleep 0.1; echo listening; sleep 60", wait_ms=None, pattern="listening")
    assert (view["state"], view["wait_result"]) == ("running", "matched")
    await agent.cancel(view["task_id"])


async def test_a_broken_pattern_is_refused_before_anything_is_started(agent: Agent) -> None:
    with pytest.raises(InvalidArgument, match="pattern"):
        await agent.run("true", pattern="(")
    assert (await agent.list())["tasks"] == []


async def test_a_wait_that_ends_by_exit_shows_the_tail_that_has_not_been_seen(agent: Agent) -> None:
    task_id = await agent.start("echo seen; sleep 0.3; seq 1 9999; echo last")
    seen = await agent.poll(task_id, pattern="seen")
    view = await agent.poll(task_id, cursor=seen["next_cursor"], wait_ms=20_000, max_bytes=100)
    assert view["wait_result"] == "exited"
    assert view["stdout"].endswith("9999\nlast\n")
    assert view["truncated"]
    assert view["omitted_bytes"] == view["stdout_bytes"] - 5 - len(view["stdout"])


async def test_a_pending_task_is_waited_for_through_its_run(narrow: Agent) -> None:
    blocker = await narrow.start("sleep 0.3")
    view = await narrow.run("echo mine")
    assert (view["state"], view["stdout"], view["wait_result"]) == ("completed", "mine\n", "exited")
    assert (await narrow.poll(blocker))["state"] == "completed"


async def test_progress_is_told_in_a_long_wait(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_tasks.waiting._PROGRESS_S", 0.05)
    told: list[tuple[int, int, str]] = []

    async def progress(waited_ms: int, of_ms: int, message: str) -> None:
        told.append((waited_ms, of_ms, message))

    task_id = await agent.start("sleep 60")
    await agent._as(progress=progress).poll(task_id, wait_ms=400)
    assert len(told) >= 3
    assert [waited for waited, _, _ in told] == sorted(waited for waited, _, _ in told)
    assert {of for _, of, _ in told} == {400}
    await agent.cancel(task_id)


async def test_three_hundred_waits_at_once_all_end_with_the_task(agent: Agent, tmp_path: Path) -> None:
    task_id = await agent.start("read _", interactive=True)
    results: list[str] = []

    async def wait() -> None:
        results.append((await agent.poll(task_id, wait_ms=20_000))["wait_result"])

    async with anyio.create_task_group() as group:
        for _ in range(300):
            group.start_soon(wait)
        await agent.send(task_id, "\n", wait_ms=0)
    assert results == ["exited"] * 300


async def test_a_cancelled_request_cancels_no_task(agent: Agent, tmp_path: Path) -> None:
    with anyio.move_on_after(0.1) as scope:
        await agent.run(f"sleep 0.5; echo ran >> {tmp_path}/runs", key="mine")
    assert scope.cancelled_caught
    view = await agent.run(f"sleep 0.5; echo ran >> {tmp_path}/runs", key="mine")
    assert (view["state"], view["reused"]) == ("completed", True)
    assert (tmp_path / "runs").read_text() == "ran\n"


async def test_a_request_that_is_cancelled_while_it_starts_leaves_no_task_or_a_whole_one(
    agent: Agent, tmp_path: Path
) -> None:
    for attempt in range(20):
        with anyio.move_on_after(attempt / 4_000):
            await agent.run(f"echo {attempt} >> {tmp_path}/runs")

    async def all_over() -> bool:
        counts = (await agent.list())["counts"]
        return set(counts) <= {"completed"}

    await eventually(all_over, "every task that was started is over")
    ran = (tmp_path / "runs").read_text().split() if (tmp_path / "runs").exists() else []
    assert len(ran) == len(set(ran)) == (await agent.list())["counts"].get("completed", 0)
