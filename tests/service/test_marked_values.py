from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.requests import PlanStep, RunCommand
from tests.service.agent import Agent


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
