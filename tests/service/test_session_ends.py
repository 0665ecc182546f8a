"""How sessions end: asked for, forced, by their time, for good; and how they are opened again."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from mcp_tasks.errors import SessionNotFound, TaskNotFinished
from mcp_tasks.service.sessions.ends import Expiry
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually


async def test_an_ended_session_stays_readable_and_the_next_command_opens_it(agent: Agent) -> None:
    task_id = (await agent.run("echo out"))["task_id"]
    view = await agent.end(reason="all done")
    assert (view["state"], view["reason"]) == ("closed", "all done")
    assert (await agent.result(task_id))["stdout"] == "out\n"
    assert (await agent.sessions())["counts"] == {"closed": 1}
    again = await agent.end()
    assert (again["state"], again["reason"]) == ("closed", "all done")
    await agent.run("true")
    assert (await agent.info())["state"] == "open"
    assert agent.events() == ["created", "closed", "reopened"]


async def test_an_unknown_session_cannot_be_ended_or_removed(agent: Agent) -> None:
    with pytest.raises(SessionNotFound):
        await agent.end()
    with pytest.raises(SessionNotFound):
        await agent.service.delete_session(agent.caller)


async def test_a_graceful_end_waits_for_what_runs(agent: Agent) -> None:
    await agent.start("sleep 0.3")
    view = await agent.end()
    assert (view["state"], view["tasks"]) == ("closed", {"completed": 1})


async def test_an_end_that_cannot_wait_longer_names_the_tasks_and_changes_nothing(agent: Agent) -> None:
    ids = [await agent.start("sleep 60") for _ in range(7)]
    with pytest.raises(TaskNotFinished, match=r"7 tasks have not ended: .* and 2 more") as caught:
        await agent.end(wait_ms=50)
    assert sum(task_id in caught.value.message for task_id in ids) == 5
    assert (await agent.info())["state"] == "open"
    assert "closed" not in agent.events()
    await agent.cancel(task_ids=tuple(ids))


async def test_a_forced_end_cancels_what_runs_and_what_waits(narrow: Agent) -> None:
    ids = [await narrow.start("sleep 60") for _ in range(3)]
    view = await narrow.end(force=True)
    assert view["state"] == "closed"
    assert sorted(view["cancelled"]) == sorted(ids)
    assert view["tasks"] == {"cancelled": 3}


async def test_a_session_is_removed_with_everything_in_it(agent: Agent) -> None:
    task_id = (await agent.run("echo x"))["task_id"]
    answer = await agent.service.delete_session(agent.caller)
    assert answer["deleted"] == "default"
    assert answer["freed_bytes"] > 0
    with pytest.raises(SessionNotFound):
        await agent.info()
    assert (await agent.list())["tasks"] == []
    assert agent.events() == []
    assert agent.audited() == ["created", "deleted"]
    assert task_id not in str(await agent.sessions())
    assert (await agent.run("true"))["state"] == "completed"


async def test_nothing_that_runs_is_removed_unless_it_is_forced(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    with pytest.raises(TaskNotFinished):
        await agent.service.delete_session(agent.caller)
    answer = await agent.service.delete_session(agent.caller, force=True)
    assert answer["cancelled"] == [task_id]


async def test_what_a_command_left_in_the_background_keeps_its_session(agent: Agent) -> None:
    await agent.run("sleep 60 & echo started")
    with pytest.raises(TaskNotFinished, match="running in the background"):
        await agent.service.delete_session(agent.caller)
    await agent.service.delete_session(agent.caller, force=True)


def _expiry(agent: Agent) -> Expiry:
    desk = agent.service._desk
    return Expiry(desk.store, desk.records, desk.clock)


async def _until_its_time_is_over(agent: Agent) -> None:
    desk = agent.service._desk
    due = desk.store.load_session(agent.caller.session_key).expires_at
    assert due is not None

    async def over() -> bool:
        return desk.clock.now_ms() > due

    await eventually(over, "the time of the session is over")


async def test_a_session_whose_time_is_over_is_closed_and_shown_so_before(agent: Agent) -> None:
    view = await agent.update(expires_in_ms=1)
    assert view["expires_at"]
    await _until_its_time_is_over(agent)
    assert (await agent.info())["state"] == "closed"
    _expiry(agent).close_due()
    info = await agent.info()
    assert (info["state"], info["reason"]) == ("closed", "its time is over")
    assert agent.events() == ["created", "extended", "expired"]
    await agent.run("true")
    info = await agent.info()
    assert info["state"] == "open"
    assert "expires_at" not in info


async def test_a_session_can_be_extended_and_freed_of_its_time(agent: Agent) -> None:
    await agent.update(expires_in_ms=1)
    view = await agent.update(expires_in_ms=60_000)
    assert view["state"] == "open"
    _expiry(agent).close_due()
    assert (await agent.info())["state"] == "open"
    assert "expires_at" not in await agent.update(expires_in_ms=0)


async def test_a_session_is_not_closed_while_something_runs_in_it(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    await agent.update(expires_in_ms=1)
    await _until_its_time_is_over(agent)
    expiry = _expiry(agent)
    expiry.close_due()
    assert (await agent.info())["state"] == "open"
    await agent.cancel(task_id)

    async def closed() -> bool:
        _expiry(agent).close_due()
        return (await agent.info()).get("reason") == "its time is over"

    await eventually(closed, "the session is closed after its last task")


async def test_the_sweep_of_a_server_closes_what_is_due(tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state") as agent:
        await agent.update(expires_in_ms=1)

        async def closed() -> bool:
            return (await agent.info()).get("reason") == "its time is over"

        await eventually(closed, "the session is closed")


async def test_a_session_that_was_extended_in_this_moment_is_left_alone(agent: Agent) -> None:
    await agent.update(expires_in_ms=1)
    stale = agent.service._desk.store.load_session(agent.caller.session_key)
    await agent.update(expires_in_ms=60_000)
    _expiry(agent)._close(stale)
    assert (await agent.info())["state"] == "open"


async def test_a_command_that_starts_while_its_session_is_closed_finds_it_open(agent: Agent) -> None:
    await agent.update(title="race")
    for _ in range(10):
        async with anyio.create_task_group() as group:
            group.start_soon(agent.run, "sleep 0.3", 0)
            group.start_soon(_try_to_end, agent)
        state = (await agent.info())["state"]
        if (await agent.list(state="active"))["tasks"]:
            assert state == "open"


async def _try_to_end(agent: Agent) -> None:
    try:
        await agent.end(wait_ms=0)
    except TaskNotFinished:
        return
