"""Places with something of everything in them, and what is in a place."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcp_tasks.clock import Clock
from mcp_tasks.models import (
    Closed,
    Connection,
    Draft,
    Exited,
    Session,
    SessionKey,
    Share,
    Task,
    Workspace,
)
from mcp_tasks.ports import Journal, Store
from mcp_tasks.stores.journal.file import JournalFile, MemoryJournal
from mcp_tasks.stores.json.store import JsonFileStore
from mcp_tasks.stores.memory.store import MemoryStore
from mcp_tasks.stores.sqlite.store import SqliteStore
from mcp_tasks.transfer import Place
from tests.stores.journals import Scrambler
from tests.stores.records import OWNER, finished, pending, plan_of, running

AT = 1_700_000_000_000
KINDS = ("memory", "json", "sqlite")
WORK, PLAY, EMPTY = (SessionKey(OWNER, name) for name in ("work", "Play", "empty"))
EXIT = {
    "v": 1,
    "outcome": "exited",
    "exit_code": 0,
    "signal": None,
    "message": "",
    "started_at": AT + 1,
    "ended_at": AT + 2,
    "elapsed_ms": 1,
    "user_ms": 0,
    "system_ms": 0,
    "max_rss_kib": 1,
    "background": 0,
    "output_held": False,
}


def open_at(root: Path, kind: str) -> Place:
    """A place of any kind; a memory one lives until it is closed."""
    store: Store
    journal: Journal
    if kind == "memory":
        root.mkdir(mode=0o700, exist_ok=True)
        store, journal = MemoryStore(root), MemoryJournal(Clock(), sealer=Scrambler())
    else:
        store = JsonFileStore(root) if kind == "json" else SqliteStore(root)
        journal = JournalFile(root, Clock(), sealer=Scrambler())
    return Place(root, kind, store, journal)


def as_recorded(task: Task) -> Task:
    return task


def write_run(place: Place, task: Task, *, run: int = 1, **files: bytes) -> Path:
    folder = place.store.make_run_folder(task.key, run)
    for name, data in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(data)
        path.chmod(0o600)
        os.utime(path, ns=(AT * 10**6 + 123, AT * 10**6 + 123))
    return folder


def add_finished(place: Place, session: str = "work", *, key: str | None = None, output: bytes = b"") -> Task:
    task = finished(pending(session, key=key), Exited(0))
    write_run(place, task, stdout=output or task.key.task_id.encode(), exit_json=json.dumps(EXIT).encode())
    place.store.create(task)
    return task


def fill(place: Place) -> None:
    """Something of everything, all of it over."""
    store, journal = place.store, place.journal
    share = Share("s" * 36, "read", "d" * 64, AT)
    workspace = Workspace("/somewhere", "/bin/sh", {"TOKEN": "sealed1.x.y"}, {"colour": "blue"})
    store.open_session(Session(WORK, AT, title="Work", workspace=workspace, shares=(share,)))
    store.open_session(Session(PLAY, AT + 5, state=Closed(AT + 9, "done"), seal_journal=True))
    store.open_session(Session(EMPTY, AT + 7))
    tasks = [add_finished(place, "work", key=f"key {number}") for number in range(3)]
    tasks.append(_retried(place))
    store.create_plan(plan_of("work", tasks[:2], name="both"))
    _add_sparse(place, add_finished(place, "Play"))
    messages = journal.append([Draft(WORK, "user", f"message {number}", AT + number) for number in range(9)])
    journal.append([Draft(WORK, "assistant", "an answer", AT + 20, parent=messages[-1].message_id)])
    journal.append([Draft(PLAY, "user", "nobody's business", AT + 20, sealed=True)])
    journal.edit(WORK, messages[-1].message_id, "better so", AT + 30)
    journal.prune(WORK, 4)
    journal.touch(WORK, AT + 40)
    journal.connect(Connection("c" * 36, OWNER, "work", "claude", "1", "stdio", AT, AT + 1, AT + 2, "closed"))
    journal.flush()


def _retried(place: Place) -> Task:
    task = finished(pending("work"), Exited(0))
    task = replace(task, state=replace(task.state, run=2), spec=replace(task.spec, retries=1))
    for run in (1, 2):
        write_run(place, task, run=run, stderr=b"run %d" % run, exit_json=json.dumps(EXIT).encode())
    place.store.create(task)
    return task


def _add_sparse(place: Place, task: Task) -> None:
    folder = place.store.run_folder(task.key, 1)
    tail = folder / f"stdout.{10**9:020d}"
    with open(os.open(tail, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.seek(3_000_000)
        file.write(b"the end")
        file.truncate(5_000_000)


def contents(place: Place) -> dict[str, Any]:
    """Everything that is in a place, to be compared with what is in another one."""
    found: dict[str, Any] = {}
    for session in place.store.sessions():
        key = session.key
        tasks = list(place.store.tasks(key))
        found[f"{key.owner}/{key.session}"] = {
            "record": replace(session, revision=0),
            "tasks": tasks,
            "plans": list(place.store.plans(key)),
            "files": {
                f"{task.key.task_id}.{run}/{path.name}": (path.stat().st_mtime_ns, path.read_bytes())
                for task in tasks
                for run in range(1, task.run + 1)
                for path in sorted(place.store.run_folder(task.key, run).glob("*"))
                if path.is_file()
            },
            "messages": list(place.journal.everything(key)),
            "figures": place.journal.figures(key),
            "connections": place.journal.connections(key.owner, key.session),
            "keys": [place.store.find_key(key, f"key {number}") for number in range(3)],
        }
    return found


def add_running(place: Place) -> Task:
    """A task that runs, as far as its record and its folder tell."""
    task = running("work")
    write_run(place, task, stdout=b"so far", launch=b"never copied", started=b"{}")
    place.store.create(task)
    return task


def add_pending(place: Place) -> Task:
    task = pending("work")
    write_run(place, task, launch=b"never copied")
    place.store.create(task)
    return task
