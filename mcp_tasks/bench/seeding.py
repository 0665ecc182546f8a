"""State directories with many tasks, written through the store's own contract.

`seed` runs one task for real; the others are copies of its record and of its run folder under ids and
moments of their own, each registered with `Store.create` and therefore exactly as durable as a task that
was run. `fill` writes records alone, and very many of them.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from mcp_tasks.connection import Connection
from mcp_tasks.lifecycle import Claimed, Concluded, submitted, transition
from mcp_tasks.models import Exited, Finished, SessionKey, Spec, Task, TaskKey
from mcp_tasks.ports import Store
from mcp_tasks.settings import user_name
from mcp_tasks.stores.json.store import JsonFileStore

__all__ = ["CROWDED", "fill", "new_task", "run_one", "seed"]

WRITERS = 8

CROWDED = SessionKey(user_name(), "crowded")
"""The session that `fill` gives half of all tasks."""

_BEGAN_MS = 1_700_000_000_000

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


def fill(store: Store, sessions: int, tasks: int) -> None:
    """Register finished tasks: half of them in the session CROWDED, the others evenly in further ones."""
    keys = [SessionKey(CROWDED.owner, f"quiet-{number}") for number in range(1, sessions)]
    apart = 0 if not keys else tasks // 2 // len(keys)
    wanted = [key for key in keys for _ in range(apart)]
    wanted += [CROWDED] * (tasks - len(wanted))
    with _unsynced():
        for number, session in enumerate(wanted):
            at = _BEGAN_MS + number
            key = TaskKey(session.owner, session.session, _task_id(at))
            running = transition(submitted(key, _SPEC, at), Claimed(at, "bench"))
            store.create(transition(running, Concluded(Finished(Exited(0), 1, at, at + 5, 5))))


def new_task(session: SessionKey) -> Task:
    """A pending task that nothing will start, the newest of its session."""
    at = time.time_ns() // 1_000_000
    return submitted(TaskKey(session.owner, session.session, _task_id(at)), _SPEC, at)


_SPEC = Spec("echo bench", "/")


@contextmanager
def _unsynced() -> Iterator[None]:
    """Do not wait for the disk: what is written to be measured later need not survive a power cut."""
    fsync = os.fsync
    os.fsync = lambda fd: None  # noqa: ARG005 - it is called by this name
    try:
        yield
    finally:
        os.fsync = fsync


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
