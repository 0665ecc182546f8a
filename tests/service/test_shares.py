"""Sharing a session: a token lets its holder in, as far as its role goes and as long as it holds."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from mcp_tasks.errors import (
    InvalidArgument,
    LimitReached,
    PolicyDenied,
    SessionNotFound,
    ShareNotValid,
    TaskNotFound,
    TasksError,
)
from mcp_tasks.service import View
from mcp_tasks.service.access import TOKEN_PREFIX, needed
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually


async def _shared(agent: Agent, role: str, **options: object) -> tuple[Agent, str]:
    """Somebody else's agent in the session, and the id of its share."""
    share = (await agent.update(share=role, **options))["share"]
    return agent.with_share(share["token"]), share["share_id"]


async def test_a_reader_sees_everything_of_the_session_and_changes_nothing(agent: Agent) -> None:
    task_id = (await agent.run("echo shown"))["task_id"]
    guest, _ = await _shared(agent, "read")
    assert (await guest.result(task_id))["stdout"] == "shown\n"
    assert (await guest.poll(task_id))["state"] == "completed"
    assert [task["task_id"] for task in (await guest.list())["tasks"]] == [task_id]
    assert (await guest.search("shown"))["matches"]
    assert (await guest.wait(task_id))["done"]
    assert (await guest.info())["session"] == "default"
    refused: list[Callable[[], Awaitable[View]]] = [
        lambda: guest.run("true"),
        lambda: guest.cancel(task_id),
        lambda: guest.clear(task_id),
        lambda: guest.send(task_id, "x"),
        lambda: guest.update(title="mine"),
        guest.end,
    ]
    for call in refused:
        with pytest.raises(PolicyDenied, match="lets you read in the session, not write"):
            await call()
    assert (await agent.list())["counts"] == {"completed": 1}


async def test_no_share_shows_the_sessions_of_others(agent: Agent) -> None:
    guest, _ = await _shared(agent, "write")
    with pytest.raises(PolicyDenied):
        await guest.service.all_sessions(guest.caller)


async def test_a_session_has_so_many_shares_and_no_more(agent: Agent) -> None:
    share = (await agent.update(share="read"))["share"]
    for _ in range(99):
        await agent.update(share="read")
    with pytest.raises(LimitReached, match="100 shares"):
        await agent.update(share="read")
    await agent.update(share="read", revoke=share["share_id"])


async def test_a_time_for_no_share_is_refused(agent: Agent) -> None:
    with pytest.raises(InvalidArgument, match="goes with a new share"):
        await agent.update(share_expires_in_ms=1_000)


async def test_a_writer_works_in_the_session_and_does_not_hand_it_on(agent: Agent) -> None:
    await agent.run("true")
    guest, share_id = await _shared(agent, "write")
    task_id = (await guest.run("echo by a guest"))["task_id"]
    assert (await agent.result(task_id))["session"] == "default"
    assert (await guest.update(title="theirs"))["title"] == "theirs"
    for options in ({"share": "read"}, {"revoke": share_id}):
        with pytest.raises(PolicyDenied, match="does not let you share"):
            await guest.update(**options)
    with pytest.raises(PolicyDenied):
        await guest.end(force=True)
    with pytest.raises(PolicyDenied):
        await guest.end(archive=True)
    with pytest.raises(PolicyDenied):
        await guest.service.delete_session(guest.caller)
    assert (await guest.end())["state"] == "closed"
    assert agent.audited().count("shared") == 1


async def test_only_the_owner_is_told_of_the_shares(agent: Agent) -> None:
    guest, share_id = await _shared(agent, "write")
    assert [share["share_id"] for share in (await agent.info())["shares"]] == [share_id]
    assert "shares" not in await guest.info()
    assert "token" not in str((await agent.info())["shares"])


async def test_a_guest_is_in_the_shared_session_and_nowhere_else(agent: Agent) -> None:
    other = (await agent.of("other").run("true"))["task_id"]
    await agent.run("true")
    guest, _ = await _shared(agent, "write")
    with pytest.raises(TaskNotFound):
        await guest.result(other)
    assert [session["session"] for session in (await guest.sessions())["sessions"]] == ["default"]
    token = guest.caller.share
    assert token is not None
    assert (await agent.with_share(token, session="default").info())["session"] == "default"
    for name in ("other", "missing"):
        with pytest.raises(SessionNotFound, match=f"no session '{name}'"):
            await agent.with_share(token, session=name).info()


async def test_a_revoked_share_is_over_at_once_on_every_server(agent: Agent, tmp_path: Path) -> None:
    await agent.run("true")
    guest, share_id = await _shared(agent, "read")
    async with open_agent(tmp_path / "state") as second:
        there = second.with_share(guest.caller.share or "")
        assert (await there.info())["session"] == "default"
        await agent.update(revoke=share_id)
        for gone in (guest, there):
            with pytest.raises(SessionNotFound):
                await gone.info()
    with pytest.raises(InvalidArgument, match="no share"):
        await agent.update(revoke=share_id)
    assert agent.audited()[-1] == "revoked"


