"""How an HTTP server ends: soon, in good order, and without the commands."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx2
import pytest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_tasks.http.ending import Ending
from tests.http.server_process import answer, running_server
from tests.http.test_transports import POSTED, called, opened_session
from tests.waiting import eventually

END_SECONDS = 5.0
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_on_a_signal_the_server_ends_and_its_commands_live_on(
    tmp_path: Path, how: signal.Signals
) -> None:
    gate = tmp_path / "gate"
    command = f"until [ -e {gate} ]; do sleep 0.05; done; echo through"
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        async with server.mcp() as client:
            task_id = (await answer(client, "run_command", command=command, wait_ms=0))["task_id"]
        began = time.monotonic()
        assert server.end(how) == 0
        assert time.monotonic() - began < END_SECONDS
        gate.touch()
    with running_server(tmp_path / "state") as second:
        async with second.mcp() as client:
            view = await answer(client, "poll_task", task_id=task_id, wait_ms=10_000)
    assert (view["state"], view["stdout"]) == ("completed", "through\n")


async def test_a_signal_that_is_ignored_as_under_nohup_stays_ignored(tmp_path: Path) -> None:
    wrapper = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    with running_server(tmp_path / "state", wrapper=wrapper) as server:
        server.process.send_signal(signal.SIGHUP)
        async with server.mcp() as client:
            assert (await client.list_tools()).tools
        assert server.end() == 0


async def test_open_streams_get_their_last_byte_and_a_stopped_client_holds_nothing_up(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        headers = await opened_session(server)
        async with (
            server.http(**headers) as http,
            server.http() as other,
            http.stream("GET", "/mcp") as events,
            other.stream("GET", "/sse") as sse,
            await anyio.connect_tcp("127.0.0.1", server.port) as idle,
            await anyio.connect_tcp("127.0.0.1", server.port) as half,
        ):
            await half.send(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Le")
            server.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            # A stream that is cut, and not ended, raises here.
            assert [line async for line in events.aiter_lines()] == []
            assert any([line async for line in sse.aiter_lines()])
            for raw in (idle, half):
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await raw.receive()
            assert await server.ended() == 0
            assert time.monotonic() - began < END_SECONDS


async def test_who_listens_since_2026_is_told_that_the_end_was_meant(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        request = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "subscriptions/listen",
            "params": {"notifications": {"resourcesListChanged": True}, "_meta": META},
        }
        headers = {**POSTED, "mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}
        async with server.http(**headers) as http, http.stream("POST", "/mcp", json=request) as stream:
            lines = stream.aiter_lines()
            assert "acknowledged" in [await anext(lines), await anext(lines)][1]
            server.process.send_signal(signal.SIGTERM)
            last = [line for line in [each async for each in lines] if line.startswith("data: ")][-1]
        assert json.loads(last.removeprefix("data: "))["id"] == 1
        assert await server.ended() == 0


async def test_who_waits_for_an_answer_when_the_server_ends_is_told_to_try_again(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        request = called(1, "run_command", command="sleep 30", key="waits", wait_ms=20_000)
        request["params"]["_meta"] = META
        headers = {
            **POSTED,
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "run_command",
        }
        answers: list[httpx2.Response] = []

        async def ask() -> None:
            async with server.http(**headers) as http:
                answers.append(await http.post("/mcp", json=request))

        async with anyio.create_task_group() as group, server.mcp() as client:
            group.start_soon(ask)

            async def has_begun() -> bool:
                return bool((await answer(client, "list_tasks"))["tasks"])

            await eventually(has_begun, "the command runs")
            server.process.send_signal(signal.SIGTERM)
        assert (answers[0].status_code, answers[0].headers["retry-after"]) == (503, "1")
        assert await server.ended() == 0
    with running_server(tmp_path / "state") as second:
        async with second.mcp() as client:
            [task] = (await answer(client, "list_tasks"))["tasks"]
            assert task["state"] == "running"
            await answer(client, "cancel_task", task_id=task["task_id"])


async def test_a_server_that_is_killed_leaves_its_commands_to_the_next_one(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server:
        async with server.mcp() as client:
            task_id = (await answer(client, "run_command", command="sleep 1; echo done", wait_ms=0))[
                "task_id"
            ]
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with running_server(tmp_path / "state") as second:
        async with second.mcp() as client:
            view = await answer(client, "poll_task", task_id=task_id, wait_ms=10_000)
    assert view["stdout"] == "done\n"


# -- the layer by itself -----------------------------------------------------------------------------


@asynccontextmanager
async def asked(app: ASGIApp) -> AsyncIterator[tuple[Ending, httpx2.AsyncClient]]:
    ending = Ending(app, first=lambda: None)
    transport = httpx2.ASGITransport(ending)
    async with httpx2.AsyncClient(transport=transport, base_url="http://here") as http:
        yield ending, http


async def test_an_answer_that_is_on_its_way_is_given_and_nothing_more_is_taken() -> None:
    asked_for, may_answer = anyio.Event(), anyio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        asked_for.set()
        await may_answer.wait()
        await PlainTextResponse("here it is")(scope, receive, send)

    async with asked(slow) as (ending, http), anyio.create_task_group() as group:
        got: list[httpx2.Response] = []

        async def ask() -> None:
            got.append(await http.get("/"))

        async def end() -> None:
            await ending.end(10)
            assert got

        group.start_soon(ask)
        await asked_for.wait()
        group.start_soon(end)
        await asyncio.sleep(0)
        refused = await http.get("/")
        assert (refused.status_code, refused.json()["detail"]) == (503, "the server is ending")
        may_answer.set()
    assert got[0].text == "here it is"


async def test_a_stream_of_events_is_ended_at_once_and_a_whole_answer_let_be() -> None:
    begun, halves = [], anyio.Event()

    async def parts() -> AsyncIterator[str]:
        begun.append(True)
        yield "first"
        await halves.wait()
        yield ", second"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kind = "text/event-stream" if scope["path"] == "/events" else "text/plain"
        await StreamingResponse(parts(), media_type=kind)(scope, receive, send)

    async with asked(app) as (ending, http), anyio.create_task_group() as group:
        texts: dict[str, str] = {}

        async def ask(path: str) -> None:
            texts[path] = (await http.get(path)).text

        group.start_soon(ask, "/events")
        group.start_soon(ask, "/whole")

        async def both() -> bool:
            return len(begun) == 2

        await eventually(both, "both are being answered")
        await ending.end(0.01)
        halves.set()
    assert texts == {"/events": "first", "/whole": "first, second"}
