from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_tasks.errors import InvalidArgument, PolicyDenied
from mcp_tasks.requests import ProjectContext, SessionInfo, UpdateSession
from mcp_tasks.service import View
from tests.projects.folders import OTHER, git, put
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

HERE = os.path.realpath(os.getcwd())


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return put(git(tmp_path / "work"), Makefile="test:\nbuild:\n", web__package_dot_json="{", a_dot_py="")


async def context(agent: Agent, **given: Any) -> View:
    return await agent.service.project_context(agent.caller, ProjectContext(**given))


async def update(agent: Agent, **given: Any) -> View:
    return await agent.service.update_session(agent.caller, UpdateSession(**given))


async def test_a_project_is_told_with_what_there_is_to_know(agent: Agent, work: Path) -> None:
    view = await context(agent, cwd=str(work))
    assert view["root"] == view["cwd"] == str(work)
    assert view["vcs"]["kind"] == "git"
    assert view["languages"] == [{"name": "Python", "files": 1}]
    assert view["build"] == [{"command": "make build", "from": "Makefile"}]
    assert view["test"] == [{"command": "make test", "from": "Makefile"}]
    assert view["manifests"] == ["Makefile", "web/package.json"]
    assert view["problems"] == ["web/package.json is not valid JSON"]
    assert view["cached"] is False
    assert view["cache"]["misses"] == 1
    assert view["next"].startswith(f"run_command(command='make test', cwd='{work}')")
    assert "changes" not in view
    again = await context(agent, cwd=str(work))
    assert again["cached"] is True
    assert again["checked_at"] == view["checked_at"]
    assert (await context(agent, cwd=str(work), refresh=True))["cached"] is False


async def test_the_folder_is_that_of_the_call_else_of_the_session_else_of_the_server(
    agent: Agent, work: Path
) -> None:
    assert (await context(agent))["cwd"] == HERE
    await update(agent, cwd=str(work))
    assert (await context(agent))["cwd"] == str(work)
    web = await context(agent, cwd="web")
    assert (web["cwd"], web["root"]) == (str(work / "web"), str(work))
    with pytest.raises(InvalidArgument, match="not a directory"):
        await context(agent, cwd=str(work / "gone"))


async def test_reading_makes_no_session(agent: Agent, work: Path) -> None:
    other = agent.of("nobodys")
    await context(other, cwd=str(work))
    assert "nobodys" not in [each["session"] for each in (await agent.sessions())["sessions"]]


async def test_what_people_have_set_comes_before_what_was_found(agent: Agent, work: Path) -> None:
    project = {
        "test": ["make check", 5, "curl https://me:hunter2@example.org"],
        "build": "ninja",
        "owner": "me",
        "notes": {"api_key": "hunter2hunter2"},
    }
    await update(agent, cwd=str(work), preferences={"project": project})
    view = await context(agent)
    assert view["test"][0] == {"command": "make check", "from": "preferences"}
    assert view["build"] == [{"command": "ninja", "from": "preferences"}]
    assert view["set"]["owner"] == "me"
    assert "hunter2" not in str(view)
    for odd in ("text", ["list"], {"test": 5}):
        await update(agent, preferences={"project": odd})
        assert (await context(agent))["test"] == [{"command": "make test", "from": "Makefile"}]
    await update(agent, preferences={"project": {"test": []}})
    assert "test" not in await context(agent)


async def test_a_diff_tells_what_has_changed_since_the_last_look(agent: Agent, work: Path) -> None:
    first = await context(agent, cwd=str(work), diff=True)
    assert first["changes"] == []
    assert "since" not in first
    (work / ".git/refs/heads/main").write_text(OTHER)
    second = await context(agent, cwd=str(work), diff=True)
    [change] = second["changes"]
    assert change.startswith("commit: ")
    assert second["since"] == first["checked_at"]
    assert (await context(agent, cwd=str(work), diff=True))["changes"] == []


