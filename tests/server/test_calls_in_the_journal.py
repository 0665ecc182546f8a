from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client

from mcp_tasks.app import open_service
from mcp_tasks.server.callers import SESSION_META_KEY, Identity
from mcp_tasks.server.mcp_server import build_server
from mcp_tasks.settings import Settings
from tests.server.fakes import VIEW, FakeService, FakeSettings

pytestmark = pytest.mark.anyio

SECRET = "ghp_" + "x9Y8" * 9


async def test_each_call_is_noted_with_who_called_and_what_came_of_it() -> None:
    service = FakeService()
    async with Client(
        build_server(service.as_service(), FakeSettings(), lambda _: Identity("me"))
    ) as session:
        await session.call_tool("poll_task", {"task_id": "abc", "session": "work"})
        await session.call_tool("poll_task", {"task": "abc"})
    (caller, call), (_, refused) = service.noted

    assert (caller.session, caller.named) == ("work", True)
    assert (call.tool, call.arguments) == ("poll_task", {"task_id": "abc", "session": "work"})
    assert call.answer["task_id"] == VIEW["task_id"]
    assert call.duration_ms >= 0
    assert refused.answer["code"] == "invalid_argument"


async def test_a_call_that_names_no_session_in_order_is_noted_nowhere() -> None:
    service = FakeService()
    async with Client(
        build_server(service.as_service(), FakeSettings(), lambda _: Identity("me"))
    ) as session:
        meta = types.RequestParamsMeta(**{SESSION_META_KEY: "not a name"})  # type: ignore[typeddict-unknown-key]
        await session.call_tool("list_tasks", {}, meta=meta)
        await session.call_tool("list_tasks", {"session": "not a name"})
        await session.call_tool("list_tasks", {"session": 5})

    assert [caller.session for caller, _ in service.noted] == ["default"]


async def test_a_call_that_was_withdrawn_is_noted_as_that() -> None:
    service = FakeService(waits=True)
    async with Client(
        build_server(service.as_service(), FakeSettings(), lambda _: Identity("me"))
    ) as session:
        async with anyio.create_task_group() as group:
            group.start_soon(session.call_tool, "poll_task", {"task_id": "abc"})
            await service.waiting.wait()
            group.cancel_scope.cancel()
        with anyio.fail_after(10):
            await service.cancelled.wait()

    assert [call.answer["code"] for _, call in service.noted] == ["withdrawn"]


async def test_looking_again_and_again_pushes_nothing_out_of_the_journal(tmp_path: Path) -> None:
    settings = Settings(dir=tmp_path / "state", tools="full", journal_limit=20)
    async with (
        open_service(settings) as service,
        Client(build_server(service, settings, lambda _: Identity(settings.owner))) as session,
    ):
        started = await session.call_tool(
            "run_command", {"command": "cat", "interactive": True, "wait_ms": 0}
        )
        assert started.structured_content is not None
        task = {"task_id": started.structured_content["task_id"]}
        await session.call_tool("add_message", {"text": "what was decided"})
        for _ in range(60):
            await session.call_tool("poll_task", task)
        await session.call_tool("send_input", {**task, "eof": True, "wait_ms": 20_000})
        await session.call_tool("poll_task", {**task, "wait_ms": 20_000})
        read = await session.call_tool("read_journal", {"order": "oldest"})

    assert read.structured_content is not None
    said = [
        entry["text"] if entry["role"] == "assistant" else entry["data"]["tool"]
        for entry in read.structured_content["messages"]
        if entry["role"] in ("assistant", "tool")
    ]
    assert sorted(said) == ["poll_task", "poll_task", "run_command", "send_input", "what was decided"]


