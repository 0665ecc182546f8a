"""Server-sent events: the output of a task as it comes, and what becomes of the tasks of a session."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import httpx2

from mcp_tasks.app import open_service
from mcp_tasks.http.api.watched import SessionWatch
from mcp_tasks.requests import ClearTask, RunCommand
from mcp_tasks.service import Caller
from mcp_tasks.settings import Settings
from tests.http.api.asking import Event, events, given, refused, started
from tests.http.server_process import running_server


async def test_output_and_state_come_live_and_the_stream_ends(api: httpx2.AsyncClient) -> None:
    task_id = await started(api, "cat; echo over >&2", interactive=True, wait_ms=0)
    path = f"/api/tasks/{task_id}"
    with anyio.fail_after(30):
        async with events(api, f"{path}/events") as stream:
            first = await anext(stream)
            assert (first.event, first.data["state"]) == ("state", "running")
            for text in ("one", "two ä"):
                given(await api.post(f"{path}/input", json={"text": text, "enter": True, "wait_ms": 0}))
                heard = await anext(stream)
                assert (heard.event, heard.data["text"]) == ("stdout", f"{text}\n")
            given(await api.post(f"{path}/input", json={"eof": True}))
            rest = [event async for event in stream]
    assert [event.event for event in rest] == ["stderr", "state", "end"]
    assert rest[0].data == {"run": 1, "offset": 0, "end": 5, "text": "over\n"}
    assert rest[1].data["state"] == "completed"
    for told in (first, rest[1]):
        assert told.data.keys().isdisjoint({"next", "more", "next_cursor"}), "there is nothing to ask on for"


async def test_a_stream_goes_on_from_the_last_event_that_was_had(api: httpx2.AsyncClient) -> None:
    task_id = await started(api, "printf 'a\\377b'; printf '\\303' >&2")
    path = f"/api/tasks/{task_id}/events"
    async with events(api, path) as stream:
        whole = [event async for event in stream]
    assert [event.data["text"] for event in whole if "text" in event.data] == ["a\\xffb", "\\xc3"]
    had = next(event for event in whole if event.event == "stdout")
    async with events(api, path, **{"Last-Event-ID": had.id or ""}) as stream:
        again = [event async for event in stream]
    assert [event.event for event in again] == ["stderr", "state", "end"]
    over = await api.get(path, headers={"Last-Event-ID": again[-1].id or ""})
    assert over.status_code == 204
    async with events(api, f"{path}?stdout=1&encoding=base64") as stream:
        exact = [event async for event in stream]
    assert _bytes(exact, "stdout") == b"\xffb"
    assert _bytes(exact, "stderr") == b"\xc3"


async def test_large_output_arrives_byte_for_byte(api: httpx2.AsyncClient) -> None:
    task_id = await started(api, "seq 200000", wait_ms=0)
    async with events(api, f"/api/tasks/{task_id}/events?encoding=base64") as stream:
        heard = [event async for event in stream]
    assert _bytes(heard, "stdout") == "".join(f"{number}\n" for number in range(1, 200_001)).encode()
    async with events(api, f"/api/tasks/{task_id}/events") as stream:
        texts = [event.data["text"] async for event in stream if event.event == "stdout"]
    assert "".join(texts).encode() == _bytes(heard, "stdout")


async def test_no_character_is_cut_in_two(api: httpx2.AsyncClient) -> None:
    task_id = await started(api, "printf x; yes 'äöü' | head -c 400000")
    async with events(api, f"/api/tasks/{task_id}/events") as stream:
        heard = [event async for event in stream if event.event == "stdout"]
    assert len(heard) > 1
    assert all("\\x" not in event.data["text"] for event in heard[:-1])
    assert all(after.data["offset"] == before.data["end"] for before, after in pairwise(heard))


async def test_each_run_of_a_task_is_told_from_its_first_byte(api: httpx2.AsyncClient) -> None:
    task_id = await started(api, "echo try; exit 1", retries=1, delay_ms=0, wait_ms=0)
    async with events(api, f"/api/tasks/{task_id}/events") as stream:
        heard = [event async for event in stream]
    told = [(event.data["run"], event.data["text"]) for event in heard if event.event == "stdout"]
    assert told == [(1, "try\n"), (2, "try\n")]


async def test_what_cannot_be_followed_is_refused_before_the_stream_begins(api: httpx2.AsyncClient) -> None:
    refused(await api.get("/api/tasks/none/events"), 404, "task_not_found")
    task_id = await started(api, "true")
    path = f"/api/tasks/{task_id}/events"
    refused(await api.get(path, headers={"Last-Event-ID": "x"}), 400, "invalid_argument")
    both = await api.get(f"{path}?stdout=1", headers={"Last-Event-ID": "1-1-0"})
    refused(both, 400, "invalid_argument")
    refused(await api.get("/api/events", headers={"Last-Event-ID": "x"}), 400, "invalid_argument")
    assert (await api.head(path)).headers["content-type"].startswith("text/event-stream")


async def test_a_session_s_tasks_are_told_of_as_they_come_and_end(api: httpx2.AsyncClient) -> None:
    old = await started(api, "true")
    running = await started(api, "sleep 60", wait_ms=0)
    told: list[Event] = []
    with anyio.fail_after(30):
        async with events(api, "/api/events") as stream:
            while {event.event for event in told} != {"task", "tasks"}:
                told.append(await anext(stream))
            quick = await started(api, "true")
            given(await api.post(f"/api/tasks/{running}/cancel"))
            while not {(running, "cancelled"), (quick, "completed")} <= _states(told):
                told.append(await anext(stream))
    assert (running, "running") in _states(told)
    assert old not in {task_id for task_id, _ in _states(told)}
    last = next(event.id for event in told if event.id is not None)
    with anyio.fail_after(30):
        async with events(api, "/api/events", **{"Last-Event-ID": last}) as stream:
            missed: list[Event] = []
            while not {(running, "cancelled"), (quick, "completed")} <= _states(missed):
                missed.append(await anext(stream))


async def test_a_task_that_is_removed_ends_its_stream_with_a_problem_or_an_end(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        async with server.http() as api:
            task_id = await started(api, "sleep 60", wait_ms=0)
            async with events(api, f"/api/tasks/{task_id}/events") as stream:
                await anext(stream)
                given(await api.delete(f"/api/tasks/{task_id}?cancel=true"))
                heard = [event async for event in stream]
    assert heard[-1].event in {"end", "problem"}
    assert "Traceback" not in server.log.read_text()


async def test_a_task_that_is_removed_ends_no_stream_of_its_session(tmp_path: Path) -> None:
    caller = Caller("anna", "default", named=True)
    async with open_service(Settings(dir=tmp_path / "state"), warm=False) as service:
        old = await service.run_command(caller, RunCommand(command="true", wait_ms=20_000))
        new = await service.run_command(caller, RunCommand(command="sleep 60", wait_ms=0))
        told: list[str] = []

        async def tell(event: str, data: Mapping[str, Any], _: str | None) -> None:
            if event == "task" and not told:
                # The other is removed between being listed and being watched.
                await service.clear_task(caller, ClearTask(task_id=new["task_id"], cancel=True))
            told.append(data["task_id"] if event == "task" else event)
            if event == "tasks" and data["counts"] == {"completed": 1}:
                group.cancel_scope.cancel()

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                watch = SessionWatch(service, caller, "2000-01-01T00:00:00.000Z")
                group.start_soon(watch.tell, tell)
    assert told[0] == old["task_id"]
    assert set(told[1:]) == {"tasks"}


async def test_a_client_that_goes_away_leaves_nothing_in_the_log(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        async with server.http() as api:
            task_id = await started(api, "yes", wait_ms=0)
            for path in (f"/api/tasks/{task_id}/events", "/api/events", f"/api/tasks/{task_id}/stdout"):
                async with api.stream("GET", path) as response:
                    await anext(response.aiter_bytes())
            given(await api.post(f"/api/tasks/{task_id}/cancel"))
        assert server.end() == 0
    assert "Traceback" not in server.log.read_text()


async def test_streams_end_when_the_server_does(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        async with server.http() as api:
            task_id = await started(api, "sleep 60", wait_ms=0)
            async with events(api, f"/api/tasks/{task_id}/events") as stream:
                await anext(stream)
                server.process.terminate()
                try:
                    async for _ in stream:
                        pass
                except httpx2.RemoteProtocolError:
                    pass  # cut, which tells as well that there is more to come
                assert await server.ended() == 0
        with running_server(tmp_path / "state") as again:
            async with again.http() as api:
                given(await api.post(f"/api/tasks/{task_id}/cancel"))


def _bytes(heard: list[Event], stream: str) -> bytes:
    return b"".join(base64.b64decode(event.data["data"]) for event in heard if event.event == stream)


def _states(told: list[Event]) -> set[tuple[str, str]]:
    return {(event.data["task_id"], event.data["state"]) for event in told if event.event == "task"}
