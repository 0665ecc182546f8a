"""Who listens to tasks hears of their ends without asking, in both protocol eras."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.subscriptions import Subscription
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourcesListChanged, ResourceUpdated

from mcp_tasks.requests import ListTasks, PollTask
from mcp_tasks.server import standing, subscriptions
from mcp_tasks.service import Caller, View
from tests.http.server_process import running_server
from tests.server.clients import Front, Heard, connect, open_front
from tests.server.test_stdio import answer, connected
from tests.service.agent import open_agent
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with open_front(tmp_path / "state") as front:
        yield front


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


async def _open(gate: Path) -> None:
    await anyio.to_thread.run_sync(gate.write_text, "")


async def _next(subscription: Subscription) -> Any:
    with anyio.fail_after(15):
        return await anext(aiter(subscription))


async def _nothing_is_looked_at(front: Front) -> None:
    async def is_so() -> bool:
        return front.agent.service.watching.looking() == 0

    await eventually(is_so, "nothing was looked at any more")


@asynccontextmanager
async def _listening(front: Front, **wanted: Any) -> AsyncIterator[tuple[Client, Subscription]]:
    async with connect(front.server, "auto") as client, client.listen(**wanted) as subscription:
        yield client, subscription


# -- 2026-07-28 ------------------------------------------------------------------------------------


async def test_the_end_of_a_task_is_pushed(front: Front, gate: Path) -> None:
    task_id = await front.agent.start(f"cat {gate}; exit 3")
    uri = f"task://{task_id}"
    async with _listening(front, resource_subscriptions=[uri]) as (client, subscription):
        assert subscription.honored.resource_subscriptions == [uri]
        await _open(gate)
        assert await _next(subscription) == ResourceUpdated(uri)
        contents = (await client.read_resource(uri)).contents
    assert isinstance(contents[0], types.TextResourceContents)
    assert '"state": "failed"' in contents[0].text
    await _nothing_is_looked_at(front)


async def test_the_end_of_another_servers_task_is_pushed(front: Front, gate: Path, tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state") as other:
        task_id = await other.start(f"cat {gate}")
    async with _listening(front, resource_subscriptions=[f"task://{task_id}"]) as (_, subscription):
        await _open(gate)
        assert await _next(subscription) == ResourceUpdated(f"task://{task_id}")


async def test_a_task_that_has_ended_before_is_told_of_at_once(front: Front) -> None:
    view = await front.agent.run("echo out")
    uris = [f"task://{view['task_id']}{part}" for part in ("", "/stdout")]
    async with _listening(front, resource_subscriptions=uris) as (_, subscription):
        assert {(await _next(subscription)).uri for _ in uris} == set(uris)


async def test_output_that_grows_is_told_of(front: Front, gate: Path) -> None:
    task_id = await front.agent.start(f"cat {gate}; echo out; cat {gate}")
    uri = f"task://{task_id}/stdout"
    async with _listening(front, resource_subscriptions=[uri]) as (client, subscription):
        await _open(gate)
        assert await _next(subscription) == ResourceUpdated(uri)
        [contents] = (await client.read_resource(uri)).contents
        assert isinstance(contents, types.TextResourceContents)
        assert contents.text == "out\n"
        await _open(gate)
        assert await _next(subscription) == ResourceUpdated(uri)
    assert (await front.agent.ended(task_id))["state"] == "completed"


async def test_a_task_that_comes_or_goes_is_told_of(front: Front, tmp_path: Path) -> None:
    async with _listening(
        front, resources_list_changed=True, tools_list_changed=True, prompts_list_changed=True
    ) as (_, subscription):
        assert subscription.honored.resources_list_changed
        async with open_agent(tmp_path / "state") as other:
            task_id = (await other.run("true"))["task_id"]
        assert await _next(subscription) == ResourcesListChanged()
        await front.agent.clear(task_id)
        assert await _next(subscription) == ResourcesListChanged()


async def test_what_is_written_before_the_subscriber_is_answered_is_told_of(
    front: Front, gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await front.agent.start(f"cat {gate}; echo out; cat {gate}")
    uri = f"task://{task_id}/stdout"
    look = front.agent.service.poll_task

    async def look_too_early(caller: Caller, request: PollTask) -> View:
        view = await look(caller, request)
        monkeypatch.undo()
        await _open(gate)
        await front.agent.poll(task_id, until="output", cursor="1-0-0", wait_ms=10_000)
        return view

    monkeypatch.setattr(front.agent.service, "poll_task", look_too_early)
    async with _listening(front, resource_subscriptions=[uri]) as (_, subscription):
        assert await _next(subscription) == ResourceUpdated(uri)
        await _open(gate)
        assert await _next(subscription) == ResourceUpdated(uri)


async def test_what_cannot_be_heard_of_is_left_out_of_the_acknowledgement(
    front: Front, tmp_path: Path
) -> None:
    foreign = await front.agent.of("default", owner="somebody else").run("true")
    own = await front.agent.run("true")
    uris = [
        "task://" + "0" * 36,
        f"task://{foreign['task_id']}",
        "file:///etc/passwd",
        f"task://{own['task_id']}",
    ]
    async with _listening(front, resource_subscriptions=uris) as (_, subscription):
        assert subscription.honored.resource_subscriptions == uris[3:]
        assert subscription.honored.tools_list_changed is None


async def test_streams_are_ended_in_good_order(front: Front) -> None:
    task_id = await front.agent.start("sleep 60")
    async with _listening(front, resource_subscriptions=[f"task://{task_id}"]) as (_, subscription):
        front.server.subscriptions.end()
        with anyio.fail_after(15):
            assert [event async for event in subscription] == []
    await _nothing_is_looked_at(front)


async def test_a_stream_ends_when_its_listener_may_see_it_no_more(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = await front.agent.start("sleep 60")
    shared = await front.agent.update(share="read")
    guest = front.agent.with_share(shared["share"]["token"]).caller
    caplog.set_level("INFO", "mcp_tasks")
    monkeypatch.setattr(front.server.subscriptions._callers, "caller", lambda *_: guest)
    async with _listening(front, resource_subscriptions=[f"task://{task_id}"]) as (_, subscription):
        await front.agent.update(revoke=shared["share"]["share_id"])
        await front.agent.cancel(task_id, grace_ms=0)
        with anyio.fail_after(15):
            assert [event async for event in subscription] == []
    [told] = [each.getMessage() for each in caplog.records if "a subscription ends" in each.getMessage()]
    assert told.startswith("a subscription ends: session_not_found")


async def test_there_is_a_limit_to_streams_and_to_their_resources(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "_MOST_OF_ONE", 2)
    async with connect(front.server, "auto") as client:
        with pytest.raises(MCPError) as many:
            async with client.listen(resource_subscriptions=[f"task://{number}" for number in range(1_001)]):
                pass
        assert many.value.code == types.INVALID_PARAMS
        async with AsyncExitStack() as streams:
            for _ in range(2):
                await streams.enter_async_context(client.listen(resources_list_changed=True))
            with pytest.raises(MCPError) as caught:
                await streams.enter_async_context(client.listen(resources_list_changed=True))
            assert caught.value.code == types.INTERNAL_ERROR

        async def again() -> bool:
            return not front.server.subscriptions._open

        await eventually(again, "the streams were given back")
        async with client.listen(resources_list_changed=True):
            pass


# -- 2025-11-25 ------------------------------------------------------------------------------------


async def _subscribe(client: Client, uri: str) -> None:
    await client.session.send_request(
        types.SubscribeRequest(params=types.SubscribeRequestParams(uri=uri)), types.EmptyResult
    )


async def _unsubscribe(client: Client, uri: str) -> None:
    await client.session.send_request(
        types.UnsubscribeRequest(params=types.UnsubscribeRequestParams(uri=uri)), types.EmptyResult
    )


async def test_a_subscriber_of_the_older_era_hears_of_the_end(front: Front, gate: Path) -> None:
    task_id = await front.agent.start(f"cat {gate}")
    heard = Heard()
    async with connect(front.server, "legacy", heard) as client:
        assert client.server_capabilities.resources is not None
        assert client.server_capabilities.resources.subscribe
        for _ in range(2):
            await _subscribe(client, f"task://{task_id}")
        await _open(gate)
        await heard.more()
        assert heard.updated == [f"task://{task_id}"]
        await _nothing_is_looked_at(front)


async def test_who_unsubscribes_or_goes_hears_no_more(front: Front) -> None:
    task_ids = [await front.agent.start("sleep 60") for _ in range(2)]
    heard = Heard()
    async with connect(front.server, "legacy", heard) as client:
        for task_id in task_ids:
            await _subscribe(client, f"task://{task_id}")
        await eventually(lambda: _looking(front, 2), "both were looked at")
        await _unsubscribe(client, f"task://{task_ids[0]}")
        await _unsubscribe(client, "task://unknown")
        await eventually(lambda: _looking(front, 1), "one was looked at")
        await front.agent.cancel(task_ids[0], grace_ms=0)
    await _nothing_is_looked_at(front)
    assert heard.updated == []


async def _looking(front: Front, number: int) -> bool:
    return front.agent.service.watching.looking() == number


async def test_who_has_asked_for_the_list_hears_when_it_changes(front: Front) -> None:
    heard = Heard()
    async with connect(front.server, "legacy", heard) as client:
        assert client.server_capabilities.resources is not None
        assert client.server_capabilities.resources.list_changed
        await front.agent.run("true")
        assert front.agent.service.watching.looking() == 0
        for _ in range(2):
            await client.list_resources()
        await front.agent.run("true")
        await heard.more()
        assert heard.lists == 1
    await _nothing_is_looked_at(front)


async def test_a_task_that_comes_while_the_list_is_read_is_told_of(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, read = Heard(), front.agent.service.list_tasks

    async def read_too_early(caller: Caller, request: ListTasks) -> View:
        page = await read(caller, request)
        await front.agent.run("true")
        return page

    async with connect(front.server, "legacy", heard) as client:
        monkeypatch.setattr(front.agent.service, "list_tasks", read_too_early)
        assert (await client.list_resources()).resources == []
        if not heard.lists:
            await heard.more()
    assert heard.lists == 1


async def test_an_unknown_resource_and_one_too_many_are_refused(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "_MOST_OF_ONE", 1)
    foreign = await front.agent.of("default", owner="somebody else").run("true")
    task_ids = [await front.agent.start("sleep 60") for _ in range(2)]
    async with connect(front.server, "legacy") as client:
        for uri in ("file:///etc/passwd", "task://" + "0" * 36, f"task://{foreign['task_id']}"):
            with pytest.raises(MCPError) as caught:
                await _subscribe(client, uri)
            assert caught.value.code == types.INVALID_PARAMS
        await _subscribe(client, f"task://{task_ids[0]}")
        with pytest.raises(MCPError) as caught:
            await _subscribe(client, f"task://{task_ids[1]}")
        assert caught.value.code == types.INTERNAL_ERROR
        assert (await client.list_resources()).resources  # without being told of changes to it
        await _unsubscribe(client, f"task://{task_ids[0]}")

        async def again() -> bool:
            try:
                await _subscribe(client, f"task://{task_ids[1]}")
            except MCPError:
                return False
            return True

        await eventually(again, "there was room again")


async def test_a_subscription_ends_with_the_right_to_it(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = await front.agent.start("sleep 60")
    shared = await front.agent.update(share="read")
    guest = front.agent.with_share(shared["share"]["token"]).caller
    heard = Heard()
    caplog.set_level("INFO", "mcp_tasks")
    async with connect(front.server, "legacy", heard) as client:
        monkeypatch.setattr("mcp_tasks.server.callers.Callers.caller", lambda *_: guest)
        await _subscribe(client, f"task://{task_id}")
        await front.agent.update(revoke=shared["share"]["share_id"])
        await front.agent.cancel(task_id, grace_ms=0)
        await _nothing_is_looked_at(front)

        async def told() -> bool:
            return "a subscription ends: session_not_found" in caplog.text

        await eventually(told, "the log says why")
    assert heard.updated == []


# -- as a process ----------------------------------------------------------------------------------


async def test_a_listener_on_stdio_hears_of_the_end_and_can_leave_at_once(tmp_path: Path, gate: Path) -> None:
    async with connected(tmp_path / "state", "auto") as client:
        task = await answer(client, "run_command", command=f"cat {gate}", wait_ms=0)
        uri = f"task://{task['task_id']}"
        async with client.listen(resource_subscriptions=[uri]) as subscription:
            await _open(gate)
            assert await _next(subscription) == ResourceUpdated(uri)


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_subscriber_of_the_older_era_hears_of_the_end_over_http(
    tmp_path: Path, gate: Path, transport: str
) -> None:
    heard = Heard()
    with running_server(tmp_path / "state", transport=transport) as server, anyio.fail_after(60):
        async with server.mcp("legacy", transport, message_handler=heard.take) as client:
            task = await answer(client, "run_command", command=f"cat {gate}", wait_ms=0)
            await _subscribe(client, f"task://{task['task_id']}")
            await _open(gate)
            await heard.more()
    assert heard.updated == [f"task://{task['task_id']}"]


async def test_a_listener_over_http_hears_of_the_end(tmp_path: Path, gate: Path) -> None:
    with running_server(tmp_path / "state") as server:
        async with server.mcp() as client:
            task = await answer(client, "run_command", command=f"cat {gate}", wait_ms=0)
            uri = f"task://{task['task_id']}"
            async with client.listen(resource_subscriptions=[uri]) as subscription:
                await _open(gate)
                assert await _next(subscription) == ResourceUpdated(uri)
