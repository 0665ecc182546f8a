"""Sessions as things of their own: made, looked at, changed and listed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcp_tasks.clock import Clock
from mcp_tasks.errors import InvalidArgument, RevisionConflict, SessionNotFound
from mcp_tasks.models import SessionKey
from mcp_tasks.service.sessions.views import IDLE_MS
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually


@pytest.fixture(params=["json", "sqlite", "memory"])
async def any_agent(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Agent]:
    async with open_agent(tmp_path / "state", store=request.param) as agent:
        yield agent
        await agent.end_everything()


async def test_reading_makes_no_session_and_an_unknown_one_is_not_found(agent: Agent) -> None:
    for name in ("default", "other"):
        with pytest.raises(SessionNotFound):
            await agent.of(name).info()
    await agent.list()
    await agent.of("other").list()
    assert await agent.sessions() == {"sessions": [], "counts": {}}


async def test_the_first_command_makes_its_session_and_that_is_told_once(any_agent: Agent) -> None:
    await any_agent.run("true")
    await any_agent.run("true")
    info = await any_agent.info()
    assert (info["session"], info["state"], info["tasks"]) == ("default", "open", {"completed": 2})
    assert info["created_at"] <= info["active_at"]
    assert info["idle_ms"] < 60_000

    async def told() -> bool:
        return any_agent.audited() == ["created"] and any_agent.events() == ["created"]

    await eventually(told, "the making of the session is told")


async def test_a_change_makes_a_session_with_defaults(any_agent: Agent, tmp_path: Path) -> None:
    agent = any_agent.of("new")
    view = await agent.update(title="Release 2")
    assert (view["title"], view["state"], view["revision"]) == ("Release 2", "open", 1)
    assert "workspace" not in view
    assert "expires_at" not in view
    assert agent.events() == ["created"]
    assert agent.audited() == ["created", "updated"]


async def test_what_is_not_named_stays_and_maps_are_merged_by_name(any_agent: Agent, tmp_path: Path) -> None:
    agent = any_agent
    await agent.update(title="T", cwd=str(tmp_path), env={"A": "1", "B": "2"}, preferences={"x": 1, "y": [2]})
    view = await agent.update(shell="/bin/sh", env={"B": None, "C": "3"}, preferences={"y": None, "z": {}})
    assert view["title"] == "T"
    assert view["workspace"] == {
        "cwd": str(tmp_path),
        "shell": "/bin/sh",
        "env": ["A", "C"],
        "preferences": {"x": 1, "z": {}},
    }
    assert "title" not in await agent.update(title="")


async def test_nothing_is_written_where_nothing_changes(agent: Agent) -> None:
    first = await agent.update(title="same")
    again = await agent.update(title="same")
    assert again["revision"] == first["revision"]


async def test_a_change_of_another_revision_is_refused_and_told_the_current_one(any_agent: Agent) -> None:
    agent = any_agent
    first = await agent.update(title="one", revision=0)
    await agent.update(title="two", revision=first["revision"])
    with pytest.raises(RevisionConflict, match="is at revision 2, not 1"):
        await agent.update(title="three", revision=first["revision"])
    assert (await agent.info())["title"] == "two"


async def test_a_refused_change_makes_no_session(agent: Agent, tmp_path: Path) -> None:
    for wrong in ({"cwd": str(tmp_path / "missing")}, {"revoke": "nothing"}):
        with pytest.raises(InvalidArgument):
            await agent.of("new").update(**wrong)
    with pytest.raises(RevisionConflict):
        await agent.of("new").update(title="x", revision=4)
    with pytest.raises(SessionNotFound):
        await agent.of("new").info()


async def test_secrets_in_a_title_and_in_preferences_are_not_kept(agent: Agent) -> None:
    token = "ghp_" + "a1B2" * 9
    view = await agent.update(title=f"with {token}", preferences={"api_token": "quite-secret-value", "n": 1})
    assert token not in str(view)
    assert "quite-secret-value" not in str(view)
    assert view["workspace"]["preferences"]["n"] == 1


async def test_the_newest_distinct_commands_are_remembered_redacted(agent: Agent) -> None:
    for command in (
        "echo 1",
        "echo 2",
        "echo 1",
        "curl -H 'Authorization: Bearer abcdefghijklmnop' x:1 || :",
    ):
        await agent.run(command)
    commands = (await agent.info())["recent_commands"]
    assert commands[1:] == ["echo 1", "echo 2"]
    assert "abcdefghijklmnop" not in commands[0]


async def test_what_runs_is_counted_as_it_is(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    info = await agent.info()
    assert info["tasks"] == {"running": 1}
    assert info["next"] == 'list_tasks(session="default", state="active")'
    [listed] = (await agent.sessions())["sessions"]
    assert listed["tasks"] == {"running": 1}
    await agent.cancel(task_id)
    assert (await agent.info())["tasks"] == {"cancelled": 1}


async def test_sessions_are_listed_by_page_the_one_used_last_first(any_agent: Agent) -> None:
    agent = any_agent
    now = Clock().now_ms()
    for number in range(5):
        await agent.of(f"s{number}").update(title=str(number))
        agent.service._desk.journal.touch(SessionKey(agent.caller.owner, f"s{number}"), now + 60_000 + number)
    agent.service._desk.journal.flush()
    first = await agent.sessions(limit=2)
    assert [session["session"] for session in first["sessions"]] == ["s4", "s3"]
    assert first["counts"] == {"open": 5}
    rest = await agent.sessions(limit=10, cursor=first["next_cursor"])
    assert [session["session"] for session in rest["sessions"]] == ["s2", "s1", "s0"]
    assert "next_cursor" not in rest
    with pytest.raises(InvalidArgument):
        await agent.sessions(cursor="nonsense")


async def test_a_session_that_nobody_uses_is_idle_unless_something_runs_in_it(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent.of("quiet").update(title="x")
    task_id = await agent.of("busy").start("sleep 60")
    later = Clock().now_ms() + IDLE_MS
    monkeypatch.setattr(agent.service._desk.clock, "now_ms", lambda: later)
    answer = await agent.sessions()
    assert {session["session"]: session["state"] for session in answer["sessions"]} == {
        "quiet": "idle",
        "busy": "open",
    }
    assert [s["session"] for s in (await agent.sessions(state="idle"))["sessions"]] == ["quiet"]
    monkeypatch.undo()
    await agent.cancel(task_id)


async def test_whoever_has_the_machine_sees_the_sessions_of_all_owners(agent: Agent) -> None:
    await agent.of("a", owner="ann").update(title="x")
    await agent.of("b", owner="bob").update(share="read")
    answer = await agent.service.all_sessions(agent.caller)
    assert [(s["owner"], s["session"], s["shares"]) for s in answer["sessions"]] == [
        ("ann", "a", 0),
        ("bob", "b", 1),
    ]
    assert (await agent.sessions())["sessions"] == []


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    for store in ("json", "sqlite"):
        async with open_agent(tmp_path / store, store=store) as agent:
            await agent.update(title="kept", cwd=str(tmp_path), env={"A": "1"}, preferences={"p": 1})
            before = await agent.info()
        async with open_agent(tmp_path / store, store=store) as agent:
            after = await agent.info()
            for name in ("title", "workspace", "created_at", "revision"):
                assert after[name] == before[name]


async def test_archived_sessions_are_listed_by_themselves(agent: Agent) -> None:
    for name in ("a", "b", "c"):
        await agent.of(name).update(title=name)
        await agent.of(name).end(archive=True)
    await agent.of("d").update(title="there")
    assert (await agent.sessions())["counts"] == {"open": 1}
    first = await agent.sessions(state="archived", limit=2)
    rest = await agent.sessions(state="archived", cursor=first["next_cursor"])
    listed = [*first["sessions"], *rest["sessions"]]
    assert {session["session"] for session in listed} == {"a", "b", "c"}
    assert all(session["archive"].startswith(f"{session['session']}~") for session in listed)
    assert first["counts"] == {"archived": 3}
    token = (await agent.of("d").update(share="read"))["share"]["token"]
    assert (await agent.with_share(token).sessions(state="archived"))["sessions"] == []
