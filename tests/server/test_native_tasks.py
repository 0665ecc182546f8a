from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.requests import ReadJournal, RunCommand
from mcp_tasks.server.callers import SHARE_META_KEY, Identity
from mcp_tasks.server.mcp_server import build_server
from mcp_tasks.server.native_tasks import EXTENSION
from tests.server.fakes import VIEW, FakeService, FakeSettings
from tests.server.native_client import Hear, TaskHandles, ask, call, run
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UNKNOWN = "0" * 36


@dataclass(frozen=True)
class Rig:
    """One service, and clients of it."""

    agent: Agent

    @asynccontextmanager
    async def client(
        self,
        owner: str | None = None,
        mode: str = "auto",
        *,
        session: str | None = None,
        declares: bool = True,
        hear: Hear | None = None,
        **options: Any,
    ) -> AsyncIterator[Client]:
        who = owner or self.agent.caller.owner
        settings = FakeSettings(owner=who, session=session)
        server = build_server(self.agent.service, settings, lambda _: Identity(who))
        extensions = [TaskHandles(hear)] if declares else []
        async with Client(server, mode=mode, extensions=extensions, **options) as client:
            yield client


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_agent(tmp_path / "state") as agent:
        yield Rig(agent)
        await agent.end_everything()


async def ended(client: Client, task_id: str) -> dict[str, Any]:
    async def over() -> dict[str, Any] | None:
        task = await ask(client, "tasks/get", taskId=task_id)
        return None if task["status"] == "working" else task

    found = await eventually(over, "the task has ended")
    assert found is not None
    return found


async def refused(client: Client, method: str, **params: Any) -> types.ErrorData:
    with pytest.raises(MCPError) as raised:
        await ask(client, method, **params)
    return raised.value.error


async def test_a_command_that_outlives_its_wait_is_answered_with_a_flat_handle(rig: Rig) -> None:
    async with rig.client() as client:
        handle = await run(client, "sleep 600")
    assert set(handle) == {
        *("resultType", "taskId", "status", "statusMessage"),
        *("createdAt", "lastUpdatedAt", "ttlMs", "pollIntervalMs"),
    }
    assert (handle["resultType"], handle["status"], handle["ttlMs"]) == ("task", "working", None)
    assert MOMENT.fullmatch(handle["createdAt"])
    assert MOMENT.fullmatch(handle["lastUpdatedAt"])
    assert 500 <= handle["pollIntervalMs"] <= 5_000


async def test_the_task_of_a_handle_is_the_one_that_the_tools_show(rig: Rig) -> None:
    async with rig.client() as client:
        handle = await run(client, "echo first; sleep 600")
        view = await rig.agent.poll(handle["taskId"])
        assert (view["state"], view["stdout"]) == ("running", "first\n")
        assert handle["statusMessage"].startswith("running, ")


async def test_a_handle_is_good_whatever_session_its_task_is_in(rig: Rig) -> None:
    async with rig.client(session="usual") as client:
        task_id = (await run(client, "sleep 600", session="another"))["taskId"]
        assert (await ask(client, "tasks/get", taskId=task_id))["status"] == "working"
        async with listening(rig, [task_id], session="usual") as listener:
            assert listener.agreed == {"taskIds": [task_id]}
            await ask(client, "tasks/cancel", taskId=task_id)
            await until_told(listener, "cancelled")


async def test_a_command_that_ends_in_time_is_answered_with_its_result(rig: Rig) -> None:
    async with rig.client() as client:
        answer = await call(client, "run_command", command="echo done")
    assert isinstance(answer, types.CallToolResult)
    assert answer.structured_content is not None
    assert answer.structured_content["state"] == "completed"


