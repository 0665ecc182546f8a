"""Kills a process at every system call of every write, and looks at what is left.

`python -m tests.stores.crash_rig FOLDER ADAPTER` prints one line per scenario and fails at the first
contradiction. A program of its own, because it forks and wants no threads.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path

from mcp_tasks.errors import KeyConflict, RevisionConflict, TaskNotFound
from mcp_tasks.models import Task
from mcp_tasks.ports import Store
from tests.stores import faulty_os, faulty_sqlite
from tests.stores.adapters import LASTING
from tests.stores.records import running
from tests.stores.scenarios import SCENARIOS, Scenario, everything, inconsistencies

Deadly = Callable[[int], AbstractContextManager[object]]

DEADLY: dict[str, tuple[Deadly, ...]] = {
    "json": (lambda at: faulty_os.faulty(at, faulty_os.die),),
    "sqlite": (
        lambda at: faulty_sqlite.faulty_sqlite(at, faulty_sqlite.die),
        lambda at: faulty_os.faulty(at, faulty_os.die),
    ),
}
"""For each adapter what lets a process die at a system call: those of Python, or those of SQLite."""


def crash(
    store: Callable[[], Store], scenario: Scenario, task: Task, deadly: AbstractContextManager[object]
) -> bool:
    """Write in a child that dies at a call. Returns whether it died; False is over and well."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            opened = store()
            with deadly:
                scenario.act(opened, task)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, 9):
        raise AssertionError(f"{scenario.name}: the child failed by itself")
    return status == 9


def check(store: Store, scenario: Scenario, task: Task, before: dict[str, Task], died: bool) -> str:
    """What is left must be all old or all new, and usable. Returns `old` or `new`."""
    after = everything(store)
    name = task.key.task_id
    others = {key: value for key, value in after.items() if key != name}
    expected = {key: value for key, value in before.items() if key != name}
    assert others == expected, f"{scenario.name}: another task changed"
    left = after.get(name)
    assert left in (scenario.old(task), scenario.new(task)), f"{scenario.name}: half of a write is left"
    assert died or left == scenario.new(task), f"{scenario.name}: an acknowledged write is lost"
    assert inconsistencies(store, after) == []
    verdict = "new" if left == scenario.new(task) else "old"
    try:
        scenario.act(store, task)
    except (RevisionConflict, KeyConflict, TaskNotFound):
        assert verdict == "new", f"{scenario.name}: cannot be done after a crash"
    assert everything(store).get(name) == scenario.new(task)
    assert inconsistencies(store, everything(store)) == []
    assert (found := list(store.verify())) == [], found
    return verdict


def main(folder: Path, adapter: str) -> int:
    faulty_os.sync_nothing()
    deaths = 0
    for scenario in SCENARIOS:
        root = folder / scenario.name
        with closing(LASTING[adapter](root)) as store:
            store.create(running(key="held"))
        seen: list[str] = []
        for deadly in DEADLY[adapter]:
            at = 0
            died = True
            while died:
                at += 1
                # Closed before the fork: a database must not be carried into another process.
                with closing(LASTING[adapter](root)) as store:
                    task = scenario.prepare(store)
                    before = everything(store)
                died = crash(partial(LASTING[adapter], root), scenario, task, deadly(at))
                with closing(LASTING[adapter](root)) as store:
                    seen.append(check(store, scenario, task, before, died))
                deaths += died
        sys.stdout.write(f"{scenario.name}: {seen.count('old')} old, {seen.count('new')} new\n")
    sys.stdout.write(f"{deaths} deaths\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
