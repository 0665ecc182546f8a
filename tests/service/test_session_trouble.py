"""Sessions when others change them in the same moment, or the store or a key is not to be had."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_tasks.errors import (
    InvalidArgument,
    RevisionConflict,
    SessionNotFound,
    StoreUnavailable,
    TaskNotFinished,
    TaskNotFound,
)
from mcp_tasks.models import Session, SessionKey
from mcp_tasks.service import Client
from mcp_tasks.service.errands import run_errands
from mcp_tasks.service.sessions.ends import Expiry
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """An agent in a session that is there."""
    async with open_agent(tmp_path / "state") as agent:
        await agent.update(title="here")
        yield agent
        await agent.end_everything()


def _unavailable(*_: Any, **__: Any) -> Any:
    raise StoreUnavailable("the disk is gone", "bring it back")


def _once(before: Callable[[], object], then: Callable[..., Any]) -> Callable[..., Any]:
    """`then`, before whose first call something else happens."""
    waiting = [before]

    def call(*args: Any) -> Any:
        if waiting:
            waiting.pop()()
        return then(*args)

    return call


async def test_a_change_is_made_again_on_what_another_writer_has_left(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, key = agent.service._desk.store, agent.caller.session_key
    write = store.replace_session

    def other() -> None:
        write(replace(store.load_session(key), title="by the other", journal_limit=7))

    monkeypatch.setattr(store, "replace_session", _once(other, write))
    view = await agent.update(preferences={"mine": 1})
    assert (view["title"], view["journal"]["limit"]) == ("by the other", 7)
    assert view["workspace"]["preferences"] == {"mine": 1}


async def test_a_session_that_is_deleted_in_the_moment_of_a_change_is_made_anew(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, key = agent.service._desk.store, agent.caller.session_key
    monkeypatch.setattr(
        store, "replace_session", _once(lambda: store.delete_session(key), store.replace_session)
    )
    assert (await agent.update(journal_limit=5))["journal"]["limit"] == 5


async def test_a_session_that_changes_in_the_moment_of_its_end_is_ended_all_the_same(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, key = agent.service._desk.store, agent.caller.session_key
    write = store.replace_session
    change = _once(lambda: write(replace(store.load_session(key), title="new")), write)
    monkeypatch.setattr(store, "replace_session", change)
    view = await agent.end()
    assert (view["state"], view["title"]) == ("closed", "new")


async def test_what_is_started_in_the_moment_of_an_end_keeps_the_session_open(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = agent.service._desk
    task_id = await agent.start("sleep 60")
    [running] = desk.store.unfinished()
    seen = desk.store.unfinished
    nothing_yet = [True]

    def late() -> Any:
        # The first looks are too early to see the task, the one after the end sees it.
        return [] if nothing_yet else seen()

    monkeypatch.setattr(desk.store, "unfinished", late)
    monkeypatch.setattr(desk.records, "close", _once(nothing_yet.clear, desk.records.close))
    with pytest.raises(TaskNotFinished, match=running.task_id):
        await agent.end(wait_ms=0)
    monkeypatch.undo()
    assert (await agent.info())["state"] == "open"
    await agent.cancel(task_id)


async def test_expiry_opens_a_session_again_in_which_something_was_started_meanwhile(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = agent.service._desk
    task_id = await agent.start("sleep 60")
    await agent.update(expires_in_ms=1)
    session = desk.store.load_session(agent.caller.session_key)
    Expiry(desk.store, desk.records, desk.clock)._close(session)
    assert (await agent.info())["state"] == "open"
    monkeypatch.setattr(desk.store, "replace_session", _unavailable)
    Expiry(desk.store, desk.records, desk.clock)._close(session)
    monkeypatch.undo()
    assert (await agent.info())["state"] == "open"
    await agent.cancel(task_id)


async def test_a_reopening_that_somebody_else_disturbs_is_tried_again(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, key = agent.service._desk, agent.caller.session_key
    await agent.end()
    write = desk.store.replace_session
    change = _once(lambda: write(replace(desk.store.load_session(key), title="new")), write)
    monkeypatch.setattr(desk.store, "replace_session", change)
    desk.records.reopen(key, "test")
    view = await agent.info()
    assert (view["state"], view["title"]) == ("open", "new")
    desk.records.reopen(SessionKey("nobody", "nothing"), "test")


async def test_what_is_held_back_is_cancelled_by_a_forced_end(agent: Agent) -> None:
    later = await agent.start("true", delay_ms=600_000)
    first = await agent.start("sleep 60")
    after = await agent.start("true", after=(first,))
    with pytest.raises(TaskNotFinished):
        await agent.end(wait_ms=0)
    view = await agent.end(force=True)
    assert view["state"] == "closed"
    for task_id in (later, first, after):
        assert (await agent.poll(task_id))["state"] in ("cancelled", "failed")


async def test_what_is_cleared_while_its_session_ends_is_not_missed(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, ends = agent.service._desk, agent.service._session_ends
    task_id = await agent.start("sleep 60")
    key = desk.find(agent.caller, task_id)
    seen: list[object] = []

    def seen_once() -> list[object]:
        return [seen.pop()] if seen else []

    def cleared(*_: Any, **__: Any) -> Any:
        raise TaskNotFound(task_id)

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "unfinished", seen_once)
        patch.setattr(desk.waiting, "until", cleared)
        patch.setattr(ends._ending, "cancel_task", cleared)
        seen.append(key)
        await ends._wait_for_everything(agent.caller, time.monotonic() + 60)
        seen.append(key)
        assert await ends._cancel_everything(agent.caller) == [task_id]
    with monkeypatch.context() as patch:
        patch.setattr(desk.reconciler, "look", cleared)
        patch.setattr(desk.reconciler, "settle", cleared)
        assert ends._unfinished(agent.caller.session_key) == []
        ends._settle(agent.caller.session_key)
    await agent.cancel(task_id)


async def test_what_cannot_be_ended_by_force_is_named(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = await agent.start("sleep 60")

    async def in_vain(*_: Any) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(agent.service._session_ends._ending, "cancel_task", in_vain)
    with pytest.raises(TaskNotFinished, match=rf"not ended though it was asked for: {task_id}"):
        await agent.end(force=True)
    monkeypatch.undo()
    await agent.cancel(task_id)


async def test_an_archived_session_is_put_away_once_it_is_closed(agent: Agent) -> None:
    await agent.run("echo kept")
    view = await agent.end(archive=True)
    assert view["state"] == "archived"
    assert view["archive"].startswith("default~")
    with pytest.raises(SessionNotFound):
        await agent.info()
    assert agent.audited()[-1] == "archived"


async def test_a_command_runs_as_its_session_was_when_the_store_could_still_be_read(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await agent.update(cwd=str(tmp_path), env={"A": "1"})
    await agent.run("true")
    monkeypatch.setattr(agent.service._desk.store, "load_session", _unavailable)
    assert (await agent.run("pwd; echo $A"))["stdout"] == f"{tmp_path}\n1\n"
    assert (await agent.of("never-seen").run("echo ${A-none}"))["stdout"] == "none\n"
    assert agent.service._desk.workspaces.base(agent.caller.session_key) != str(tmp_path)
    attendance = agent.service.attend("stdio")
    attendance.saw(agent.caller.session_key, Client("c", "1"))
    assert attendance._open == {}


async def test_a_value_that_cannot_be_unsealed_keeps_a_command_from_running(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent.update(env={"A": "1"})
    monkeypatch.setattr(agent.service._desk.workspaces, "sealer", _Keyless())
    with pytest.raises(StoreUnavailable, match="no key"):
        await agent.run("true")
    assert (await agent.list())["tasks"] == []
    with pytest.raises(StoreUnavailable, match="no key"):
        await agent.update(env={"B": "2"})


class _Keyless:
    def seal(self, text: str) -> str:
        raise StoreUnavailable("no key", "")

    def unseal(self, sealed: str) -> str:
        raise StoreUnavailable("no key", "")


async def test_a_journal_that_is_gone_takes_no_answer_with_it(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk = agent.service._desk
    monkeypatch.setattr(desk.journal, "connect", _unavailable)
    monkeypatch.setattr(desk.journal, "active_at", _unavailable)
    attendance = agent.service.attend("stdio")
    attendance.saw(agent.caller.session_key, Client("c", "1"))
    await anyio.to_thread.run_sync(attendance.close)
    assert "could not be written down" in caplog.text
    assert [session["session"] for session in (await agent.sessions())["sessions"]] == ["default"]


async def test_errands_go_on_whatever_fails() -> None:
    ran: list[str] = []

    def refuses() -> None:
        ran.append("refuses")
        raise StoreUnavailable("not now", "")

    def breaks() -> None:
        ran.append("breaks")
        raise ZeroDivisionError

    def works() -> None:
        ran.append("works")

    async with anyio.create_task_group() as group:
        group.start_soon(run_errands, [refuses, breaks, works])

        async def all_ran() -> bool:
            return len(ran) == 3

        await eventually(all_ran, "every errand has run")
        group.cancel_scope.cancel()
    assert ran == ["refuses", "breaks", "works"]


async def test_a_revision_that_another_server_has_passed_in_this_moment_is_refused(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, key = agent.service._desk.store, agent.caller.session_key
    write = store.replace_session
    monkeypatch.setattr(
        store,
        "replace_session",
        _once(lambda: write(replace(store.load_session(key), title="theirs")), write),
    )
    revision = (await agent.info())["revision"]
    with pytest.raises(RevisionConflict, match=f"at revision {revision + 1}, not {revision}"):
        await agent.update(title="mine", revision=revision)
    assert (await agent.info())["title"] == "theirs"


async def test_figures_leave_out_what_is_cleared_while_they_are_made(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = agent.service._desk
    task_id = await agent.start("sleep 60")
    key = desk.find(agent.caller, task_id)

    def cleared(_: object) -> Session:
        raise TaskNotFound(task_id)

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "load", cleared)
        assert (await agent.info())["tasks"] == {"running": 1}
    assert key.task_id == task_id
    await agent.cancel(task_id)


async def test_a_place_that_is_no_folder_cannot_be_a_workspace(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match="is not a directory"):
        await agent.update(cwd=str(tmp_path / "file"))