@pytest.mark.parametrize(
    "arguments",
    [
        {"wait_ms": 0},
        {"yield_time_ms": "5"},
        {"background": True},
        {"run_in_background": "true"},
        {"until": "exit", "wait_ms": 5},
        {"until": "output"},
        {"pattern": "here"},
        {"idle_ms": 10},
        {"interactive": True},
    ],
)
async def test_who_shapes_the_wait_himself_is_answered_with_the_view(
    rig: Rig, arguments: dict[str, Any]
) -> None:
    async with rig.client() as client:
        chatty = "while :; do echo here; sleep 0.2; done"
        answer = await call(client, "run_command", command=chatty, **arguments)
    assert isinstance(answer, types.CallToolResult)
    assert answer.structured_content is not None
    assert answer.structured_content.get("state") == "running", answer.structured_content


async def test_what_is_not_given_shapes_nothing(rig: Rig) -> None:
    async with rig.client() as client:
        await run(client, "sleep 600", wait_ms=None, background=False, interactive=False, pty="false")


async def test_a_client_that_does_not_declare_the_extension_sees_nothing_of_it(rig: Rig) -> None:
    async with rig.client(declares=False) as client:
        answer = await call(client, "run_command", command="sleep 600")
        assert isinstance(answer, types.CallToolResult)
        assert answer.structured_content is not None
        task_id = answer.structured_content["task_id"]
        for method in ("tasks/get", "tasks/cancel", "tasks/update"):
            error = await refused(client, method, taskId=task_id, inputResponses={})
            assert error.code == types.MISSING_REQUIRED_CLIENT_CAPABILITY
            assert error.data == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    assert (await rig.agent.poll(task_id))["state"] == "running"


async def test_the_older_era_does_not_know_the_methods(rig: Rig) -> None:
    task_id = await rig.agent.start("sleep 600")
    async with rig.client(mode="legacy") as client:
        answer = await call(client, "run_command", command="sleep 600")
        assert isinstance(answer, types.CallToolResult)
        for method in ("tasks/get", "tasks/cancel", "tasks/update", "tasks/list", "tasks/result"):
            error = await refused(client, method, taskId=task_id, inputResponses={})
            assert error.code == types.METHOD_NOT_FOUND
    assert (await rig.agent.poll(task_id))["state"] == "running"


async def test_methods_that_the_extension_no_longer_has_are_not_found(rig: Rig) -> None:
    async with rig.client() as client:
        for method in ("tasks/list", "tasks/result"):
            assert (await refused(client, method, taskId=UNKNOWN)).code == types.METHOD_NOT_FOUND


async def test_the_server_says_that_it_has_the_extension(rig: Rig) -> None:
    async with rig.client() as client:
        assert client.server_capabilities.extensions == {EXTENSION: {}}


@pytest.mark.parametrize(
    ("command", "state"),
    [("echo out; exit 0", "completed"), ("echo out; exit 3", "failed"), ("echo out; kill -9 $$", "failed")],
)
async def test_a_command_that_has_ended_is_completed_with_its_result(
    rig: Rig, command: str, state: str
) -> None:
    task_id = await rig.agent.start(command)
    async with rig.client() as client:
        task = await ended(client, task_id)
    assert (task["resultType"], task["status"]) == ("complete", "completed")
    assert task["statusMessage"].startswith(state)
    result = types.CallToolResult.model_validate(task["result"])
    assert not result.is_error
    assert result.structured_content == await rig.agent.result(task_id)
    [content] = result.content
    assert isinstance(content, types.TextContent)
    assert "out" in content.text
    assert task["lastUpdatedAt"] == result.structured_content["ended_at"]


