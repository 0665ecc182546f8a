from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio.lowlevel
import pytest
from pydantic import SecretStr

from mcp_tasks.errors import PlanNotFound, StoreUnavailable, TaskNotFinished
from mcp_tasks.output import Cursor
from mcp_tasks.remote import RemoteService, open_remote
from mcp_tasks.remote.attempts import Answer
from mcp_tasks.remote.exporting import export_pieces
from mcp_tasks.remote.output import RemoteOutput
from mcp_tasks.remote.waits import polled
from mcp_tasks.requests import (
    CancelTask,
    EndSession,
    ListTasks,
    PlanProgress,
    PlanStep,
    PollTask,
    RunCommand,
    RunPlan,
    WaitTasks,
)
from mcp_tasks.service import Caller
from tests.http.server_process import TOKEN, HttpServer

ME = Caller("me", "default", named=False, max_wait_ms=3_600_000)
LONGER_MS = 1_200
"""Than the server waits in one go, four times."""


@asynccontextmanager
async def remote(server: HttpServer) -> AsyncIterator[RemoteService]:
    async with open_remote(server.where, token=SecretStr(TOKEN), tell=pytest.fail) as service:
        yield service
        active = await service.list_tasks(ME, ListTasks(state="active"))
        if ids := tuple(task["task_id"] for task in active["tasks"]):
            await service.cancel_task(ME, CancelTask(task_ids=ids, grace_ms=100))


async def started(service: RemoteService, command: str, **options: Any) -> str:
    view = await service.run_command(ME, RunCommand(command=command, wait_ms=0, **options))
    return str(view["task_id"])


async def test_every_wait_is_as_long_as_it_was_meant_however_short_the_server_s_are(
    server: HttpServer,
) -> None:
    async with remote(server) as service:
        task = await started(service, "echo ready; sleep 60")
        polls: list[tuple[dict[str, Any], str]] = [
            ({"wait_ms": LONGER_MS}, "deadline"),
            ({"wait_ms": 30_000, "pattern": "rea.y"}, "matched"),
            ({"wait_ms": LONGER_MS, "until": "output"}, "deadline"),
            ({"wait_ms": 30_000, "idle_ms": 700}, "idle"),
            ({}, "none"),
        ]
        for options, result in polls:
            view = await service.poll_task(ME, PollTask(task_id=task, **options))
            assert view["wait_result"] == result, options
            assert "max_wait_ms" not in view
            if result == "deadline":
                assert view["waited_ms"] >= LONGER_MS
        waited = await service.wait_tasks(ME, WaitTasks(task_ids=(task,), wait_ms=LONGER_MS))
        assert (waited["wait_result"], waited["open"]) == ("deadline", [task])
        plan = await service.run_plan(
            ME, RunPlan(commands=(PlanStep(command="sleep 0.8"), PlanStep(command="true")), wait_ms=0)
        )
        assert "reused" not in plan
        over = await service.plan_progress(ME, PlanProgress(wait_ms=30_000))
        assert (over["plan_id"], over["state"]) == (plan["plan_id"], "completed")
        with pytest.raises(TaskNotFinished):
            await service.end_session(ME, EndSession(wait_ms=LONGER_MS))
        ended = await service.end_session(ME, EndSession(wait_ms=30_000, force=True))
        assert ended["state"] == "closed"


async def test_what_is_silent_for_less_than_was_asked_for_is_not_idle(server: HttpServer) -> None:
    async with remote(server) as service:
        task = await started(service, "for i in 1 2 3 4 5; do echo $i; sleep 0.4; done")
        view = await service.poll_task(ME, PollTask(task_id=task, wait_ms=30_000, idle_ms=5_000))
        assert (view["wait_result"], view["state"]) == ("exited", "completed")

        async def never(request: PollTask) -> dict[str, Any]:
            return await service.poll_task(replace(ME, max_wait_ms=0), request)

        # Nothing is left of the time when it begins, so the answer is a look.
        assert (await polled(never, PollTask(task_id=task, idle_ms=1), 0))["wait_result"] == "exited"


async def test_an_end_that_takes_longer_than_the_server_s_patience_is_waited_for(server: HttpServer) -> None:
    async with remote(server) as service:
        task = await started(service, "trap '' TERM; echo ready; while :; do sleep 0.1; done")
        await service.poll_task(ME, PollTask(task_id=task, pattern="ready", wait_ms=20_000))
        view = await service.cancel_task(ME, CancelTask(task_id=task, grace_ms=LONGER_MS))
        assert view["state"] == "cancelled"


