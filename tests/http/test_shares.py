"""The token of a share as the bearer token: one session, one role, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from mcp_tasks.library import open_remote_tasks
from tests.http.api.asking import events, given, refused, started
from tests.http.server_process import HttpServer, answer, running_server
from tests.server.native_client import TaskHandles, ask, run


class Guest(NamedTuple):
    """Who has a share of a session.

    Attributes:
        inside: A task of the session; `outside` is one of another session of the same owner.
    """

    server: HttpServer
    token: str
    share_id: str
    session: str
    inside: str
    outside: str

    def http(self, **headers: str) -> httpx2.AsyncClient:
        return self.server.http(Authorization=f"Bearer {self.token}", **headers)

    async def revoke(self) -> None:
        async with self.server.http() as owner:
            path = f"/api/sessions/{self.session}"
            given(await owner.patch(path, json={"revoke": self.share_id}))

    @asynccontextmanager
    async def mcp(self, transport: str = "http", **options: Any) -> AsyncIterator[Client]:
        if transport == "sse":
            headers = {"Authorization": f"Bearer {self.token}"}
            async with Client(sse_client(f"{self.server.base}/sse", headers=headers), **options) as client:
                yield client
            return
        async with self.http() as http:
            streams = streamable_http_client(f"{self.server.base}/mcp", http_client=http)
            async with Client(streams, **options) as client:
                yield client

    def command(self, *argv: str) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("MCP_TASKS_")}
        return subprocess.run(
            [sys.executable, "-m", "mcp_tasks", "--server", self.server.base, *argv],
            env={**env, "MCP_TASKS_TOKEN": self.token, "XDG_CONFIG_HOME": str(self.server.log.parent)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    # A session that is meant by default is not meant by those who come with a share.
    with running_server(tmp_path_factory.mktemp("shares") / "state", MCP_TASKS_SESSION="mine") as server:
        yield server


async def guest(server: HttpServer, session: str, role: str) -> Guest:
    async with server.http() as owner:
        share = given(await owner.patch(f"/api/sessions/{session}", json={"share": role}))["share"]
        inside = await started(owner, "echo inside", session=session, wait_ms=20_000)
        outside = await started(owner, "echo outside")
    return Guest(server, share["token"], share["share_id"], session, inside, outside)


@pytest.fixture
async def reader(server: HttpServer, request: pytest.FixtureRequest) -> Guest:
    return await guest(server, _session_of(request), "read")


@pytest.fixture
async def writer(server: HttpServer, request: pytest.FixtureRequest) -> Guest:
    return await guest(server, _session_of(request), "write")


def _session_of(request: pytest.FixtureRequest) -> str:
    return "".join(char if char.isalnum() else "-" for char in request.node.name)[-100:]


async def test_a_reader_sees_the_tasks_of_the_session_and_no_others(reader: Guest) -> None:
    async with reader.http() as http:
        tasks = given(await http.get("/api/tasks"))["tasks"]
        assert [task["task_id"] for task in tasks] == [reader.inside]
        assert given(await http.get(f"/api/tasks/{reader.inside}"))["stdout"] == "inside\n"
        assert (await http.get(f"/api/tasks/{reader.inside}/stdout")).content == b"inside\n"
        refused(await http.get(f"/api/tasks/{reader.outside}"), 404, "task_not_found")
        refused(await http.get(f"/api/ids/{reader.outside}x"), 404, "task_not_found")
        refused(await http.get("/api/sessions/mine"), 404, "session_not_found")
        refused(await http.get("/api/tasks?session=mine"), 404, "session_not_found")
        refused(await http.get("/api/tasks", headers={"Mcp-Tasks-Session": "mine"}), 404, "session_not_found")
        found = given(await http.get("/api/sessions"))["sessions"]
        assert [session["session"] for session in found] == [reader.session]
        given(await http.get("/api/tasks", headers={"Mcp-Tasks-Share": reader.token}))


async def test_a_reader_changes_nothing_and_a_writer_what_is_in_the_session(
    server: HttpServer, reader: Guest
) -> None:
    async with reader.http() as http:
        refused(await http.post("/api/tasks", json={"command": "true"}), 403, "policy_denied")
        refused(await http.delete(f"/api/tasks/{reader.inside}"), 403, "policy_denied")
    writer = await guest(server, reader.session, "write")
    async with writer.http() as http:
        task = given(await http.post("/api/tasks", json={"command": "echo more", "wait_ms": 20_000}), 201)
        assert (task["session"], task["stdout"]) == (writer.session, "more\n")
        refused(await http.delete(f"/api/tasks/{writer.outside}"), 404, "task_not_found")
        elsewhere = {"command": "true", "session": "mine"}
        refused(await http.post("/api/tasks", json=elsewhere), 404, "session_not_found")


async def test_what_needs_the_owner_is_refused_whatever_the_role(writer: Guest) -> None:
    session = f"/api/sessions/{writer.session}"
    async with writer.http() as http:
        for path in ("/api/server/sessions", "/api/server/projects", "/metrics"):
            refused(await http.get(path), 403, "policy_denied")
        refused(await http.delete("/api/server/projects"), 403, "policy_denied")
        refused(await http.patch(session, json={"share": "read"}), 403, "policy_denied")
        refused(await http.patch(session, json={"revoke": writer.share_id}), 403, "policy_denied")
        refused(await http.delete(session), 403, "policy_denied")
        refused(await http.post(f"{session}/end", json={"force": True}), 403, "policy_denied")


async def test_a_server_tells_who_has_come_with_a_share_where_he_is(reader: Guest) -> None:
    async with reader.http() as http:
        info = given(await http.get("/api/server"))
    told = (info["session"], info["role"], info["share"], info["operator"])
    assert told == (reader.session, "read", reader.share_id, False)


async def test_one_share_leads_nowhere_else_with_another(server: HttpServer, reader: Guest) -> None:
    other = await guest(server, f"{reader.session}-2"[-100:], "write")
    async with reader.http() as http:
        for share in (other.token, "mcptasks_share_x.y"):
            refused(await http.get("/api/tasks", headers={"Mcp-Tasks-Share": share}), 403, "policy_denied")
    async with reader.mcp() as client:
        meta: Any = {"mcp-tasks/share": other.token}
        result = await client.call_tool("list_tasks", {}, meta=meta)
        assert result.is_error
        assert result.structured_content is not None
        assert result.structured_content["code"] == "policy_denied"


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_tools_and_resources_are_those_of_the_session(writer: Guest, mode: str) -> None:
    async with writer.mcp(mode=mode) as client:
        await _works_in_its_session(client, writer)


async def test_tools_and_resources_are_those_of_the_session_over_sse(writer: Guest) -> None:
    async with writer.mcp("sse") as client:
        await _works_in_its_session(client, writer)


async def _works_in_its_session(client: Client, guest: Guest) -> None:
    listed = await client.list_resources()
    assert [str(resource.uri) for resource in listed.resources] == [f"task://{guest.inside}"]
    with pytest.raises(MCPError):
        await client.read_resource(f"task://{guest.outside}/stdout")
    assert (await answer(client, "poll_task", task_id=guest.inside))["stdout"] == "inside\n"
    started = await answer(client, "run_command", command="echo new")
    assert started["session"] == guest.session
    for arguments in ({"task_id": guest.outside}, {"task_id": guest.inside, "session": "mine"}):
        assert (await client.call_tool("poll_task", arguments)).is_error
    async with guest.server.http() as owner:
        info = given(await owner.get(f"/api/sessions/{guest.session}"))
        assert info["connections"], "he is seen by the owner as long as he is there"


async def test_native_tasks_are_those_of_the_session(server: HttpServer, writer: Guest) -> None:
    async with writer.mcp(extensions=[TaskHandles()]) as client:
        handle = await run(client, "sleep 60")
        task = await ask(client, "tasks/get", taskId=handle["taskId"])
        assert task["status"] == "working"
        with pytest.raises(MCPError):
            await ask(client, "tasks/get", taskId=writer.outside)
        await ask(client, "tasks/cancel", taskId=handle["taskId"])
    async with server.http(**{"Mcp-Tasks-Session": writer.session}) as owner:
        view = given(await owner.get(f"/api/tasks/{handle['taskId']}"))
    assert (view["session"], view["state"]) == (writer.session, "cancelled")


async def test_an_mcp_session_is_of_the_share_that_opened_it(server: HttpServer, reader: Guest) -> None:
    other = await guest(server, reader.session, "read")
    begin = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        },
    }
    every = {"Accept": "application/json, text/event-stream"}
    async with (
        reader.http(**every) as http,
        other.http(**every) as stranger,
        server.http(**every) as owner,
    ):
        began = await http.post("/mcp", json=begin)
        named = {"Mcp-Session-Id": began.headers["mcp-session-id"]}
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        assert (await http.post("/mcp", json=ping, headers=named)).status_code == 200
        for another in (stranger, owner):
            assert (await another.post("/mcp", json=ping, headers=named)).status_code == 404


async def test_a_share_that_is_over_is_refused_in_the_words_and_the_time_of_any_wrong_token(
    reader: Guest,
) -> None:
    await reader.revoke()
    wrong = (
        reader.token,
        f"{reader.token[:-1]}A",
        "mcptasks_share_e30.x",
        "mcptasks_share_",
        "mcptasks_http_and-so-on-and-so-on",
    )
    told = set()
    for token in wrong:
        async with reader.server.http(Authorization=f"Bearer {token}") as http:
            for path in ("/api/tasks", "/mcp", "/metrics"):
                began = time.monotonic()
                response = await http.get(path)
                assert time.monotonic() - began >= 0.01
                refused(response, 401, "unauthorized")
                told.add((response.text, response.headers["www-authenticate"]))
    assert len(told) == 1


async def test_live_events_name_the_session_of_the_share(reader: Guest) -> None:
    with anyio.fail_after(30):
        async with reader.http() as http, events(http, "/api/events") as stream:
            # What is counted is what is on record, which follows the end in a moment.
            async for event in stream:
                if event.event == "tasks":
                    assert event.data["session"] == reader.session
                    if event.data["counts"] == {"completed": 1}:
                        return
    pytest.fail("the stream has ended")


async def test_a_stream_ends_when_its_share_is_revoked(writer: Guest) -> None:
    with anyio.fail_after(60):
        async with writer.http(Accept="text/event-stream") as http:
            path = f"/api/tasks/{await started(http, 'sleep 600', wait_ms=0)}"
            async with events(http, f"{path}/events") as output, events(http, "/api/events") as session:
                assert (await anext(output)).event == "state"
                assert (await anext(session)).event in ("task", "tasks")
                await writer.revoke()
                assert [event.event async for event in output] in ([], ["problem"])
                assert "end" not in [event.event async for event in session]
            assert (await http.get(path)).status_code == 401
    async with writer.server.http(**{"Mcp-Tasks-Session": writer.session}) as owner:
        assert given(await owner.get(path))["state"] == "running"
        given(await owner.post(f"{path}/cancel", json={}))


async def test_the_command_line_works_on_a_server_with_a_share_for_its_token(writer: Guest) -> None:
    def at(*argv: str) -> tuple[int, str]:
        done = writer.command(*argv)
        return done.returncode, done.stdout

    assert await anyio.to_thread.run_sync(at, "logs", writer.inside) == (0, "inside\n")
    assert await anyio.to_thread.run_sync(at, "run", "--wait", "--", "echo", "here") == (0, "here\n")
    code, told = await anyio.to_thread.run_sync(at, "sessions", "show")
    assert code == 0
    assert writer.session in told
    code, _ = await anyio.to_thread.run_sync(at, "sessions", "all")
    assert code != 0
    code, told = await anyio.to_thread.run_sync(at, "doctor")
    assert f"it lets you into session {writer.session}" in told
    async with open_remote_tasks(writer.server.base, token=writer.token) as tasks:
        assert (await tasks.poll(writer.inside))["session"] == writer.session
