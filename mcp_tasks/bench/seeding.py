"""State directories with many finished tasks, written through the store's own contract.

One task is run for real; the others are copies of its record and of its run folder under ids and moments
of their own, each registered with `Store.create` and therefore exactly as durable as a task that was run.
"""

from __future__ import annotations

import dataclasses
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mcp_tasks.connection import Connection
from mcp_tasks.models import Finished, Task
from mcp_tasks.stores.json_files import JsonFileStore

__all__ = ["run_one", "seed"]

WRITERS = 8

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_ALNUM = "0123456789abcdefghijklmnopqrstuvwxyz"


async def run_one(server: Connection) -> str:
    """Run the task that the others are copies of, and return its id."""
    view = await server.call("run_command", command="echo finished", wait_ms=10_000)
    if view["state"] != "completed":
        raise RuntimeError(f"`echo finished` is {view['state']}")
    return str(view["task_id"])


def seed(state: Path, count: int) -> list[str]:
    """Add finished tasks to a state directory that has one, and return their ids.

    Args:
        state: A directory with the one task of `run_one` in it, and without a running server.
        count: How many tasks to add. Each is a millisecond older than the one before.
    """
    store = JsonFileStore(state)
    try:
        (session,) = store.sessions()
        original = next(iter(store.tasks(session.key)))
        if not isinstance(original.state, Finished):
            raise TypeError(f"the task to copy is {original.state_name}")
        files = _regular_files(store.run_folder(original.key, original.run))

        def add(age_ms: int) -> str:
            copy = _older(original, age_ms)
            folder = store.run_folder(copy.key, copy.run)
            store.create(copy)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, data in files:
                file = folder / name
                file.touch(mode=0o600)
                file.write_bytes(data)
            return copy.key.task_id

        with ThreadPoolExecutor(WRITERS) as writers:
            return list(writers.map(add, range(1, count + 1)))
    finally:
        store.close()


def _regular_files(folder: Path) -> list[tuple[str, bytes]]:
    files = (path for path in folder.iterdir() if stat.S_ISREG(path.lstat().st_mode))
    return [(path.name, path.read_bytes()) for path in files]


def _older(task: Task, age_ms: int) -> Task:
    created_at = task.created_at - age_ms
    key = dataclasses.replace(task.key, task_id=_task_id(created_at))
    return dataclasses.replace(task, key=key, created_at=created_at)


def _task_id(moment: int) -> str:
    time_part = "".join(_CROCKFORD[moment >> shift & 31] for shift in range(45, -1, -5))
    return time_part + "".join(secrets.choice(_ALNUM) for _ in range(26))
