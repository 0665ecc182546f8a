from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.errors import InvalidArgument, KeyConflict, TasksError
from mcp_tasks.requests import PlanProgress, PlanStep, RunCommand, RunPlan, WaitTasks
from mcp_tasks.service import View
from tests.service.agent import Agent

TOKEN = "ghp_" + "a1B2" * 9
GOOGLE = "AI" + "za" + "1Aq" * 12


async def test_a_marked_value_is_in_no_view_but_reaches_the_command(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "hunter2 place"
    folder.mkdir()
    view = await agent.run(
        "test \"$CODE\" = 'hunter2 place' && pwd > seen",
        cwd=str(folder),
        env={"CODE": "hunter2 place"},
        secrets=("CODE",),
        label="of hunter2 place",
    )
    result = await agent.result(view["task_id"])

    assert result["state"] == "completed"
    assert result["label"] == "of [redacted]"
    assert result["cwd"].endswith("/[redacted]")
    assert "hunter2" not in json.dumps(result)
    assert (folder / "seen").read_text().strip() == str(folder)


async def test_a_value_whose_name_says_that_it_is_secret_needs_no_mark(agent: Agent) -> None:
    view = await agent.run("true hunter2-value", env={"DB_PASSWORD": "hunter2-value"})

    assert (await agent.result(view["task_id"]))["command"] == "true [redacted]"


async def test_secrets_of_the_servers_own_environment_are_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.service.agent import open_agent

    monkeypatch.setenv("DEPLOY_TOKEN", "hunter2-server")
    async with open_agent(tmp_path / "state") as agent:
        view = await agent.run('true hunter2-server; test "$DEPLOY_TOKEN" = hunter2-server')

        assert view["state"] == "completed"
        assert "hunter2" not in (await agent.result(view["task_id"]))["command"]


async def test_a_label_with_a_secret_finds_its_task_all_the_same(agent: Agent) -> None:
    label = "deploy ghp_" + "a1B2" * 9
    view = await agent.run("true", label=label)

    for asked in (label, "deploy [redacted]"):
        assert [task["task_id"] for task in (await agent.list(label=asked))["tasks"]] == [view["task_id"]]


async def test_marking_does_not_make_it_another_request(agent: Agent) -> None:
    first = await agent.run("true", env={"A": "hunter2"}, key="k")
    again = await agent.run("true", env={"A": "hunter2"}, key="k", secrets=("A",))

    assert again["task_id"] == first["task_id"]
    assert again["reused"]


@pytest.mark.parametrize("env", [{}, {"B": "x"}, {"hunter2": None}])
@pytest.mark.parametrize("request_type", [RunCommand, PlanStep])
def test_only_what_is_in_env_can_be_marked(
    env: dict[str, str | None], request_type: type[RunCommand | PlanStep]
) -> None:
    with pytest.raises(InvalidArgument, match="secrets needs names") as raised:
        request_type(command="true", env=env, secrets=("hunter2",))
    assert "hunter2" not in str(raised.value)


async def test_a_key_with_a_secret_is_kept_without_it_and_means_the_same_again(agent: Agent) -> None:
    secret: dict[str, Any] = {"env": {"CODE": "hunter2 code"}, "secrets": ("CODE",)}
    for key, options in ((TOKEN, {}), ("of hunter2 code", secret)):
        first = await agent.run("true", key=key, **options)
        assert (await agent.run("true", key=key, **options))["task_id"] == first["task_id"]
        with pytest.raises(KeyConflict, match=first["task_id"]) as raised:
            await agent.run("false", key=key, **options)
        assert "[redacted]" in str(raised.value)
    keys = {task["key"] for task in (await agent.list())["tasks"]}
    assert keys == {"[redacted]", "of [redacted]"}


async def test_two_keys_that_are_kept_as_the_same_text_are_not_taken_for_one(agent: Agent) -> None:
    first = await agent.run("true", key=TOKEN)
    with pytest.raises(KeyConflict, match=first["task_id"]):
        await agent.run("true", key=f"{TOKEN}x")


async def test_the_key_of_a_plan_is_kept_without_the_secrets_of_its_steps(agent: Agent) -> None:
    async def plan(key: str) -> View:
        steps = (PlanStep(command="true", env={"B": "hunter2 step"}, secrets=("B",)),)
        return await agent.service.run_plan(agent.caller, RunPlan(commands=steps, key=key))

    first = await plan("of hunter2 step")
    assert (await plan("of hunter2 step"))["plan_id"] == first["plan_id"]
    assert [task["key"] for task in (await agent.list())["tasks"]] == ["of [redacted]"]
    token = await plan(TOKEN)
    assert (await plan(TOKEN))["plan_id"] == token["plan_id"]
    with pytest.raises(KeyConflict, match=token["plan_id"]):
        await plan(f"{TOKEN}x")


@pytest.mark.parametrize("given", [GOOGLE, f" {GOOGLE} ", GOOGLE[:36]])
async def test_what_is_no_id_is_repeated_as_it_was_given_so_that_a_secret_in_it_is_seen(
    agent: Agent, given: str
) -> None:
    calls: tuple[Callable[[], Awaitable[View]], ...] = (
        lambda: agent.poll(given),
        lambda: agent.run("true", after=(given,)),
        lambda: agent.service.wait_tasks(agent.caller, WaitTasks(task_ids=(given,))),
        lambda: agent.service.plan_progress(agent.caller, PlanProgress(plan_id=given)),
        lambda: agent.service.run_plan(
            agent.caller, RunPlan(commands=(PlanStep(command="true", after=(given,)),))
        ),
    )
    for call in calls:
        with pytest.raises(TasksError) as raised:
            await call()
        assert given.strip() in raised.value.message


async def test_an_id_may_be_given_in_capitals(agent: Agent) -> None:
    task_id = await agent.start("true")
    assert (await agent.ended(f" {task_id.upper()} "))["task_id"] == task_id
