from __future__ import annotations

import logging
from typing import Any, Literal

import anyio
import mcp_types as types
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from pydantic import SecretStr

from mcp_tasks.errors import KeyConflict, TaskNotFound
from mcp_tasks.requests import GetResult, PollTask, Request, RunCommand
from mcp_tasks.server.callers import SESSION_META_KEY, SHARE_META_KEY, Identity
from mcp_tasks.server.mcp_server import build_server
from mcp_tasks.service import Client as ServiceClient
from tests.server.fakes import VIEW, FakeService, FakeSettings

pytestmark = pytest.mark.anyio

Mode = Literal["legacy", "auto"]


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


def client(service: FakeService, mode: Mode, settings: FakeSettings | None = None) -> Client:
    return Client(
        build_server(service.as_service(), settings or FakeSettings(), lambda _: Identity("me")), mode=mode
    )


def text_of(result: types.CallToolResult) -> str:
    [content] = result.content
    assert isinstance(content, types.TextContent)
    return content.text


async def test_a_call_reaches_the_service_as_a_request_and_comes_back_in_both_forms(mode: Mode) -> None:
    service = FakeService()
    async with client(service, mode) as session:
        result = await session.call_tool("poll_task", {"id": "abc", "wait_ms": "5"})
    assert not result.is_error
    assert result.structured_content == VIEW
    assert text_of(result).startswith(f"running: task {VIEW['task_id']}")
    [(caller, request)] = service.calls
    assert request == PollTask(task_id="abc", wait_ms=5)
    assert (caller.owner, caller.max_wait_ms) == ("me", 25_000)


@pytest.mark.parametrize(
    ("arguments", "meta", "setting", "expected"),
    [
        ({}, {}, None, ("default", False)),
        ({}, {}, "set", ("set", True)),
        ({}, {SESSION_META_KEY: "meta"}, "set", ("meta", True)),
        ({"session": "argument"}, {SESSION_META_KEY: "meta"}, "set", ("argument", True)),
        ({"session": None}, {SESSION_META_KEY: None}, None, ("default", False)),
        ({"session": "default"}, {}, None, ("default", True)),
    ],
)
async def test_the_session_is_the_first_that_is_named(
    arguments: dict[str, Any],
    meta: dict[str, Any],
    setting: str | None,
    expected: tuple[str, bool],
    mode: Mode,
) -> None:
    service = FakeService()
    async with client(service, mode, FakeSettings(session=setting)) as connected:
        params = types.RequestParamsMeta(**meta)  # type: ignore[typeddict-item] # an open map, as in MCP
        await connected.call_tool("list_tasks", arguments, meta=params)
    [(caller, _)] = service.calls
    assert (caller.session, caller.named) == expected


@pytest.mark.parametrize(
    ("meta", "setting", "expected"),
    [({}, None, None), ({SHARE_META_KEY: "given"}, "set", "given"), ({}, "set", "set")],
)
async def test_a_share_is_that_of_the_call_or_of_the_settings(
    meta: dict[str, Any], setting: str | None, expected: str | None, mode: Mode
) -> None:
    service = FakeService()
    settings = FakeSettings(share=SecretStr(setting) if setting else None)
    async with client(service, mode, settings) as connected:
        params = types.RequestParamsMeta(**meta)  # type: ignore[typeddict-item] # an open map, as in MCP
        await connected.call_tool("list_tasks", {}, meta=params)
    [(caller, _)] = service.calls
    assert caller.share == expected


@pytest.mark.parametrize("token", [5, ""])
async def test_a_share_of_meta_that_is_no_token_is_refused(token: object, mode: Mode) -> None:
    service = FakeService()
    async with client(service, mode) as session:
        meta: Any = {SHARE_META_KEY: token}
        result = await session.call_tool("list_tasks", {}, meta=meta)
    assert result.is_error
    assert result.structured_content is not None
    assert result.structured_content["code"] == "invalid_argument"
    assert not service.calls


async def test_who_is_served_is_told_by_what_the_client_says_of_itself(mode: Mode) -> None:
    service = FakeService()
    info = types.Implementation(name="editor", version="1.2")
    attendance: Any = service
    connected = Client(
        build_server(service.as_service(), FakeSettings(), lambda _: Identity("me", attendance=attendance)),
        mode=mode,
        client_info=info,
    )
    async with connected as session:
        await session.call_tool("list_tasks", {})
    assert service.clients == [ServiceClient("editor", "1.2")]


@pytest.mark.parametrize("name", ["", "..", "a/b", 5, ["x"]])
async def test_a_session_of_meta_that_is_no_name_is_refused(name: Any, mode: Mode) -> None:
    service = FakeService()
    async with client(service, mode) as session:
        meta: Any = {SESSION_META_KEY: name}
        result = await session.call_tool("list_tasks", {}, meta=meta)
    assert result.is_error
    assert result.structured_content is not None
    assert result.structured_content["code"] == "invalid_argument"
    assert not service.calls


