"""A session on its way back from an archive into the store."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from mcp_tasks.archives.packing import Snapshot
from mcp_tasks.archives.shelf import RESTORING, Shelf
from mcp_tasks.archives.unpacking import Unpacker, snapshot_of
from mcp_tasks.errors import InvalidArgument, SessionNotFound, TaskNotFound, TasksError
from mcp_tasks.models import SESSION_NAME, SessionKey, TaskKey
from mcp_tasks.ports import Archive, Journal, Sealer, Store
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.removal import remove_tree
from mcp_tasks.stores.disk.syncing import synced_once

__all__ = ["Returning"]

_Restored: TypeAlias = Literal["none", "half", "used", "whole"]
_SETTLED: dict[_Restored, str] = {
    "none": "it was not being restored",
    "half": "undid what was half restored",
    "used": "its session came back in part only, and is used",
    "whole": "its session is back",
}


class Returning:
    """Brings sessions back. See `SessionArchives` for the arguments; its lock is held by the caller."""

    def __init__(self, shelf: Shelf, store: Store, journal: Journal, *, sealer: Sealer | None) -> None:
        self._shelf = shelf
        self._store = store
        self._journal = journal
        self._sealer = sealer

    def bring_back(
        self, owner: str, name: str, *, at: int, into: str | None = None, keep: bool = False
    ) -> SessionKey:
        """See `ports.Archives.restore`."""
        stem, archive = self._shelf.found(owner, name)
        key = SessionKey(owner, into or archive.key.session)
        if not SESSION_NAME.fullmatch(key.session):
            raise InvalidArgument(f"{key.session!r} cannot be the name of a session")
        self._undo(stem, archive)
        with self._shelf.opened(stem, archive) as file:
            _, snapshot = snapshot_of(file, archive)
            self._refuse_doubles(key, snapshot)
            marker = f"{stem}{RESTORING}"
            durable.write_durably(marker, json.dumps({"into": key.session, "keep": keep}).encode())
            try:
                self._unpack(archive, key, file)
                self._journal.touch(key, at)
            except BaseException:
                with suppress(TasksError):  # the next holder of the lock tries again
                    self._undo(stem, archive)
                raise
        os.unlink(marker)
        durable.fsync_folder(stem.parent)
        if not keep:
            self._shelf.discard(stem)
        return key

    def _refuse_doubles(self, key: SessionKey, snapshot: Snapshot) -> None:
        try:
            self._store.load_session(key)
        except SessionNotFound:
            pass
        else:
            raise InvalidArgument(
                f"there is a session {key.session!r}", "restore it as another one: --as NAME"
            )
        for task_id, _ in sorted(snapshot)[:1]:
            with suppress(TaskNotFound):
                there = self._store.locate(key.owner, task_id)
                raise InvalidArgument(
                    f"its tasks are in session {there.session!r} already", "it was restored before"
                )

    def _unpack(self, archive: Archive, key: SessionKey, file: IO[bytes]) -> None:
        try:
            with synced_once(self._shelf.folder):
                Unpacker(archive, key, self._store, self._journal, sealer=self._sealer).unpack(file)
        except OSError as error:
            raise durable.unavailable("restoring a session", error) from error

    def settle(self, stem: Path, archive: Archive) -> str:
        """End a restoration whose process was killed; tells how."""
        keep = self._noted(stem).get("keep", True)
        found = self._undo(stem, archive)
        if found == "whole" and not keep:
            self._shelf.discard(stem)
        return _SETTLED[found]

    def _noted(self, stem: Path) -> dict[str, Any]:
        """What is noted of a restoration that is not over."""
        try:
            noted = json.loads(durable.read_private(f"{stem}{RESTORING}", 1_000))
        except (FileNotFoundError, ValueError):
            return {}
        return noted if isinstance(noted, dict) and isinstance(noted.get("into"), str) else {}

    def _undo(self, stem: Path, archive: Archive) -> _Restored:
        """Take back what came of a restoration, unless it is whole or somebody has used it; tells which."""
        noted = self._noted(stem)
        found: _Restored = "none"
        if noted:
            into = SessionKey(archive.key.owner, noted["into"])
            with self._shelf.opened(stem, archive) as file:
                _, snapshot = snapshot_of(file, archive)
            ours = {task_id for task_id, _ in snapshot}
            found = self._restored(into, archive, ours)
            if found == "half":
                self._remove_runs(into, ours)
                with suppress(SessionNotFound):
                    self._store.delete_session(into)
                self._journal.delete(into)
        with suppress(FileNotFoundError):
            os.unlink(f"{stem}{RESTORING}")
        return found

    def _restored(self, into: SessionKey, archive: Archive, ours: set[str]) -> _Restored:
        """How far a session has come back."""
        there = {task.key.task_id for task in self._store.tasks(into)}
        figures = self._journal.figures(into)
        messages = figures.live + figures.folded
        if (
            archive.sha256  # else nobody knows what whole would be
            and ours <= there
            and messages >= archive.messages
            and sum(1 for _ in self._store.plans(into)) >= archive.plans
            and into in [session.key for session in self._store.sessions(into.owner)]
        ):
            return "whole"
        # The messages come back all at once, so any other number of them says that somebody added some.
        used = not there <= ours or (bool(archive.sha256) and messages not in (0, archive.messages))
        return "used" if used else "half"

    def _remove_runs(self, session: SessionKey, task_ids: set[str]) -> None:
        """Remove output that came back before its record, which a store takes for a task about to start."""
        for task_id in task_ids:
            key = TaskKey(session.owner, session.session, task_id)
            with suppress(TaskNotFound):
                self._store.load(key)
                continue
            runs = self._store.run_folder(key, 1).parent
            for folder in runs.glob(f"{task_id}.*"):
                remove_tree(folder)
