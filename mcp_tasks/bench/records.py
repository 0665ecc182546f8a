"""What records cost: on each adapter, with ten tasks in the store and with very many."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable
from typing import Any

import anyio.to_thread

from mcp_tasks.app import open_store
from mcp_tasks.bench.floors import durable_commit, durable_record
from mcp_tasks.bench.place import Place
from mcp_tasks.bench.samples import Limit, Measure, Sample, Samples, in_turns
from mcp_tasks.bench.seeding import CROWDED, fill, new_task
from mcp_tasks.lifecycle import Claimed, transition
from mcp_tasks.models import TaskKey
from mcp_tasks.ports import Store
from mcp_tasks.settings import Settings, StoreName

__all__ = ["measure_records"]

_ADAPTERS: tuple[StoreName, ...] = ("json", "sqlite")
_FEW = 10
_PAGE = 20


async def measure_records(place: Place) -> list[Measure]:
    """Save, read, count and list in the fullest session of a crowded store, and open that store."""
    measures: list[Measure] = []
    total, sessions = place.count(100_000, 400), place.count(1_000, 10)
    for adapter in _ADAPTERS:
        await _filled(place, adapter, "few", 1, _FEW)
        await _filled(place, adapter, "many", sessions, total)
        await _filled(place, adapter, "hundred", 100, 1_000)
        measures += await _operations(place, adapter, total)
        measures += await _first_answers(place, adapter, sessions, total)
        measures.append(await _restore(place, adapter))
    return measures


async def _filled(place: Place, adapter: StoreName, name: str, sessions: int, tasks: int) -> None:
    store = _open(place, adapter, name)
    try:
        await anyio.to_thread.run_sync(fill, store, sessions, tasks)
    finally:
        store.close()


def _open(place: Place, adapter: StoreName, name: str) -> Store:
    return open_store(Settings(dir=place.folder / f"{adapter}-{name}", store=adapter))


async def _operations(place: Place, adapter: StoreName, total: int) -> list[Measure]:
    few, many = _open(place, adapter, "few"), _open(place, adapter, "many")
    samples: dict[str, Sample] = {}
    for name, sample in _OPERATIONS.items():
        samples |= {f"{name} few": sample(few), f"{name} many": sample(many)}
    try:
        with durable_commit(place.folder) as commit:
            samples["floor"] = commit if adapter == "sqlite" else durable_record(place.folder)
            taken = await in_turns(place.count(150, 5), samples)
    finally:
        few.close()
        many.close()
    floor = taken["floor"]
    measures = [
        Measure(
            f"save_{adapter}",
            f"{adapter}: saving one change, over the bare durable write",
            "ms",
            Samples.differences(taken["change a task many"], floor),
            limit=Limit("at_most", 1),
            note=f"the bare write takes {floor.median:.2f} ms",
        )
    ]
    measures += [
        Measure(
            f"{name.replace(' ', '_')}_{adapter}",
            f"{adapter}: {name}, {total:,} tasks",
            "ms",
            taken[f"{name} many"],
            taken[f"{name} few"],
            f"the same with {_FEW} tasks",
            Limit("ratio_at_most", 1.5),
        )
        for name in _OPERATIONS
    ]
    return measures


async def _first_answers(place: Place, adapter: StoreName, sessions: int, total: int) -> list[Measure]:
    """From the start of a server process until its first answer; an empty store beside it."""
    fresh = itertools.count()
    store = _open(place, adapter, "many")
    newest = next(iter(store.tasks(CROWDED))).key.task_id
    store.close()

    async def answer(name: str, tool: str, **arguments: Any) -> float:
        began = time.perf_counter_ns()
        async with place.server(f"{adapter}-{name}", "--store", adapter) as server:
            await server.call(tool, session=CROWDED.session, **arguments)
            return (time.perf_counter_ns() - began) / 1e6

    taken = await in_turns(
        place.count(7, 1),
        {
            "empty": lambda: answer(f"empty-{next(fresh)}", "list_tasks"),
            "poll_task": lambda: answer("many", "poll_task", task_id=newest),
            "list_tasks": lambda: answer("many", "list_tasks"),
        },
    )
    return [
        Measure(
            f"first_{tool}_{adapter}",
            f"{adapter}: {sessions:,} sessions and {total:,} tasks add to the first answer, {tool}",
            "ms",
            Samples.differences(taken[tool], taken["empty"]),
            limit=Limit("at_most", 200),
            note=f"an empty start takes {taken['empty'].median:.0f} ms",
        )
        for tool in ("poll_task", "list_tasks")
    ]


async def _restore(place: Place, adapter: StoreName) -> Measure:
    async def restore() -> float:
        began = time.perf_counter_ns()
        store = _open(place, adapter, "hundred")
        try:
            for session in store.sessions():
                store.counts(session.key)
        finally:
            store.close()
        return (time.perf_counter_ns() - began) / 1e6

    taken = await in_turns(place.count(9, 1), {"restore": restore})
    title = f"{adapter}: open a store of 100 sessions, read them, count the tasks of each"
    return Measure(f"restore_{adapter}", title, "ms", taken["restore"], limit=Limit("at_most", 100))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - began) / 1e6


def _register(store: Store) -> Sample:
    async def sample() -> float:
        task = new_task(CROWDED)
        return _timed(lambda: store.create(task))

    return sample


def _change(store: Store) -> Sample:
    async def sample() -> float:
        task = new_task(CROWDED)
        store.create(task)
        claimed = transition(task, Claimed(task.created_at, "bench"))
        return _timed(lambda: store.replace(claimed))

    return sample


def _read(store: Store) -> Sample:
    ids = [task.key.task_id for task in itertools.islice(store.tasks(CROWDED), 1_000)]

    async def sample() -> float:
        key = TaskKey(CROWDED.owner, CROWDED.session, secrets.choice(ids))
        return _timed(lambda: store.load(key))

    return sample


def _states(store: Store) -> Sample:
    async def sample() -> float:
        return _timed(lambda: store.counts(CROWDED))

    return sample


def _page(store: Store) -> Sample:
    async def sample() -> float:
        return _timed(lambda: list(itertools.islice(store.tasks(CROWDED), _PAGE)))

    return sample


_OPERATIONS: dict[str, Callable[[Store], Sample]] = {
    "register a task": _register,
    "change a task": _change,
    "read a task": _read,
    "count by state": _states,
    "list a page": _page,
}
