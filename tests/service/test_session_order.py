"""Calls that change one session are applied in the order in which they came."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

import anyio
import pytest

from mcp_tasks.models import Session, SessionKey, Task
from mcp_tasks.service.sessions.turns import Turns
from tests.service.agent import Agent

pytestmark = pytest.mark.anyio

Edit: TypeAlias = Callable[[Session], Session]


async def test_changes_of_one_session_are_applied_in_arrival_order(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[str | None] = []
    records = agent.service._desk.records
    change = records.change

    def seen(key: SessionKey, edit: Edit, by: str, revision: int | None = None) -> Session:
        # Without an order the first would come last: it has the longest way.
        time.sleep(0.0 if applied else 0.05)  # sleep: a slow disk for the first of them
        stored = change(key, edit, by, revision)
        applied.append(stored.title)
        return stored

    monkeypatch.setattr(records, "change", seen)

    async def entitle(title: str) -> None:
        await agent.update(title=title)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(entitle, str(number))
    assert applied == [str(number) for number in range(20)]
    assert (await agent.info())["title"] == "19"


async def test_ids_are_made_in_arrival_order_and_starts_do_not_wait_for_each_other(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent.run("true")
    store = agent.service._desk.store
    together = threading.Barrier(4, timeout=20)
    create = store.create

    def meeting(task: Task) -> None:
        # Each waits here for three others: if starts stood in a line, none would ever come.
        together.wait()
        create(task)

    monkeypatch.setattr(store, "create", meeting)
    ids: dict[int, str] = {}

    async def start(number: int) -> None:
        ids[number] = await agent.start("true")

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(start, number)
    assert [ids[number] for number in range(8)] == sorted(ids.values())


async def test_sessions_do_not_wait_for_each_other_and_nothing_is_kept_of_their_turns() -> None:
    turns = Turns()
    one, other = SessionKey("me", "one"), SessionKey("me", "other")
    async with turns.of(one):
        with anyio.fail_after(5):
            async with turns.of(other):
                assert turns.of(one).locked()
    gc.collect()
    assert len(turns._locks) == 0
