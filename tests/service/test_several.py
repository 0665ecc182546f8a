"""wait_tasks."""

from __future__ import annotations

import pytest

from mcp_tasks.errors import InvalidArgument, TaskNotFound
from tests.service.agent import Agent


async def test_any_answers_with_the_first_that_ends(agent: Agent) -> None:
    slow = await agent.start("sleep 60")
    quick = await agent.start("sleep 0.1")
    answer = await agent.wait(slow, quick)
    assert [view["task_id"] for view in answer["done"]] == [quick]
    assert answer["open"] == [slow]
    assert answer["wait_result"] == "exited"
    await agent.cancel(slow)


async def test_all_answers_when_every_one_has_ended_in_the_order_given(agent: Agent) -> None:
    first = await agent.start("sleep 0.3")
    second = await agent.start("exit 7")
    answer = await agent.wait(first, second, mode="all")
    assert [(view["task_id"], view["exit_code"]) for view in answer["done"]] == [(first, 0), (second, 7)]
    assert answer["open"] == []


async def test_first_failure_does_not_wait_for_the_rest(agent: Agent) -> None:
    good = await agent.start("true")
    slow = await agent.start("sleep 60")
    bad = await agent.start("sleep 0.2; echo reason; exit 1")
    answer = await agent.wait(good, slow, bad, mode="first_failure")
    assert {view["task_id"] for view in answer["done"]} == {good, bad}
    assert answer["open"] == [slow]
    await agent.cancel(slow)


async def test_first_failure_ends_when_all_went_well(agent: Agent) -> None:
    ids = [await agent.start("true") for _ in range(3)]
    answer = await agent.wait(*ids, mode="first_failure")
    assert len(answer["done"]) == 3
    assert answer["wait_result"] == "exited"


async def test_a_failed_one_shows_its_last_bytes_and_a_good_one_nothing(agent: Agent) -> None:
    good = await agent.start("echo fine")
    bad = await agent.start("seq 1 10000; echo reason; exit 1")
    answer = await agent.wait(good, bad, mode="all")
    fine, failed = answer["done"]
    assert "stdout" not in fine
    assert failed["stdout"].endswith("10000\nreason\n")
    assert len(failed["stdout"]) <= 2_048


async def test_the_wait_is_bounded_and_clamped(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    answer = await agent.wait(task_id, wait_ms=50)
    assert (answer["wait_result"], answer["done"], answer["open"]) == ("deadline", [], [task_id])
    answer = await agent.patient_for(60).wait(task_id, wait_ms=86_400_000)
    assert answer["max_wait_ms"] == 60
    answer = await agent.wait(task_id, wait_ms=0)
    assert (answer["wait_result"], answer["open"]) == ("none", [task_id])
    await agent.cancel(task_id)


async def test_a_label_means_all_tasks_that_carry_it(agent: Agent) -> None:
    ids = {await agent.start("true", label="batch") for _ in range(3)}
    other = await agent.start("sleep 60")
    answer = await agent.wait(label="batch", mode="all")
    assert {view["task_id"] for view in answer["done"]} == ids
    await agent.cancel(other)
    answer = await agent.wait(label="nothing has this", mode="all")
    assert (answer["done"], answer["open"]) == ([], [])


async def test_an_unknown_id_is_refused(agent: Agent) -> None:
    view = await agent.run("true")
    with pytest.raises(TaskNotFound):
        await agent.wait(view["task_id"], "0" * 36)
    with pytest.raises(InvalidArgument):
        await agent.wait()


async def test_the_same_id_twice_is_one_task(agent: Agent) -> None:
    view = await agent.run("true")
    answer = await agent.wait(view["task_id"], view["task_id"], mode="all")
    assert len(answer["done"]) == 1