async def test_the_output_of_an_earlier_run_is_read_by_page(server: HttpServer) -> None:
    async with remote(server) as service:
        task = await started(service, "echo run; head -c 300000 /dev/zero; exit 1", retries=1)
        await service.poll_task(ME, PollTask(task_id=task, wait_ms=30_000))
        first = await service.captured(ME, task, 1)
        start, data = await first.read("stdout", 0, 1 << 20)
        rest = await first.read("stdout", len(data), 1 << 20)
        assert (start, data[:4]) == (0, b"run\n")
        assert (rest[0], len(data) + len(rest[1])) == (len(data), 300_004)
        assert await first.read("stdout", 300_004, 10) == (300_004, b"")
        assert await (await service.captured(ME, task, 2)).read("stderr", 0, 10) == (0, b"")
        assert await service.reached(ME, task, Cursor(1)) == (Cursor(2, 300_004, 0), True)


async def test_a_part_of_the_output_that_is_gone_is_passed_over(server: HttpServer) -> None:
    async with remote(server) as service:
        task = await started(
            service,
            "head -c 3000000 /dev/zero; echo end",
            max_output_bytes=1_000_000,
            on_output_limit="keep_tail",
        )
        await service.poll_task(ME, PollTask(task_id=task, wait_ms=30_000))
        output = await service.captured(ME, task, 1)
        at, pieces = 0, []
        while (piece := await output.read("stdout", at, 1 << 20))[1]:
            pieces.append(piece)
            at = piece[0] + len(piece[1])
        assert at == 3_000_004
        assert pieces[-1][1].endswith(b"end\n")
        assert any(start > 0 and len(data) < start for start, data in pieces)


@pytest.mark.parametrize(
    "ranged",
    [
        Answer(200, {"mcp-tasks-run": "1"}, b""),
        Answer(206, {"mcp-tasks-run": "1", "content-range": "bytes 0-9/10"}, b""),
        Answer(416, {"mcp-tasks-run": "1", "content-range": "nonsense"}, b""),
    ],
)
async def test_output_is_read_by_page_where_ranges_do_not_come_through(ranged: Answer) -> None:
    async def read_range(stream: str, start: int, limit: int) -> Answer:
        return ranged

    async def read_page(stream: str, cursor: Cursor, limit: int) -> dict[str, Any]:
        return {"run": 1, "shown": {"stdout": [cursor.stdout, 10]}, "stdout": "d2VsbA=="}

    output = RemoteOutput(1, read_range, read_page)
    assert await output.read("stdout", 6, 100) == (6, b"well")


async def test_where_there_is_no_plan_none_is_found(server: HttpServer) -> None:
    async with remote(server) as service:
        with pytest.raises(PlanNotFound):
            await service.plan_progress(ME, PlanProgress())
        for prefix in ("", "01zzz", "a/b"):
            with pytest.raises(PlanNotFound):
                await service.resolve_plan_prefix(ME, prefix)
        plan = await service.run_plan(
            ME, RunPlan(commands=(PlanStep(command="true"),), key="mine", wait_ms=0)
        )
        assert await service.resolve_plan_prefix(ME, plan["plan_id"]) == plan["plan_id"]
        assert await service.resolve_plan_prefix(ME, plan["plan_id"][:30]) == plan["plan_id"]


async def test_an_export_of_two_makings_is_begun_again() -> None:
    texts = ["old " * 10, "newer " * 10]
    asked: list[int] = []

    async def page(offset: int) -> dict[str, Any]:
        asked.append(offset)
        text = texts[0] if len(asked) < 3 else texts[1]
        part = text[offset : offset + 16]
        more = {"next_offset": offset + 16} if offset + 16 < len(text) else {}
        return {"text": part, "offset": offset, "total_bytes": len(text), **more}

    assert "".join([piece async for piece in export_pieces(page)]) == texts[1]
    assert asked == [0, 16, 32, 0, 16, 32, 48]


async def test_an_export_that_is_another_one_each_time_is_given_up() -> None:
    made = 0

    async def page(offset: int) -> dict[str, Any]:
        nonlocal made
        made += 1
        return {"text": "x", "offset": offset, "total_bytes": 100 + made, "next_offset": offset + 1}

    with pytest.raises(StoreUnavailable):
        _ = [piece async for piece in export_pieces(page)]


async def test_characters_of_an_export_come_whole() -> None:
    text = json.dumps("aé€😀" * 100_000, ensure_ascii=False)

    async def page(offset: int) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        return {"text": text, "offset": offset, "total_bytes": len(text.encode())}

    pieces = [piece async for piece in export_pieces(page)]
    assert len(pieces) > 1
    assert "".join(pieces) == text
