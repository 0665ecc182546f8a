"""Who watches is told of every change, whichever server runs the task, and costs little."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_tasks.errors import InternalError, PolicyDenied, ShareNotValid, StoreUnavailable, TaskNotFound
from mcp_tasks.output import Cursor
from mcp_tasks.service import Piece, Tally, watching
from mcp_tasks.service.watching import Watching
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

_SECONDS = 15.0


async def _states(agent: Agent, *task_ids: str) -> list[tuple[str, str]]:
    """Every state that is told, in order, until all are final."""
    with anyio.fail_after(_SECONDS):
        return [
            (view["task_id"], view["state"]) async for view in agent.service.watch(agent.caller, task_ids)
        ]


async def _next(found: AsyncGenerator[Any, None]) -> Any:
    with anyio.fail_after(_SECONDS):
        return await anext(found)


async def _all(pieces: AsyncGenerator[Piece, None]) -> dict[tuple[str, int], bytes]:
    """The bytes of each stream and run, which have to follow each other without a gap."""
    found: dict[tuple[str, int], bytes] = {}
    with anyio.fail_after(_SECONDS):
        async for piece in pieces:
            told = found.setdefault((piece.stream, piece.run), b"")
            assert piece.offset == len(told)
            found[piece.stream, piece.run] = told + piece.data
    return found


async def test_a_task_that_is_over_is_told_once(agent: Agent) -> None:
    view = await agent.run("echo out")
    assert await _states(agent, view["task_id"], view["task_id"]) == [(view["task_id"], "completed")]


async def test_each_change_is_told_without_output(narrow: Agent, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    first = await narrow.start(f"echo out; cat {gate}")
    second = await narrow.start("exit 3")
    seen: list[tuple[str, str]] = []
    async with aclosing(narrow.service.watch(narrow.caller, [first, second])) as views:
        with anyio.fail_after(_SECONDS):
            async for view in views:
                assert "stdout" not in view
                if not seen:
                    await anyio.to_thread.run_sync(gate.write_text, "")
                seen.append((view["task_id"], view["state"]))
    assert seen[:2] == [(first, "running"), (second, "pending")]
    assert seen[-1] == (second, "failed")
    assert (first, "completed") in seen


async def test_the_end_of_another_servers_task_is_told(agent: Agent, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with open_agent(tmp_path / "state") as other:
        task_id = await other.start(f"cat {gate}")
    async with aclosing(agent.service.watch(agent.caller, [task_id])) as views:
        assert (await _next(views))["state"] == "running"
        await anyio.to_thread.run_sync(gate.write_text, "")
        assert (await _next(views))["state"] == "completed"
        with pytest.raises(StopAsyncIteration):
            await _next(views)


async def test_a_further_run_is_a_change(agent: Agent, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    task_id = await agent.start(f"cat {gate}; false", retries=1)
    async with aclosing(agent.service.watch(agent.caller, [task_id])) as views:
        assert (await _next(views))["state"] == "running"
        await anyio.to_thread.run_sync(gate.write_text, "")
        assert (await _next(views))["state"] == "pending"
        again = await _next(views)
        assert (again["state"], again["run"]) == ("running", 2)
        await anyio.to_thread.run_sync(gate.write_text, "")
        assert (await _next(views))["state"] == "failed"


async def test_a_task_that_is_cleared_is_told_of_no_more(agent: Agent, tmp_path: Path) -> None:
    task_id, other = await agent.start("sleep 60"), await agent.start("sleep 60")
    async with aclosing(agent.service.watch(agent.caller, [task_id, other])) as views:
        assert {(await _next(views))["task_id"] for _ in range(2)} == {task_id, other}
        await agent.clear(task_id, cancel=True)
        await agent.cancel(other, grace_ms=0)
        rest = [view async for view in views]
    assert (other, "cancelled") in [(view["task_id"], view["state"]) for view in rest]


async def test_many_who_watch_one_task_cost_one_descriptor(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    before = len(os.listdir("/dev/fd"))
    heard = told = 0

    async def listen() -> None:
        nonlocal heard, told
        async for view in agent.service.watch(agent.caller, [task_id]):
            heard += view["state"] == "running"
            told += view["state"] == "cancelled"

    async def all_listen() -> bool:
        return heard == 200

    with anyio.fail_after(_SECONDS):
        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(listen)
            await eventually(all_listen, "200 listened")
            assert len(os.listdir("/dev/fd")) < before + 20
            await agent.cancel(task_id, grace_ms=0)
    assert told == 200
    assert agent.service.watching.looking() == 0


async def test_nothing_looks_out_when_nobody_listens(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    async with aclosing(agent.service.watch(agent.caller, [task_id])) as views:
        await _next(views)
    assert agent.service.watching.looking() == 0
    with anyio.move_on_after(0.05):
        async for _ in agent.service.watch(agent.caller, [task_id]):
            pass
    assert agent.service.watching.looking() == 0
    await agent.cancel(task_id, grace_ms=0)


async def test_a_store_that_cannot_be_read_for_a_moment_ends_nothing(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    task_id = await agent.start(f"cat {gate}")
    reconciler, store = agent.service._desk.reconciler, agent.service._desk.store

    def fails(*_: Any) -> None:
        raise StoreUnavailable("the disk is away")

    async with (
        aclosing(agent.service.watch(agent.caller, [task_id])) as views,
        aclosing(agent.service.changes(agent.caller)) as tallies,
        aclosing(agent.service.growth(agent.caller, task_id)) as ends,
    ):
        assert (await _next(views))["state"] == "running"
        assert (await _next(tallies)).counts == {"running": 1}
        assert await _next(ends) == Cursor(1, 0, 0)
        with monkeypatch.context() as away:
            away.setattr(reconciler, "look", fails)
            away.setattr(store, "counts", fails)
            await anyio.to_thread.run_sync(gate.write_text, "")
            await eventually(lambda: _warned(caplog, 3), "all had failed")
        assert (await _next(views))["state"] == "completed"
        assert (await _next(tallies)).counts == {"completed": 1}
        with pytest.raises(StopAsyncIteration):
            await _next(ends)


async def _warned(caplog: pytest.LogCaptureFixture, times: int) -> bool:
    return sum("cannot be watched now" in record.message for record in caplog.records) >= times


async def test_who_watches_before_anybody_looks_out_waits_for_that(agent: Agent) -> None:
    view = await agent.run("true")
    nobody = Watching(agent.service._desk)
    found: list[str] = []

    async def listen() -> None:
        found.extend([view["state"] async for view in nobody.watch(agent.caller, [view["task_id"]])])
        group.cancel_scope.cancel()

    with anyio.fail_after(_SECONDS):
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            assert not found
            group.start_soon(nobody.attend)
    assert found == ["completed"]


async def test_what_fails_while_it_tells_ends_alone(agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise RuntimeError("somebody else's mistake")

    await agent.service.watching.post(fails, anyio.CancelScope())

    async def is_logged() -> bool:
        return "somebody else's mistake" in caplog.text

    await eventually(is_logged, "the mistake was logged")
    assert await _states(agent, (await agent.run("true"))["task_id"])


async def test_a_look_out_that_breaks_down_takes_nobody_with_it_but_those_who_listen(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*_: Any) -> None:
        raise RuntimeError("somebody else's mistake")

    async with aclosing(agent.service.changes(agent.caller)) as tallies:
        with monkeypatch.context() as broken:
            broken.setattr(agent.service._desk.store, "counts", breaks)
            with pytest.raises(InternalError, match="cannot be looked at"):
                await _next(tallies)
    assert "somebody else's mistake" in caplog.text
    assert agent.service.watching.looking() == 0
    async with aclosing(agent.service.changes(agent.caller)) as tallies:
        assert (await _next(tallies)).members == (None, 0)


async def test_another_owners_task_cannot_be_watched_or_followed(agent: Agent) -> None:
    task_id = await agent.start("true")
    stranger = agent.of("default", owner="somebody else")
    with pytest.raises(TaskNotFound):
        await anext(stranger.service.watch(stranger.caller, [task_id]))
    with pytest.raises(TaskNotFound):
        await anext(stranger.service.follow(stranger.caller, task_id))
    tally: Tally = await anext(stranger.service.changes(stranger.caller))
    assert tally == Tally(None, {})


async def test_a_share_that_is_withdrawn_ends_what_it_let_see(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    shared = await agent.update(share="read")
    guest = agent.with_share(shared["share"]["token"])
    async with aclosing(guest.service.watch(guest.caller, [task_id])) as views:
        assert (await _next(views))["state"] == "running"
        await agent.update(revoke=shared["share"]["share_id"])
        await agent.cancel(task_id, grace_ms=0)
        with pytest.raises((ShareNotValid, PolicyDenied)):
            await _next(views)


async def test_nobody_follows_output_for_longer_than_he_may(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_SHARE_MS", 50)
    task_id = await agent.start("echo out; sleep 60")
    shared = await agent.update(share="read")
    guest = agent.with_share(shared["share"]["token"])
    async with aclosing(guest.service.follow(guest.caller, task_id)) as pieces:
        assert (await _next(pieces)).data == b"out\n"
        await agent.update(revoke=shared["share"]["share_id"])
        with pytest.raises(ShareNotValid):
            await _next(pieces)
    await agent.cancel(task_id, grace_ms=0)


async def test_output_is_followed_to_its_last_byte(agent: Agent, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    task_id = await agent.start(f"echo one; cat {gate}; echo wrong >&2; seq 100000; exit 3")
    async with aclosing(agent.service.follow(agent.caller, task_id)) as pieces:
        first = await _next(pieces)
        assert first == Piece("stdout", 0, b"one\n", 1)
        await anyio.to_thread.run_sync(gate.write_text, "")
        with anyio.fail_after(_SECONDS):
            rest = [piece async for piece in pieces]
    told = first.data + b"".join(piece.data for piece in rest if piece.stream == "stdout")
    assert told == b"one\n" + b"".join(b"%d\n" % number for number in range(1, 100001))
    assert b"".join(piece.data for piece in rest if piece.stream == "stderr") == b"wrong\n"


async def test_following_goes_on_at_the_byte_where_it_was(agent: Agent) -> None:
    task_id = (await agent.run("printf 0123456789; printf abc >&2"))["task_id"]
    with anyio.fail_after(_SECONDS):
        found = [piece async for piece in agent.service.follow(agent.caller, task_id, 7, 3)]
        assert found == [Piece("stdout", 7, b"789", 1)]
        assert [piece async for piece in agent.service.follow(agent.caller, task_id, 10, 3)] == []


async def test_who_is_ahead_of_the_output_waits_for_it_without_looking_all_the_time(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    task_id = await agent.start(f"printf 0123456789; cat {gate}; printf abc")
    await agent.poll(task_id, pattern="9", wait_ms=10_000)
    waiting, waits = agent.service._desk.waiting, 0
    until, waited = waiting.until, anyio.Event()

    async def counted(*arguments: Any) -> Any:
        nonlocal waits
        waits += 1
        waited.set()
        return await until(*arguments)

    monkeypatch.setattr(waiting, "until", counted)
    found: list[Piece] = []

    async def follow() -> None:
        found.extend([piece async for piece in agent.service.follow(agent.caller, task_id, 12, 100)])

    with anyio.fail_after(_SECONDS):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await waited.wait()
            await anyio.to_thread.run_sync(gate.write_text, "")
    assert found == [Piece("stdout", 12, b"c", 1)]
    assert waits < 10


async def test_what_a_further_run_writes_follows(agent: Agent) -> None:
    task_id = await agent.start("echo out; exit 1", retries=1)
    found = await _all(agent.service.follow(agent.caller, task_id))
    assert found == {("stdout", 1): b"out\n", ("stdout", 2): b"out\n"}
    again = await _all(agent.service.follow(agent.caller, task_id, run=1))
    assert again == found
    assert await _all(agent.service.follow(agent.caller, task_id)) == {("stdout", 2): b"out\n"}


async def test_growth_is_told_until_the_end_and_looked_at_once_for_all(agent: Agent, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    task_id = await agent.start(f"printf 12; cat {gate}; printf 345 >&2; cat {gate}")
    await agent.poll(task_id, pattern="2", wait_ms=10_000)
    async with (
        aclosing(agent.service.growth(agent.caller, task_id)) as ends,
        aclosing(agent.service.growth(agent.caller, task_id)) as others,
    ):
        assert await _next(ends) == await _next(others) == Cursor(1, 2, 0)
        assert agent.service.watching.looking() == 1
        await anyio.to_thread.run_sync(gate.write_text, "")
        assert await _next(ends) == await _next(others) == Cursor(1, 2, 3)
        await anyio.to_thread.run_sync(gate.write_text, "")
        for found in (ends, others):
            with pytest.raises(StopAsyncIteration):
                await _next(found)
    assert agent.service.watching.looking() == 0


async def test_output_that_grows_all_the_time_is_looked_at_about_once_a_second(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    task_id = await agent.start(f"(while :; do echo out; done) & cat {gate}; kill $!")
    waiting, looks = agent.service._desk.waiting, 0
    until, began = waiting.until, time.monotonic()

    async def counted(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return await until(*arguments)

    monkeypatch.setattr(waiting, "until", counted)
    async with aclosing(agent.service.growth(agent.caller, task_id)) as ends:
        ended = [(await _next(ends)).stdout for _ in range(4)]
    assert ended == sorted(set(ended))
    assert looks <= 2 * (time.monotonic() - began) + 4
    await anyio.to_thread.run_sync(gate.write_text, "")
    await agent.ended(task_id)


async def test_a_share_that_is_withdrawn_ends_the_growth_it_let_see(agent: Agent, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    task_id = await agent.start(f"cat {gate}; echo out; cat {gate}")
    shared = await agent.update(share="read")
    guest = agent.with_share(shared["share"]["token"])
    async with aclosing(guest.service.growth(guest.caller, task_id)) as ends:
        assert await _next(ends) == Cursor(1, 0, 0)
        await agent.update(revoke=shared["share"]["share_id"])
        await anyio.to_thread.run_sync(gate.write_text, "")
        with pytest.raises(ShareNotValid):
            await _next(ends)
    await anyio.to_thread.run_sync(gate.write_text, "")


async def test_a_task_that_comes_or_goes_changes_the_list(agent: Agent, tmp_path: Path) -> None:
    async with aclosing(agent.service.changes(agent.caller)) as tallies:
        assert (await _next(tallies)).members == (None, 0)
        async with open_agent(tmp_path / "state") as other:
            task_id = (await other.run("true"))["task_id"]
        seen = await _next(tallies)
        while seen.counts != {"completed": 1}:
            seen = await _next(tallies)
        assert seen.members == (task_id, 1)
        await agent.clear(task_id)
        assert (await _next(tallies)).members == (None, 0)
    assert agent.service.watching.looking() == 0
