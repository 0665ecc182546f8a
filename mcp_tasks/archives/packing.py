"""A whole session as one compressed file: records, plans, output, journal.

Members of the tar, in this order: `session.json`, `plans/<id>.json`, `tasks/<id>.json` each followed by its
`runs/<id>.<n>/<file>`, the runs that have no record any more, `journal.jsonl`, `connections.json`. Records
are as `mcp_tasks.codec` writes them. A text that is sealed in the journal is sealed here.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import IO, Any, TypeAlias

from pydantic import TypeAdapter

from mcp_tasks.codec import encode_plan, encode_session, encode_task
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import Connection, Message, Session, SessionKey, Task, TaskKey
from mcp_tasks.ports import Archive, Journal, Sealer, Store
from mcp_tasks.stores.disk.leftovers import runs_in
from mcp_tasks.transfer.files import run_files

__all__ = ["CONNECTIONS", "Snapshot", "pack", "sealed_line", "unsealed_message"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_LEVEL = 6
_IN_MEMORY = 4 << 20
_MOST_CONNECTIONS = 1_000
_MANY = 50
_BREATH_S = 0.001
"""Among very many tasks, so that a server that archives answers calls as well."""
_messages: TypeAdapter[Message] = TypeAdapter(Message)
CONNECTIONS: TypeAdapter[list[Connection]] = TypeAdapter(list[Connection])
"""How the connections of a session are written, newest first."""

Snapshot: TypeAlias = frozenset[tuple[str, int]]
"""Ids and revisions of the tasks that an archive holds."""


class _Counted(io.RawIOBase):
    """Writes to a file and knows the digest of all that was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)


def pack(
    file: IO[bytes],
    archive: Archive,
    session: Session,
    store: Store,
    journal: Journal,
    *,
    sealer: Sealer | None,
) -> tuple[Archive, Snapshot]:
    """Write a session into a file, and return the label with all its figures.

    Raises:
        StoreUnavailable: Part of it cannot be read, or the key of what is sealed is missing.
        OSError: The file cannot be written.
    """
    out = _Counted(file)
    tasks: set[tuple[str, int]] = set()
    plans = messages = files = output_bytes = 0
    with (
        gzip.GzipFile("", "wb", _LEVEL, out, mtime=archive.archived_at / 1000) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        _add(tar, "session.json", encode_session(session), session.created_at)
        for plan in store.plans(session.key):
            plans += 1
            _add(tar, f"plans/{plan.key.plan_id}.json", encode_plan(plan), plan.created_at)
        for task in store.tasks(session.key):
            tasks.add((task.key.task_id, task.revision))
            if len(tasks) % _MANY == 0:
                time.sleep(_BREATH_S)
            _add(tar, f"tasks/{task.key.task_id}.json", encode_task(task), task.created_at)
            for size in _add_runs(tar, store, task):
                files, output_bytes = files + 1, output_bytes + size
        for size in _add_strays(tar, store, session.key, {task_id for task_id, _ in tasks}):
            files, output_bytes = files + 1, output_bytes + size
        messages = _add_journal(tar, journal, session, sealer)
        known = journal.connections(session.key.owner, session.key.session, limit=_MOST_CONNECTIONS)
        _add(tar, "connections.json", CONNECTIONS.dump_json(known), archive.archived_at)
    label = replace(
        archive,
        tasks=len(tasks),
        plans=plans,
        messages=messages,
        files=files,
        output_bytes=output_bytes,
        bytes=out.size,
        sha256=out.digest.hexdigest(),
    )
    return label, frozenset(tasks)


def sealed_line(message: Message, sealer: Sealer | None) -> bytes:
    """A message as one line of JSON, what is sealed in its journal sealed. Raises StoreUnavailable."""
    plain = _messages.dump_json(message)
    if not message.sealed:
        return plain + b"\n"
    if sealer is None:
        raise StoreUnavailable("the journal is sealed, and there is no key here")
    bare = replace(message, text="", data={}, versions=())
    line = json.loads(_messages.dump_json(bare))
    line["seal"] = sealer.seal(plain.decode())
    return json.dumps(line).encode() + b"\n"


def unsealed_message(line: bytes, sealer: Sealer | None) -> Message:
    """What `sealed_line` wrote. Raises ValueError for anything else, StoreUnavailable without the key."""
    fields = json.loads(line)
    if "seal" in fields:
        if sealer is None:
            raise StoreUnavailable("the journal is sealed, and there is no key here")
        return _messages.validate_json(sealer.unseal(fields["seal"]))
    return _messages.validate_json(line)


def _add(tar: tarfile.TarFile, name: str, data: bytes, at_ms: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), 0o600, at_ms / 1000
    tar.addfile(entry, io.BytesIO(data))


def _add_runs(tar: tarfile.TarFile, store: Store, task: Task) -> Iterator[int]:
    for run in range(1, task.run + 1):
        yield from _add_run(tar, os.fspath(store.run_folder(task.key, run)))


def _add_strays(tar: tarfile.TarFile, store: Store, session: SessionKey, known: set[str]) -> Iterator[int]:
    """The runs of tasks whose records were set aside: their output is all that is left of them."""
    folder = os.fspath(store.run_folder(TaskKey(session.owner, session.session, "0" * 36), 1).parent)
    with suppress(FileNotFoundError):
        for task_id, run in sorted(runs_in(folder)):
            if task_id not in known:
                yield from _add_run(tar, f"{folder}/{task_id}.{run}")


def _add_run(tar: tarfile.TarFile, folder: str) -> Iterator[int]:
    for name in run_files(folder):
        with open(os.open(f"{folder}/{name}", _READ), "rb") as file:
            found = os.fstat(file.fileno())
            entry = tarfile.TarInfo(f"runs/{os.path.basename(folder)}/{name}")
            entry.size, entry.mode = found.st_size, 0o600
            # As text, because a float cannot hold it to the nanosecond.
            entry.pax_headers = {"mtime": f"{found.st_mtime_ns // 10**9}.{found.st_mtime_ns % 10**9:09d}"}
            tar.addfile(entry, file)
            yield found.st_size


def _add_journal(tar: tarfile.TarFile, journal: Journal, session: Session, sealer: Sealer | None) -> int:
    # The size comes before the bytes, so they wait in a file that has no name.
    count = 0
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as lines:
        for message in journal.everything(session.key):
            lines.write(sealed_line(message, sealer))
            count += 1
        entry = tarfile.TarInfo("journal.jsonl")
        entry.size, entry.mode = lines.tell(), 0o600
        lines.seek(0)
        tar.addfile(entry, lines)
    return count