async def test_a_pending_task_is_working_and_says_what_it_waits_for(tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state", max_running=1) as agent:
        await agent.start("sleep 600")
        task_id = await agent.start("true")
        async with Rig(agent).client() as client:
            task = await ask(client, "tasks/get", taskId=task_id)
        assert (task["status"], "result" in task) == ("working", False)
        assert "waiting for one of 1 places" in task["statusMessage"]
        await agent.end_everything()


async def test_cancelling_is_acknowledged_with_nothing_and_ends_the_command(rig: Rig) -> None:
    async with rig.client() as client:
        handle = await run(client, "sleep 600")
        assert await ask(client, "tasks/cancel", taskId=handle["taskId"]) == {"resultType": "complete"}
        task = await ended(client, handle["taskId"])
        assert (task["status"], "result" in task, "error" in task) == ("cancelled", False, False)
        assert await ask(client, "tasks/cancel", taskId=handle["taskId"]) == {"resultType": "complete"}
    assert (await rig.agent.poll(handle["taskId"]))["state"] == "cancelled"


async def test_an_update_is_acknowledged_and_changes_nothing(rig: Rig) -> None:
    async with rig.client() as client:
        handle = await run(client, "sleep 600")
        before = await rig.agent.result(handle["taskId"])
        answer = await ask(client, "tasks/update", taskId=handle["taskId"], inputResponses={"never": {}})
        assert answer == {"resultType": "complete"}
        assert (await rig.agent.result(handle["taskId"]))["history"] == before["history"]
        error = await refused(client, "tasks/update", taskId=handle["taskId"])
    assert error.code == types.INVALID_PARAMS


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "tasks/update"])
async def test_another_owners_task_is_as_unknown_as_one_that_never_was(rig: Rig, method: str) -> None:
    task_id = await rig.agent.start("sleep 600")
    async with rig.client(owner="somebody else") as client:
        theirs, never, wrong = [
            await refused(client, method, taskId=given, inputResponses={})
            for given in (task_id, UNKNOWN, "no id at all")
        ]
    assert theirs.message.replace(task_id, UNKNOWN) == never.message
    assert (theirs.code, theirs.data) == (never.code, never.data) == (wrong.code, wrong.data)
    assert theirs.code == types.INVALID_PARAMS
    assert (await rig.agent.poll(task_id))["state"] == "running"


async def test_a_share_that_only_reads_cannot_cancel(rig: Rig) -> None:
    task_id = await rig.agent.start("sleep 600")
    token = (await rig.agent.update(share="read"))["share"]["token"]
    async with rig.client(owner="somebody else") as client:
        meta = {SHARE_META_KEY: token, **declared()}
        assert (await ask(client, "tasks/get", taskId=task_id, _meta=meta))["status"] == "working"
        error = await refused(client, "tasks/cancel", taskId=task_id, _meta=meta)
        assert (error.code, error.data["code"]) == (types.INVALID_REQUEST, "policy_denied")
        error = await refused(client, "tasks/get", taskId=task_id, _meta={SHARE_META_KEY: 1, **declared()})
        assert error.code == types.INVALID_PARAMS


def declared() -> dict[str, Any]:
    return {types.CLIENT_CAPABILITIES_META_KEY: {"extensions": {EXTENSION: {}}}}


async def test_a_cancellation_is_written_into_the_journal(rig: Rig) -> None:
    async with rig.client() as client:
        handle = await run(client, "sleep 600")
        await ask(client, "tasks/cancel", taskId=handle["taskId"])

        async def noted() -> bool:
            journal = await rig.agent.service.read_journal(rig.agent.caller, ReadJournal())
            return any("cancel_task" in str(message) for message in journal["messages"])

        assert await eventually(noted, "the journal has it")


def fake_client(service: FakeService) -> Client:
    server = build_server(service.as_service(), FakeSettings(), lambda _: Identity("me"))
    return Client(server, extensions=[TaskHandles()])


UNREADABLE = StoreUnavailable("the store cannot be read", "free some space")


def broken(error: Exception, request: Any) -> dict[str, Any]:
    if isinstance(request, RunCommand):
        return VIEW
    raise error


@pytest.mark.parametrize("error", [UNREADABLE, ZeroDivisionError()])
async def test_a_task_that_cannot_be_told_as_a_handle_is_told_as_by_the_tool(error: Exception) -> None:
    async with fake_client(FakeService(answer=partial(broken, error))) as client:
        answer = await call(client, "run_command", command="sleep 600")
        assert isinstance(answer, types.CallToolResult)
        assert answer.structured_content == VIEW