async def test_the_journal_tells_of_calls_and_ends_and_of_no_secret(tmp_path: Path) -> None:
    settings = Settings(dir=tmp_path / "state", tools="full")
    async with (
        open_service(settings) as service,
        Client(build_server(service, settings, lambda _: Identity(settings.owner))) as session,
    ):

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            result = await session.call_tool(tool, arguments)
            assert result.structured_content is not None
            return dict(result.structured_content)

        await call("list_tasks", session="nowhere")
        view = await call(
            "run_command",
            command=["cat"],
            stdin=f"typed {SECRET}",
            env={"API_TOKEN": SECRET, "PLAIN": "hidden value"},
            wait_ms=20_000,
        )
        await call("add_message", text="a note to find")
        await call("poll_task", task_id="0" * 36)
        tools = await call("read_journal", role="tool", order="oldest")
        found = await call("search_journal", text="note find")
        exported = await call("export_session", format="json")

    assert view["state"] == "completed"
    noted = [entry["data"]["tool"] for entry in tools["messages"]]
    assert noted == ["run_command", "poll_task"]
    run, poll = tools["messages"]
    assert run["task_id"] == view["task_id"]
    assert run["data"]["result"] == {"state": "completed", "outcome": "exited", "exit_code": 0} | {
        name: run["data"]["result"][name] for name in ("wait_result",) if name in run["data"]["result"]
    }
    assert run["data"]["duration_ms"] >= 0
    assert poll["data"]["error"]["code"] == "task_not_found"
    assert [one["role"] for one in found["messages"]] == ["assistant"]
    for hidden in (SECRET, "hidden value", "typed"):
        assert hidden not in exported["text"]
    for path in (tmp_path / "state").glob("journal.db*"):
        assert SECRET.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("run_command", {"command": "true hunter2!", "env": '{"K": "hunter2!"}', "secrets": '["K"]'}),
        ("run_command", {"cmd": "true hunter2!", "env": {"K": "hunter2!"}, "secrets": "K"}),
        ("run_command", {"command": "true", "environment": {"DB": "hunter2!"}}),
        ("run_command", {"command": {"run": "true", "env": {"DB": "hunter2!"}}}),
        ("run_command", {"command": "true", "secrets": [{"DB": "hunter2!"}]}),
        ("run_command", {"command": "true", "input": "hunter2!"}),
        ("run_plan", {"commands": '[{"command": "true", "env": {"K": "hunter2!"}}]'}),
        ("run_plan", {"commands": ['{"command": "true", "stdin": "hunter2!"}']}),
        ("run_plan", {"commands": [{"command": "true", "environment": {"K": "hunter2!"}}]}),
        ("run_command", {"command": "x " * 31_998 + "hunter2!", "env": {"K": "hunter2!"}, "secrets": ["K"]}),
        (
            "run_command",
            {
                "command": "TOKEN=" + "a" * 63_985 + " hunter2!",
                "env": {"K": "hunter2!"},
                "secrets": ["K"],
            },
        ),
    ],
)
async def test_a_secret_is_known_however_the_arguments_of_a_call_were_written(
    tmp_path: Path, tool: str, arguments: dict[str, Any]
) -> None:
    settings = Settings(dir=tmp_path / "state", tools="full", min_free_bytes=0)
    async with (
        open_service(settings) as service,
        Client(build_server(service, settings, lambda _: Identity(settings.owner))) as session,
    ):
        await session.call_tool("add_message", {"text": "there is a session"})
        await session.call_tool(tool, arguments)
        read = await session.call_tool("read_journal", {"role": "tool"})

    assert read.structured_content is not None
    [noted] = [one for one in read.structured_content["messages"] if one["data"]["tool"] == tool]
    assert "hunt" not in str(noted)
    assert "hunt" not in str(read.content)


@pytest.mark.parametrize(
    "arguments",
    [
        {"task_id": "x" * 1_000_000},
        {"x" * 1_000_000: 1},
        {"command": ["x" * 1_000] * 10_000},
        {"command": "true", "env": {f"N{number}": "v" * 100 for number in range(10_000)}},
        {"preferences": {f"n{number}": {"x" * 1_000: "x"} for number in range(10_000)}},
        {"preferences": {"n": 10**4_000, "nan": float("nan")}},
    ],
)
async def test_the_entry_of_a_huge_call_is_small(tmp_path: Path, arguments: dict[str, Any]) -> None:
    settings = Settings(dir=tmp_path / "state", tools="full", min_free_bytes=0)
    tool = "update_session" if "preferences" in arguments else "run_command"
    if "task_id" in arguments:
        tool = "poll_task"
    async with (
        open_service(settings) as service,
        Client(build_server(service, settings, lambda _: Identity(settings.owner))) as session,
    ):
        await session.call_tool("add_message", {"text": "there is a session"})
        await session.call_tool(tool, arguments)
        read = await session.call_tool("read_journal", {"role": "tool"})

    assert read.structured_content is not None
    [noted] = [one for one in read.structured_content["messages"] if one["data"]["tool"] == tool]
    assert len(json.dumps(noted)) < 40_000
