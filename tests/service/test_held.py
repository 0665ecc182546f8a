"""Tasks that wait for more than a place: for others, for a moment, for another try."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.errors import TaskNotFinished, TaskNotFound
from tests.service.agent import LONG_MS, Agent, open_agent
from tests.waiting import eventually


async def test_a_task_starts_when_those_it_waits_for_have_completed(agent: Agent, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = await agent.start(f"until [ -e {gate} ]; do sleep 0.01; done; echo first >> {tmp_path}/order")
    second = await agent.start(f"echo second >> {tmp_path}/order", after=(first,))
    third = await agent.start(f"echo third >> {tmp_path}/order", after=(first, second))
    view = await agent.poll(third)
    assert view["state"] == "pending"
    assert first in view["queue"]["waiting_for"]
    assert second in view["queue"]["waiting_for"]
    gate.touch()
    await agent.ended(third)
    assert (tmp_path / "order").read_text().split() == ["first", "second", "third"]


async def test_a_task_that_waits_for_a_finished_one_starts_at_once(agent: Agent) -> None:
    first = (await agent.run("true"))["task_id"]
    assert (await agent.run("echo ran", after=(first,)))["stdout"] == "ran\n"


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_who_waits_for_what_did_not_complete_ends_all_the_way_down(
    narrow: Agent, tmp_path: Path, how: str
) -> None:
    first = await narrow.start("read _", interactive=True)
    second = await narrow.start(f"touch {tmp_path}/ran", after=(first,))
    third = await narrow.start(f"touch {tmp_path}/ran", after=(second,))
    if how == "fails":
        await narrow.send(first, signal="SIGKILL", wait_ms=0)
    else:
        await narrow.cancel(first)
    views = [await narrow.ended(second), await narrow.ended(third)]
    assert [(view["state"], view["outcome"]) for view in views] == [("failed", "dependency_failed")] * 2
    assert first in views[0]["error"]["message"]
    assert second in views[1]["error"]["message"]
    assert not (tmp_path / "ran").exists()


async def test_a_failed_dependency_is_told_while_no_place_is_free(narrow: Agent) -> None:
    blocker = await narrow.start("sleep 60")
    first = await narrow.start("true")
    second = await narrow.start("true", after=(first,))
    await narrow.cancel(first)
    assert (await narrow.ended(second))["outcome"] == "dependency_failed"
    await narrow.cancel(blocker)


async def test_what_is_named_in_after_must_be_a_task_of_the_session(agent: Agent) -> None:
    elsewhere = await agent.of("elsewhere").start("true")
    for task_id in ("0" * 36, "no id", elsewhere):
        with pytest.raises(TaskNotFound):
            await agent.run("true", after=(task_id,))
    assert (await agent.list())["tasks"] == []


async def test_held_tasks_stand_in_nobodys_way(narrow: Agent) -> None:
    first = await narrow.start("true", delay_ms=60_000)
    second = await narrow.start("true", after=(first,))
    assert (await narrow.run("echo meanwhile"))["stdout"] == "meanwhile\n"
    await narrow.cancel(task_ids=(first, second))
    assert (await narrow.list())["counts"] in (
        {"completed": 1, "cancelled": 2},
        {"completed": 1, "cancelled": 1, "failed": 1},
    )


async def test_a_delayed_task_starts_when_its_moment_has_come(agent: Agent) -> None:
    view = await agent.run("echo late", delay_ms=700)
    assert view["stdout"] == "late\n"
    record = await agent.result(view["task_id"])
    waited = datetime.fromisoformat(record["started_at"]) - datetime.fromisoformat(record["created_at"])
    assert waited >= timedelta(milliseconds=700)


async def test_a_delayed_task_says_until_when_it_waits_and_can_be_cancelled(agent: Agent) -> None:
    view = await agent.run("true", delay_ms=60_000, wait_ms=0)
    assert view["state"] == "pending"
    assert view["queue"]["waiting_for"].endswith("Z")
    ended = await agent.cancel(view["task_id"])
    assert (ended["state"], ended["outcome"]) == ("cancelled", "cancelled")


async def test_a_task_that_fails_is_run_again_until_it_completes(agent: Agent, tmp_path: Path) -> None:
    command = f"echo x >> {tmp_path}/runs; n=$(wc -l < {tmp_path}/runs); echo run $n; [ $n -ge 2 ]"
    view = await agent.run(command, retries=3)
    assert (view["state"], view["run"], view["stdout"]) == ("completed", 2, "run 2\n")
    record = await agent.result(view["task_id"])
    assert [change["state"] for change in record["history"]] == [
        *("pending", "running"),
        *("pending", "running", "completed"),
    ]
    assert "run 1 of 4: exit code 1" in record["history"][2]["reason"]


async def test_a_task_that_fails_every_time_is_failed_after_its_last_run(agent: Agent) -> None:
    view = await agent.run("echo tried; exit 3", retries=1)
    assert (view["state"], view["exit_code"], view["run"]) == ("failed", 3, 2)
    folders = [path.name.rpartition(".")[2] for path in _runs(agent, view["task_id"])]
    assert folders == ["1", "2"]


async def test_a_cancelled_run_is_not_run_again(agent: Agent, tmp_path: Path) -> None:
    task_id = await agent.start(f"echo x >> {tmp_path}/runs; sleep 60", retries=5)
    await eventually(lambda: _exists(tmp_path / "runs"), "it runs")
    view = await agent.cancel(task_id)
    assert (view["state"], view["outcome"]) == ("cancelled", "cancelled")

    async def only_one() -> bool:
        return [path.name.rpartition(".")[2] for path in _runs(agent, task_id)] == ["1"]

    await eventually(only_one, "what was kept for the next run is gone")


async def test_between_two_runs_it_is_pending_with_the_output_of_the_one_before(agent: Agent) -> None:
    task_id = await agent.start("echo tried; exit 3", retries=1)
    await eventually(lambda: _is_pending(agent, task_id), "it waits for its next run")
    view = await agent.result(task_id)
    assert (view["state"], view["run"], view["stdout"]) == ("pending", 1, "tried\n")
    assert "when run 2 of 2 begins" in view["queue"]["waiting_for"]
    cancelled = await agent.cancel(task_id)
    assert (cancelled["state"], cancelled["stdout"]) == ("cancelled", "tried\n")


async def test_a_cursor_reads_on_from_one_run_into_the_next(agent: Agent, tmp_path: Path) -> None:
    command = f"echo x >> {tmp_path}/runs; wc -l < {tmp_path}/runs; [ -e {tmp_path}/good ]"
    task_id = await agent.start(command, retries=1)
    await eventually(lambda: _is_pending(agent, task_id), "it waits for its next run")
    (tmp_path / "good").touch()
    read, cursor = "", "1-0-0"
    while True:
        view = await agent.poll(task_id, cursor=cursor, show="new", wait_ms=LONG_MS)
        read += view.get("stdout", "")
        cursor = view["next_cursor"]
        if view["state"] == "completed" and not view.get("more"):
            break
    assert read == "1\n2\n"


async def test_a_pattern_is_found_in_a_later_run(agent: Agent, tmp_path: Path) -> None:
    command = f"echo x >> {tmp_path}/runs; echo run $(wc -l < {tmp_path}/runs); read _"
    task_id = await agent.start(command, interactive=True, retries=1)
    assert (await agent.poll(task_id, pattern="run 1"))["wait_result"] == "matched"
    await agent.send(task_id, signal="SIGKILL", wait_ms=0)
    view = await agent.poll(task_id, pattern="run 2")
    assert (view["wait_result"], view["match"]["text"]) == ("matched", "run 2")
    await agent.cancel(task_id)


async def test_who_waits_for_a_retried_task_waits_for_its_last_run(agent: Agent, tmp_path: Path) -> None:
    first = await agent.start(f"echo x >> {tmp_path}/runs; [ $(wc -l < {tmp_path}/runs) = 2 ]", retries=1)
    view = await agent.run(f"cat {tmp_path}/runs", after=(first,))
    assert view["stdout"] == "x\nx\n"


async def test_what_a_held_task_waits_for_is_not_cleared(agent: Agent) -> None:
    first = (await agent.run("true"))["task_id"]
    other = (await agent.run("true"))["task_id"]
    second = await agent.start("true", after=(first,), delay_ms=60_000)
    with pytest.raises(TaskNotFinished, match="another task"):
        await agent.clear(first)
    assert (await agent.clear(all_finished=True))["cleared"] == [other]
    await agent.cancel(second)
    assert set((await agent.clear(all_finished=True))["cleared"]) == {first, second}


async def test_the_queue_limit_counts_held_tasks(narrow: Agent) -> None:
    ids = [await narrow.start("true", delay_ms=60_000) for _ in range(3)]
    with pytest.raises(Exception, match="limit_reached"):
        await narrow.run("true", delay_ms=60_000)
    await narrow.cancel(task_ids=tuple(ids))


async def test_the_same_key_with_other_retries_is_a_conflict(agent: Agent) -> None:
    first = await agent.start("true", key="k", delay_ms=60_000)
    again = await agent.run("true", key="k", delay_ms=60_000, wait_ms=0)
    assert (again["task_id"], again["reused"]) == (first, True)
    with pytest.raises(Exception, match="key_conflict"):
        await agent.run("true", key="k", delay_ms=60_001)
    await agent.cancel(first)


@pytest.mark.parametrize("options", [{"delay_ms": 1_000}, {"retries": 2}], ids=["delayed", "retried"])
async def test_what_waits_goes_on_when_no_server_lives(tmp_path: Path, options: dict[str, Any]) -> None:
    if "delay_ms" in options:
        command = f"echo x >> {tmp_path}/runs; touch {tmp_path}/over"
    else:
        command = f"echo x >> {tmp_path}/runs; [ $(wc -l < {tmp_path}/runs) = 2 ] && touch {tmp_path}/over"
    async with open_agent(tmp_path / "state") as agent:
        first = await agent.start(command, **options)
        second = await agent.start(f"touch {tmp_path}/followed", after=(first,))
    await eventually(lambda: _exists(tmp_path / "followed"), "the one that waits for it has run", 30)
    async with open_agent(tmp_path / "state") as agent:
        assert (await agent.ended(first))["state"] == "completed"
        assert (await agent.ended(second))["state"] == "completed"


async def test_what_waits_for_a_task_of_another_server_starts_soon_after_its_end(tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state") as one, open_agent(tmp_path / "state") as other:
        first = await one.start("read _", interactive=True)
        second = await other.start("true", after=(first,))
        await eventually(lambda: _is_waiting(other, second), "it waits")
        await one.send(first, text="", enter=True, wait_ms=0)
        ended = await other.ended(second)
        assert ended["state"] == "completed"
        before, after = await other.result(first), await other.result(second)
        assert after["started_at"] >= before["ended_at"]


def _runs(agent: Agent, task_id: str) -> list[Path]:
    root = agent.service._desk.store.slots.parent
    return sorted(root.rglob(f"{task_id}.*/"))


async def _exists(path: Path) -> bool:
    return path.name in os.listdir(path.parent)


async def _is_pending(agent: Agent, task_id: str) -> bool:
    return bool((await agent.poll(task_id))["state"] == "pending")


async def _is_waiting(agent: Agent, task_id: str) -> bool:
    return "queue" in await agent.poll(task_id)