async def test_a_store_that_cannot_be_read_is_told_with_its_hint() -> None:
    async with fake_client(FakeService(answer=partial(broken, UNREADABLE))) as client:
        error = await refused(client, "tasks/get", taskId=UNKNOWN)
    assert (error.code, error.message) == (types.INTERNAL_ERROR, "the store cannot be read")
    assert error.data == {"code": "store_unavailable", "hint": "free some space"}


async def test_a_defect_is_told_by_an_incident_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def defective(request: Any) -> dict[str, Any]:
        raise ZeroDivisionError("/a/path/of/ours")

    async with fake_client(FakeService(answer=defective)) as client:
        error = await refused(client, "tasks/get", taskId=UNKNOWN)
    assert error.code == types.INTERNAL_ERROR
    found = re.fullmatch(r"tasks/get failed, incident (\w+); .*", error.message)
    assert found is not None
    assert found[1] in caplog.text
    assert "/a/path" not in error.message


@dataclass
class Listener:
    """What a listening client has been told."""

    acknowledged: anyio.Event = field(default_factory=anyio.Event)
    agreed: dict[str, Any] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)

    async def acknowledge(self, message: Any) -> None:
        if isinstance(message, types.SubscriptionsAcknowledgedNotification):
            self.agreed = message.params.notifications.model_dump(by_alias=True, exclude_none=True)
            self.acknowledged.set()

    async def hear(self, params: dict[str, Any]) -> None:
        self.told.append(params)


@asynccontextmanager
async def listening(
    rig: Rig, task_ids: list[str], owner: str | None = None, session: str | None = None
) -> AsyncIterator[Listener]:
    listener = Listener()
    async with (
        rig.client(
            owner, session=session, hear=listener.hear, message_handler=listener.acknowledge
        ) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(partial(ask, client, "subscriptions/listen", notifications={"taskIds": task_ids}))
        with anyio.fail_after(10):
            await listener.acknowledged.wait()
        yield listener
        group.cancel_scope.cancel()


async def test_a_listener_hears_of_a_task_as_it_is_and_of_its_end(rig: Rig, tmp_path: Path) -> None:
    go = tmp_path / "go"
    task_id = await rig.agent.start(f"until [ -e {go} ]; do sleep 0.02; done; echo over")
    async with listening(rig, [task_id, UNKNOWN]) as listener:
        assert listener.agreed == {"taskIds": [task_id]}
        await until_told(listener, "working")
        go.touch()
        last = await until_told(listener, "completed")
    assert "over" in last["result"]["content"][0]["text"]
    async with rig.client() as client:
        asked = await ask(client, "tasks/get", taskId=task_id)
    assert last["_meta"].keys() == {"io.modelcontextprotocol/subscriptionId"}
    assert {**last, "resultType": "complete", "_meta": None} == {**asked, "_meta": None}


async def until_told(listener: Listener, status: str) -> dict[str, Any]:
    async def told() -> dict[str, Any] | None:
        return next((task for task in listener.told if task["status"] == status), None)

    found = await eventually(told, f"the listener hears of {status}")
    assert found is not None
    return found


async def test_nobody_hears_of_another_owners_task(rig: Rig) -> None:
    task_id = await rig.agent.start("sleep 600")
    async with listening(rig, [task_id], owner="somebody else") as listener:
        assert listener.agreed == {}


@pytest.mark.parametrize("wanted", ["one", [1], [UNKNOWN] * 1_001])
async def test_ids_that_are_none_are_refused(rig: Rig, wanted: Any) -> None:
    async with rig.client() as client:
        error = await refused(client, "subscriptions/listen", notifications={"taskIds": wanted})
    assert error.code == types.INVALID_PARAMS


async def test_who_does_not_declare_the_extension_cannot_listen_to_tasks(rig: Rig) -> None:
    async with rig.client(declares=False) as client:
        error = await refused(client, "subscriptions/listen", notifications={"taskIds": [UNKNOWN]})
    assert error.code == types.MISSING_REQUIRED_CLIENT_CAPABILITY
