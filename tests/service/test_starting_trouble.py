"""What goes wrong while a command is started, and must not make it run twice or vanish."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mcp_tasks.errors import StoreBusy, StoreUnavailable
from mcp_tasks.models import Task
from tests.service.agent import Agent

pytestmark = pytest.mark.anyio


async def test_a_store_that_is_only_busy_lets_nothing_run_elsewhere(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(_task: Task) -> None:
        raise StoreBusy("the store has been locked by others for 10 s", "try again in a moment")

    store = agent.service._desk.store
    with monkeypatch.context() as patch:
        patch.setattr(store, "create", busy)
        with pytest.raises(StoreBusy):
            await agent.run(f"echo ran >> {tmp_path}/ran", key="once")
    assert not (tmp_path / "ran").exists()
    await agent.run(f"echo ran >> {tmp_path}/ran", key="once")
    assert (tmp_path / "ran").read_text() == "ran\n"


async def test_a_program_that_holds_a_secret_is_not_named_when_it_cannot_be_started(agent: Agent) -> None:
    view = await agent.run(["curl -H 'Authorization: Bearer sekrit-sekrit-sekrit'"])
    record = await agent.result(view["task_id"])
    assert view["outcome"] == "spawn_failed"
    assert "sekrit" not in str(view) + str(record)


async def test_who_goes_at_once_is_refused_what_would_end_with_him_and_nothing_has_run(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_task: Task) -> None:
        raise StoreUnavailable("the store cannot be written")

    monkeypatch.setattr(agent.service._desk.store._primary, "create", broken)  # type: ignore[attr-defined]
    passing = Agent(agent.service, replace(agent.caller, stays=False))
    with pytest.raises(StoreUnavailable):
        await passing.run(f"touch {tmp_path}/ran")
    assert not (tmp_path / "ran").exists()
    assert "not durable" in (await agent.run("true"))["warning"]