async def test_who_waits_while_his_share_is_revoked_is_told_nothing(agent: Agent) -> None:
    task_id = await agent.start("echo secret; sleep 60")
    guest, share_id = await _shared(agent, "read")
    outcome: list[TasksError] = []

    async def waits() -> None:
        try:
            await guest.poll(task_id, wait_ms=20_000)
        except TasksError as error:
            outcome.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(waits)
        await anyio.wait_all_tasks_blocked()
        await agent.update(revoke=share_id)
        await agent.cancel(task_id)
    assert [type(error) for error in outcome] == [ShareNotValid]


async def test_a_share_holds_no_longer_than_it_was_given_for(agent: Agent) -> None:
    await agent.run("true")
    guest, _ = await _shared(agent, "read", share_expires_in_ms=1)

    async def over() -> bool:
        try:
            await guest.info()
        except SessionNotFound:
            return True
        return False

    await eventually(over, "the share is over")
    assert "shares" not in await agent.info()


async def test_no_token_is_kept_anywhere(agent: Agent, tmp_path: Path) -> None:
    guest, _ = await _shared(agent, "write")
    await guest.run("true")
    agent.events()
    token = (guest.caller.share or "").encode()
    secret = token.rpartition(b".")[2]
    assert len(base64.urlsafe_b64decode(secret + b"=")) * 8 >= 192
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert [path for path in files if secret in path.read_bytes()] == []
    assert secret.decode() not in repr(guest.caller)


async def test_a_token_that_stands_in_a_command_is_not_repeated(agent: Agent) -> None:
    guest, _ = await _shared(agent, "read")
    token = guest.caller.share or ""
    view = await agent.run(f"echo {token} > /dev/null", label="x")
    records = str([await agent.result(view["task_id"]), await agent.info(), await agent.list()])
    assert "[redacted]" in records
    assert token.removeprefix(TOKEN_PREFIX)[:20] not in records


def _altered(token: str, name: int, value: str) -> str:
    """The token with another owner, session or share in it."""
    named, _, secret = token.removeprefix(TOKEN_PREFIX).partition(".")
    parts = json.loads(base64.urlsafe_b64decode(named + "=" * (-len(named) % 4)))
    parts[name] = value
    text = base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")
    return f"{TOKEN_PREFIX}{text}.{secret}"


async def test_what_is_no_valid_token_opens_nothing_in_the_same_words(agent: Agent) -> None:
    await agent.of("other").update(share="write")
    guest, _ = await _shared(agent, "write")
    token = guest.caller.share or ""
    wrong = [
        "",
        "nonsense",
        TOKEN_PREFIX,
        TOKEN_PREFIX + "." + token.rpartition(".")[2],
        TOKEN_PREFIX + base64.urlsafe_b64encode(b"[" * 500).decode() + ".x",
        TOKEN_PREFIX + base64.urlsafe_b64encode(b'["a","b"]').decode() + ".x",
        TOKEN_PREFIX + "a.x",
        token[:-1],
        token + "x",
        token[:-3] + ("AAA" if token[-3:] != "AAA" else "BBB"),
        _altered(token, 0, "somebody"),
        _altered(token, 1, "other"),
        _altered(token, 1, "missing"),
        _altered(token, 1, "../x"),
        _altered(token, 2, "0" * 16),
        "x" * 10_000,
        "\udcff",
    ]
    words = set()
    for each in wrong:
        with pytest.raises(SessionNotFound) as caught:
            await agent.with_share(each).info()
        words.add(str(caught.value))
    assert len(words) == 1


async def test_two_shares_are_told_apart(agent: Agent) -> None:
    reader, first = await _shared(agent, "read")
    writer, second = await _shared(agent, "write")
    assert first != second
    assert (await writer.run("true"))["state"] == "completed"
    await agent.update(revoke=second)
    assert (await reader.info())["session"] == "default"
    with pytest.raises(SessionNotFound):
        await writer.info()


async def test_prefixes_and_outputs_go_by_the_share_too(agent: Agent) -> None:
    other = (await agent.of("other").run("echo other"))["task_id"]
    task_id = (await agent.run("echo mine"))["task_id"]
    guest, _ = await _shared(agent, "read")
    service = agent.service
    assert service.resolve_prefix(guest.caller, task_id[:20]) == task_id
    assert service.output_of(guest.caller, task_id)[1].read("stdout", 0, 100) == (0, b"mine\n")
    with pytest.raises(TaskNotFound):
        service.resolve_prefix(guest.caller, other[:20])
    with pytest.raises(TaskNotFound):
        service.output_of(guest.caller, other)


def test_a_tool_that_nobody_has_thought_of_takes_the_right_to_write() -> None:
    assert needed("session_info") == "read"
    assert needed("run_command") == "write"
    assert needed("something_new") == "write"