async def test_a_diff_reaches_over_a_restart(tmp_path: Path, work: Path) -> None:
    async with open_agent(tmp_path / "state") as agent:
        await context(agent, cwd=str(work))
    put(work, go_dot_mod="")
    async with open_agent(tmp_path / "state") as agent:
        view = await context(agent, cwd=str(work), diff=True)
        assert "manifest added: go.mod" in view["changes"]
        assert agent.service.projects.figures()["misses"] == 2
        assert agent.service.projects.clear() == 1
    for file in (tmp_path / "state/context").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_session_that_is_looked_at_has_its_project_ready(agent: Agent, work: Path) -> None:
    await update(agent, cwd=str(work))

    async def ready() -> bool:
        return agent.service.projects.figures()["misses"] == 1

    await eventually(ready, "the project was looked at in advance")
    view = await context(agent)
    assert view["cached"] is True
    assert await agent.service.projects.warm(str(work)) is False
    put(work, go_dot_mod="")
    await agent.service.session_info(agent.caller, SessionInfo())

    async def again() -> bool:
        return agent.service.projects.figures()["misses"] == 2

    await eventually(again, "it was looked at again")
    diff = await context(agent, diff=True)
    assert "manifest added: go.mod" in diff["changes"]


async def test_what_is_expected_beyond_measure_is_dropped(agent: Agent, work: Path) -> None:
    for _ in range(100):
        agent.service.projects.expect(str(work))
    agent.service.projects.expect(None)
    agent.service.projects.expect("a\0b")
    await agent.service.projects.warm(str(work))


async def test_who_may_only_read_looks_at_the_folder_of_the_session(agent: Agent, work: Path) -> None:
    await update(agent, cwd=str(work))
    shared = await update(agent, share="read")
    guest = Agent(agent.service, replace(agent.caller, share=shared["share"]["token"]))
    assert (await context(guest))["cwd"] == str(work)
    assert (await context(guest, cwd="web"))["root"] == str(work)
    (work / "out").symlink_to(work.parent)
    for outside in ("/", "..", str(work.parent / "work-else"), "out"):
        with pytest.raises(PolicyDenied):
            await context(guest, cwd=outside)


async def test_the_folder_of_the_server_is_looked_at_for_nobody_but_its_user(
    agent: Agent, work: Path
) -> None:
    subject = Agent(agent.service, replace(agent.caller, owner="oauth:anna", at_home=False))
    for given in ({}, {"cwd": "."}, {"cwd": "tests"}, {"refresh": True}):
        with pytest.raises(InvalidArgument, match="the session has no folder") as refused:
            await context(subject, **given)
        assert HERE not in str(refused.value)
    assert (await context(subject, cwd=str(work)))["root"] == str(work)
    reader = Agent(agent.service, replace(subject.caller, role="read"))
    for given in ({}, {"cwd": "."}, {"cwd": "/root"}):
        with pytest.raises(PolicyDenied, match=r"the token lets you look at .* own folder only, and it has"):
            await context(reader, **given)
    await update(subject, cwd=str(work))
    assert (await context(reader, cwd="web"))["cwd"] == str(work / "web")
    with pytest.raises(PolicyDenied, match="the token lets you look at the session's own folder only"):
        await context(reader, cwd="/root")


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Looks do not come back before the event is set."""
    release = threading.Event()

    def wait(*_: object) -> None:
        release.wait(20)
        raise OSError("the network is gone")

    monkeypatch.setattr("mcp_tasks.projects.discovery.discover", wait)
    yield release
    release.set()


async def test_a_folder_that_does_not_answer_holds_nobody(
    tmp_path: Path, work: Path, stuck: threading.Event
) -> None:
    async with open_agent(tmp_path / "state") as agent:
        with anyio.fail_after(10):
            view = await context(agent, cwd=str(work))
            assert view["cached"] is False
            assert "in a moment" in view["next"]
            assert "goes on" in view["problems"][0]
        stuck.set()
        agent.service.projects.expect(str(work))
        # What fails in advance is logged, and the server serves on.
        assert "tasks" in await agent.list()


async def test_a_wrong_folder_is_repeated_as_it_was_given(agent: Agent) -> None:
    with pytest.raises(InvalidArgument, match=r"cwd 'a//b/\.\./c' is not a directory"):
        await context(agent, cwd="a//b/../c")
