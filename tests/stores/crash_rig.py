"""Kills a process at every system call of every write, and looks at what is left.

`python -m tests.stores.crash_rig FOLDER` prints one line per scenario and fails at the first
contradiction. A program of its own, because it forks and wants no threads.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mcp_tasks.errors import KeyConflict, RevisionConflict, TaskNotFound
from mcp_tasks.models import Task
from mcp_tasks.stores.json_files import JsonFileStore
from tests.stores.faulty_os import die, faulty, sync_nothing
from tests.stores.records import running
from tests.stores.scenarios import SCENARIOS, Scenario, everything, inconsistencies


def crash(root: Path, scenario: Scenario, task: Task, at: int) -> bool:
    """Write in a child that dies at call `at`. Returns whether it died; False is over and well."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            store = JsonFileStore(root)
            with faulty(at, die):
                scenario.act(store, task)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, 9):
        raise AssertionError(f"{scenario.name}: the child failed by itself at call {at}")
    return status == 9


def check(root: Path, scenario: Scenario, task: Task, before: dict[str, Task], died: bool) -> str:
    """What is left must be all old or all new, and usable. Returns `old` or `new`."""
    store = JsonFileStore(root)
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
    return verdict


def main(folder: Path) -> int:
    sync_nothing()
    deaths = 0
    for scenario in SCENARIOS:
        root = folder / scenario.name
        JsonFileStore(root).create(running(key="held"))
        seen: list[str] = []
        at = 0
        died = True
        while died:
            at += 1
            store = JsonFileStore(root)
            task = scenario.prepare(store)
            before = everything(store)
            died = crash(root, scenario, task, at)
            seen.append(check(root, scenario, task, before, died))
            deaths += died
        sys.stdout.write(f"{scenario.name}: {seen.count('old')} old, {seen.count('new')} new\n")
    sys.stdout.write(f"{deaths} deaths\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
