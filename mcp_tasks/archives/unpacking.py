"""An archived session back into a store, checked member by member."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from mcp_tasks.archives.packing import CONNECTIONS, Snapshot, unsealed_message
from mcp_tasks.codec import BrokenRecord, decode_plan, decode_session, decode_task
from mcp_tasks.errors import InvalidArgument, StoreUnavailable, TaskNotFound
from mcp_tasks.models import Message, Plan, PlanKey, Session, SessionKey, Task, TaskKey
from mcp_tasks.ports import Archive, Journal, Sealer, Store
from mcp_tasks.stores.disk.durable import fsync_folder, unavailable
from mcp_tasks.stores.disk.syncing import sync

__all__ = ["Damaged", "Unpacker", "newest_message", "snapshot_of"]

_RECORD = re.compile(r"(tasks|plans)/([0-9a-z]{1,64})\.json", re.ASCII)
_OUTPUT = re.compile(r"runs/([0-9a-z]{36})\.(\d{1,6})/([a-z][a-z0-9._-]{0,63})", re.ASCII)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_RECORD = 16 << 20
_PIECE = 1 << 20


class Damaged(StoreUnavailable):
    """The archive is not what was written; it is left as it is."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f"the archive {name} is damaged: {why}", "it was left as it is; nothing was restored"
        )


class Unpacker:
    """Puts a session back; the caller removes what is there of it when that fails.

    Args:
        archive: What is to be put back; the digest of its file has been checked.
        into: The session that it becomes; there is none of this name.
        store: Where it goes.
        journal: Where its journal goes.
        sealer: Opens what is sealed in it.
    """

    def __init__(
        self, archive: Archive, into: SessionKey, store: Store, journal: Journal, *, sealer: Sealer | None
    ) -> None:
        self._archive = archive
        self._into = into
        self._store = store
        self._journal = journal
        self._sealer = sealer
        self._session: Session | None = None
        self._plans: list[Plan] = []
        self._tasks: list[Task] = []
        self._folders: set[str] = set()
        self._files = self._messages = self._bytes = 0

    def unpack(self, file: IO[bytes]) -> None:
        """Read the archive from an open file.

        Raises:
            Damaged: It is not what was written.
            StoreUnavailable: The store, the journal or the disk refused, or a key is missing.
        """
        name = self._archive.name
        for entry, data in _members(file, self._archive):
            try:
                self._take(entry, data)
            except (BrokenRecord, ValueError, TaskNotFound) as error:
                raise Damaged(name, f"{entry.name}: {error}") from error
            except OSError as error:
                raise unavailable("restoring a session", error) from error
        if self._session is None:
            raise Damaged(name, "there is no session in it")
        for folder in self._folders:
            fsync_folder(folder)
        # Records after their output, as ever: what is listed is whole. Both are newest first in there.
        for task in reversed(self._tasks):
            self._store.create(task)
        for plan in reversed(self._plans):
            self._store.create_plan(plan)
        label = self._archive
        found = (len(self._tasks), len(self._plans), self._files, self._messages)
        if label.sha256 and found != (label.tasks, label.plans, label.files, label.messages):
            raise Damaged(name, "it holds less than its label says")

    def _take(self, entry: tarfile.TarInfo, data: IO[bytes]) -> None:
        into = self._into
        if entry.name == "session.json":
            self._session = self._store.open_session(replace(decode_session(_small(entry, data)), key=into))
        elif entry.name == "journal.jsonl":
            self._messages = self._journal.restore(into, self._journalled(data))
        elif entry.name == "connections.json":
            for connection in reversed(CONNECTIONS.validate_json(_small(entry, data))):
                self._journal.connect(replace(connection, session=into.session))
        elif (output := _OUTPUT.fullmatch(entry.name)) is not None:
            self._bytes += entry.size
            if self._archive.sha256 and self._bytes > self._archive.output_bytes:
                raise ValueError("there is more output than its label says")
            key = TaskKey(into.owner, into.session, output[1])
            folder = os.fspath(self._store.make_run_folder(key, int(output[2])))
            _write(f"{folder}/{output[3]}", entry, data)
            self._folders.add(folder)
            self._files += 1
        elif (record := _RECORD.fullmatch(entry.name)) is None:
            raise ValueError("it does not belong into an archive")
        elif record[1] == "plans":
            plan = decode_plan(_small(entry, data))
            self._plans.append(replace(plan, key=PlanKey(into.owner, into.session, plan.key.plan_id)))
        else:
            task = decode_task(_small(entry, data))
            self._tasks.append(replace(task, key=TaskKey(into.owner, into.session, task.key.task_id)))

    def _journalled(self, data: IO[bytes]) -> Iterator[Message]:
        for line in data:
            yield replace(unsealed_message(line, self._sealer), session=self._into)


def _members(file: IO[bytes], archive: Archive) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r|gz") as tar:
            for entry in tar:
                # A hole may be larger than any disk, and nothing that was packed here has one.
                plain = entry.isreg() and not entry.issparse()
                data = tar.extractfile(entry) if plain else None
                if data is None:
                    raise Damaged(archive.name, f"{entry.name!r:.80} is no file")
                yield entry, data
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise Damaged(archive.name, str(error)) from error


def _small(entry: tarfile.TarInfo, data: IO[bytes]) -> bytes:
    if entry.size > _MOST_RECORD:
        raise ValueError("it is larger than any record")
    return data.read()


def _write(path: str, entry: tarfile.TarInfo, data: IO[bytes]) -> None:
    try:
        with open(os.open(path, _CREATE, 0o600), "wb") as file:
            shutil.copyfileobj(data, file, _PIECE)
            file.flush()
            seconds, _, fraction = entry.pax_headers.get("mtime", f"{int(entry.mtime)}.0").partition(".")
            moment = int(seconds) * 10**9 + int(f"{fraction:0<9.9}")
            os.utime(file.fileno(), ns=(moment, moment))
            sync(file.fileno())
    except FileExistsError as error:
        raise InvalidArgument(
            "the output of one of its tasks is there already", "give another name"
        ) from error


def newest_message(file: IO[bytes], archive: Archive) -> int:
    """The sequence number of the newest message that an archive holds, 0 for none. Raises Damaged."""
    newest = 0
    try:
        for entry, data in _members(file, archive):
            if entry.name == "journal.jsonl":
                newest = max((int(json.loads(line)["seq"]) for line in data), default=0)
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(archive.name, str(error)) from error
    return newest


def snapshot_of(file: IO[bytes], archive: Archive) -> tuple[Session, Snapshot]:
    """The session and the tasks, with their revisions, that an archive holds. Raises Damaged."""
    session: Session | None = None
    tasks: set[tuple[str, int]] = set()
    try:
        for entry, data in _members(file, archive):
            if entry.name == "session.json":
                session = decode_session(_small(entry, data))
            elif entry.name.startswith("tasks/"):
                task = decode_task(_small(entry, data))
                tasks.add((task.key.task_id, task.revision))
    except (BrokenRecord, ValueError) as error:
        raise Damaged(archive.name, str(error)) from error
    if session is None:
        raise Damaged(archive.name, "there is no session in it")
    return session, frozenset(tasks)