async def test_an_error_has_code_message_and_hint_and_nothing_before_them(mode: Mode) -> None:
    def fail(request: Request) -> dict[str, Any]:
        raise KeyConflict("key 'k' belongs to task abc", "use another key")

    async with client(FakeService(fail), mode) as session:
        result = await session.call_tool("run_command", {"command": "x"})
    assert result.is_error
    assert result.structured_content == {
        "code": "key_conflict",
        "message": "key 'k' belongs to task abc",
        "hint": "use another key",
    }
    assert text_of(result) == "key_conflict: key 'k' belongs to task abc. use another key"


async def test_an_error_from_a_group_of_tasks_is_told_as_if_it_were_alone(mode: Mode) -> None:
    def fail(request: Request) -> dict[str, Any]:
        raise ExceptionGroup("several", [ExceptionGroup("inner", [TaskNotFound("abc")]), ValueError("other")])

    async with client(FakeService(fail), mode) as session:
        result = await session.call_tool("cancel_task", {"task_ids": ["abc", "def"]})
    assert text_of(result).startswith("task_not_found: no task 'abc'")


async def test_bad_arguments_never_reach_the_service(mode: Mode) -> None:
    service = FakeService()
    async with client(service, mode) as session:
        result = await session.call_tool("run_command", {"comand": "x"})
    assert text_of(result) == "invalid_argument: unknown parameter 'comand'. did you mean 'command'?"
    assert not service.calls


async def test_a_message_that_quotes_the_client_stays_short(mode: Mode) -> None:
    def fail(request: Request) -> dict[str, Any]:
        assert isinstance(request, PollTask)
        raise TaskNotFound(request.task_id)

    async with client(FakeService(fail), mode) as session:
        result = await session.call_tool("poll_task", {"task_id": "x" * 100_000})
    assert result.structured_content is not None
    assert result.structured_content["code"] == "task_not_found"
    assert len(text_of(result)) < 3_000


async def test_a_defect_is_told_by_an_incident_and_explained_in_the_log_alone(
    mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: Request) -> dict[str, Any]:
        raise ZeroDivisionError("/secret/path")

    with caplog.at_level(logging.ERROR):
        async with client(FakeService(fail), mode) as session:
            result = await session.call_tool("get_result", {"task_id": "x"})
            await session.call_tool("list_tasks", {"x": 1})
    assert result.structured_content is not None
    assert result.structured_content["code"] == "internal"
    said = text_of(result)
    assert "secret" not in said
    assert "Traceback" not in said
    [record] = caplog.records
    assert record.getMessage().split()[1].rstrip(":") in said
    assert record.exc_info is not None


async def test_an_unknown_tool_is_an_error_of_the_protocol(mode: Mode) -> None:
    async with client(FakeService(), mode) as session:
        with pytest.raises(MCPError) as caught:
            await session.call_tool("run_comand", {})
    assert caught.value.error.code == types.INVALID_PARAMS
    assert "run_command" in caught.value.error.message


async def test_the_core_set_neither_lists_nor_takes_the_rest(mode: Mode) -> None:
    async with client(FakeService(), mode, FakeSettings(tools="core")) as session:
        assert "send_input" not in [tool.name for tool in (await session.list_tools()).tools]
        with pytest.raises(MCPError):
            await session.call_tool("send_input", {"task_id": "x", "text": "y"})


async def test_progress_rises_with_every_report() -> None:
    service = FakeService(reports=(0, 10, 10, 5, 20))
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with client(service, "legacy") as session:
        await session.call_tool("run_command", {"command": "x"}, progress_callback=hear)
        await session.call_tool("run_command", {"command": "x"})
    assert heard == [(0, 100, "waited 0 ms"), (10, 100, "waited 10 ms"), (20, 100, "waited 20 ms")]


async def test_cancelling_a_request_ends_the_wait(mode: Mode) -> None:
    service = FakeService(waits=True)
    with anyio.fail_after(10):
        async with client(service, mode) as session:
            async with anyio.create_task_group() as group:
                group.start_soon(session.call_tool, "poll_task", {"task_id": "x"})
                await service.waiting.wait()
                group.cancel_scope.cancel()
            await service.cancelled.wait()


async def test_base64_is_told_as_such(mode: Mode) -> None:
    def answer(request: Request) -> dict[str, Any]:
        assert isinstance(request, GetResult)
        return {**VIEW, "stdout": "QUJD"}

    async with client(FakeService(answer), mode) as session:
        result = await session.call_tool("get_result", {"task_id": "x", "encoding": "base64"})
    assert "--- stdout base64" in text_of(result)


async def test_the_server_says_who_it_is_and_how_to_use_it(mode: Mode) -> None:
    async with client(FakeService(), mode) as session:
        assert session.server_info is not None
        assert session.server_info.name == "mcp_tasks"
        assert session.server_info.version
        assert session.instructions is not None
        for name in ("run_command", "poll_task", "get_result", "list_tasks"):
            assert name in session.instructions
        assert len(session.instructions) < 800
        tools = (await session.list_tools()).tools
    assert len(tools) == 9
    assert RunCommand.tool in [tool.name for tool in tools]
