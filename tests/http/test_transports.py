"""MCP over HTTP with the SDK's client: both transports, both eras, and connections that break."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from tests.http.server_process import TOKEN, HttpServer, answer, running_server
from tests.waiting import eventually

CHANNELS = [("auto", "http"), ("legacy", "http"), ("legacy", "sse"), ("auto", "sse")]
POSTED = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "by hand", "version": "1"},
    },
}


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    """A server for tests that leave nothing in it."""
    with running_server(tmp_path_factory.mktemp("one") / "state") as server:
        yield server


async def opened_session(server: HttpServer) -> dict[str, str]:
    """The headers of a client of 2025-11-25 that has said hello."""
    async with server.http(**POSTED) as http:
        hello = await http.post("/mcp", json=INITIALIZE)
    return {
        **POSTED,
        "mcp-session-id": hello.headers["mcp-session-id"],
        "mcp-protocol-version": "2025-11-25",
    }


def called(number: int, tool: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


async def test_each_transport_in_each_era_reaches_the_same_tasks(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        ids = []
        for mode, transport in CHANNELS:
            async with server.mcp(mode, transport) as client:
                view = await answer(client, "run_command", command=f"echo {mode}", wait_ms=10_000)
                assert (view["state"], view["stdout"]) == ("completed", f"{mode}\n")
                ids.append(view["task_id"])
        async with server.mcp() as client:
            listed = await answer(client, "list_tasks")
    assert [view["task_id"] for view in listed["tasks"]] == ids[::-1]


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_the_line_that_the_server_prints_says_where_to_connect(tmp_path: Path, transport: str) -> None:
    with running_server(tmp_path / "state", transport=transport) as server:
        assert server.where == f"http://127.0.0.1:{server.port}/{'mcp' if transport == 'http' else 'sse'}"
        async with server.mcp("legacy", transport) as client:
            assert (await client.list_tools()).tools


async def test_it_listens_at_an_ipv6_address(tmp_path: Path) -> None:
    with running_server(tmp_path / "state", "--host", "::1") as server:
        assert server.where == f"http://[::1]:{server.port}/mcp"
        async with server.mcp() as client:
            assert (await client.list_tools()).tools


async def test_a_socket_file_is_for_its_user_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with running_server(tmp_path / "state", "--uds", str(path)) as server:
        assert server.where == f"unix:{path}"
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
        async with server.mcp() as client:
            assert (await answer(client, "run_command", command="true"))["task_id"]
        second = running_server(tmp_path / "state", "--uds", str(path))
        with pytest.raises(AssertionError, match="somebody listens at"), second:
            pass
        server.process.kill()
        server.process.wait()
        assert path.exists()
        with running_server(tmp_path / "state", "--uds", str(path)) as third:
            # Not as a client of 2025-11-25: it cancels a read when it leaves, which anyio does not always
            # bear on a socket file (InvalidStateError in the client's event loop).
            async with third.mcp() as client:
                assert len((await answer(client, "list_tasks"))["tasks"]) == 1
    assert not path.exists()


async def test_an_address_that_is_taken_is_refused_in_words(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server:
        second = running_server(tmp_path / "other", "--port", str(server.port))
        with pytest.raises(AssertionError, match=f"port {server.port} cannot be listened at"), second:
            pass


@pytest.mark.parametrize(("mode", "transport"), CHANNELS)
async def test_a_client_that_goes_in_the_middle_of_a_call_cancels_no_task(
    tmp_path: Path, mode: str, transport: str
) -> None:
    gate = tmp_path / "gate"
    command = f"until [ -e {gate} ]; do sleep 0.05; done; echo through"
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        async with server.mcp(mode, transport) as client:
            with anyio.move_on_after(0.5):
                await client.call_tool("run_command", {"command": command, "key": "k", "wait_ms": 20_000})
        gate.touch()
        async with server.mcp() as client:
            view = await answer(client, "run_command", command=command, key="k", wait_ms=20_000)
    assert view["reused"]
    assert (view["state"], view["stdout"]) == ("completed", "through\n")


@pytest.mark.parametrize("path", ["/mcp", "/messages/?session_id=none", "/api/v1/tasks", "/api/tasks"])
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
async def test_a_client_that_goes_in_the_middle_of_its_request_is_no_error(
    one_server: HttpServer, path: str, version: str
) -> None:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n"
        f"Accept: */*\r\nContent-Type: application/json\r\nMCP-Protocol-Version: {version}\r\n\r\n"
    )
    async with await anyio.connect_tcp("127.0.0.1", one_server.port) as raw:
        await raw.send(head.encode() + b'{"half": ')
    async with one_server.mcp() as client:
        assert (await client.list_tools()).tools
    assert "Traceback" not in one_server.log.read_text()


async def test_an_answer_that_a_broken_connection_lost_is_sent_again(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = f"until [ -e {gate} ]; do sleep 0.05; done; echo through"
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        sessions = [await opened_session(server) for _ in range(2)]
        last_events = []
        for number, headers in enumerate(sessions):
            # Both use the id 1: what is kept of one is not what is kept of the other.
            request = called(1, "run_command", command=f"{command} {number}", wait_ms=20_000)
            async with server.http(**headers) as http, http.stream("POST", "/mcp", json=request) as cut:
                async for line in cut.aiter_lines():
                    if line.startswith("id: "):
                        last_events.append(line.removeprefix("id: "))
                        break
        resumed = {**sessions[0], "last-event-id": last_events[0]}
        async with server.http(**resumed) as http, http.stream("GET", "/mcp") as early:
            gate.touch()
            assert "through 0\\n" in "".join([line async for line in early.aiter_lines()])
        async with server.http(**sessions[1], **{"last-event-id": last_events[1]}) as http:
            late = await http.get("/mcp")
            assert "through 1\\n" in late.text
            others = await http.get("/mcp", headers={"last-event-id": last_events[0]})
            assert "through" not in others.text


async def test_a_stream_that_somebody_came_back_to_ends_with_its_session(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        headers = await opened_session(server)
        request = called(1, "run_command", command="sleep 60", wait_ms=25_000)
        async with server.http(**headers) as http:
            async with http.stream("POST", "/mcp", json=request) as cut:
                last_event = await anext(line async for line in cut.aiter_lines() if line.startswith("id: "))

            async def registered() -> bool:
                return bool((await http.get("/api/tasks")).json()["tasks"])

            await eventually(registered, "the command has been started", 20)
            resumed = {"last-event-id": last_event.removeprefix("id: ")}
            async with http.stream("GET", "/mcp", headers=resumed) as events:
                assert (await http.delete("/mcp")).status_code == 200
                with anyio.fail_after(10):  # less than the wait of the call
                    assert [line async for line in events.aiter_lines() if line.startswith("data")] == []
            assert (await http.get("/mcp")).status_code == 404
        async with server.mcp() as client:
            [task] = (await answer(client, "list_tasks"))["tasks"]
            assert task["state"] == "running"
            await answer(client, "cancel_task", task_id=task["task_id"])


async def test_over_sse_who_does_not_read_the_answers_may_not_ask_for_ever_more(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        async with server.mcp() as client:
            await answer(client, "run_command", command="seq 50000", wait_ms=10_000, key="long")
        async with server.http() as http, server.http() as stream, stream.stream("GET", "/sse") as events:
            lines = events.aiter_lines()
            await anext(lines)
            where = (await anext(lines)).removeprefix("data: ")
            assert (await http.post(where, json=INITIALIZE)).status_code == 202
            for _ in range(3):  # the answer, and what stands around it
                await anext(lines)
            asked = 0

            async def is_refused() -> httpx2.Response | None:
                nonlocal asked
                asked += 1
                request = called(asked, "run_command", command="seq 50000", key="long", max_bytes=262_144)
                answered = await http.post(where, json=request)
                return None if answered.status_code == 202 else answered

            refused = await eventually(is_refused, "it is too much", 30)
            assert refused is not None
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")

            async def is_taken() -> bool:
                for _ in range(20):
                    await anext(lines)
                return await is_refused() is None

            await eventually(is_taken, "reading helps", 30)


async def test_clients_over_http_are_among_the_connections_of_their_session(tmp_path: Path) -> None:
    with running_server(tmp_path / "state", "--tools", "full") as server, anyio.fail_after(60):
        async with server.mcp("legacy", "sse") as sse, server.mcp() as client:
            for _ in range(3):
                await answer(sse, "run_command", command="true")
                await answer(client, "run_command", command="true")

            async def both() -> list[dict[str, Any]]:
                found: list[dict[str, Any]] = (await answer(client, "session_info"))["connections"]
                return found if len(found) == 2 else []

            open_ones = await eventually(both, "both clients are told")
            assert {each["transport"] for each in open_ones} == {"http", "sse"}
            assert not any(each.get("ended_at") for each in open_ones)
        server.end()
    with running_server(tmp_path / "state", "--tools", "full") as server:
        async with server.mcp() as client:
            closed = (await answer(client, "session_info"))["connections"]
    assert [each["ended"] for each in closed if "ended" in each] == ["closed", "closed"]


async def test_health_is_told_to_anybody_and_says_nothing_else(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server:
        async with server.http(Authorization="") as http:
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/mcp")).status_code == 401
    assert TOKEN not in server.log.read_text()
