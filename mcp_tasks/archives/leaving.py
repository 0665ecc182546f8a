"""A session on its way from the store into an archive."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mcp_tasks.archives.labels import PACKED, session_and_moment, write_label
from mcp_tasks.archives.packing import Snapshot, pack
from mcp_tasks.archives.shelf import Shelf
from mcp_tasks.archives.unpacking import Damaged, newest_message, snapshot_of
from mcp_tasks.errors import SessionNotFound, TaskNotFinished, TaskNotFound
from mcp_tasks.models import Session, SessionKey, Task, TaskKey
from mcp_tasks.ports import Archive, Journal, Sealer, Store
from mcp_tasks.stores.disk import durable
from mcp_tasks.transfer.files import open_to_read

__all__ = ["Leaving"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Leaving:
    """Puts sessions away. See `SessionArchives` for the arguments; its lock is held by the caller."""

    def __init__(
        self,
        shelf: Shelf,
        store: Store,
        journal: Journal,
        *,
        settle: Callable[[TaskKey], Task],
        left_alive: Callable[[Task], bool],
        sealer: Sealer | None,
    ) -> None:
        self._shelf = shelf
        self._store = store
        self._journal = journal
        self._settle = settle
        self._left_alive = left_alive
        self._sealer = sealer

    def put_away(self, session: SessionKey, at: int) -> Archive:
        """See `ports.Archives.archive`."""
        record = self._store.load_session(session)
        self._refuse_unfinished(session)
        self._journal.flush()
        stem = self._shelf.new_stem(session, at)
        label, snapshot = self._pack(stem, record)
        try:
            write_label(stem, label, "leaving")
            self._remove_session(record, snapshot, label.messages)
        except (TaskNotFinished, SessionNotFound):
            self._shelf.discard(stem)
            raise
        write_label(stem, label, "away")
        return label

    def _refuse_unfinished(self, session: SessionKey) -> None:
        for key in self._store.unfinished():
            if key.session_key == session and self._is_open(key):
                raise TaskNotFinished(f"task {key.task_id} has not ended", "cancel it, or wait for its end")
        for task in self._store.tasks(session):
            if self._left_alive(task):
                raise TaskNotFinished(
                    f"task {task.key.task_id} has processes running in the background",
                    "cancel_task ends them",
                )

    def _is_open(self, key: TaskKey) -> bool:
        try:
            return not self._settle(key).is_final
        except TaskNotFound:
            return False

    def _pack(self, stem: Path, session: Session) -> tuple[Archive, Snapshot]:
        _, at = session_and_moment(stem.name) or ("", 0)
        active_at = self._journal.active_at([session.key]).get(session.key, session.created_at)
        archive = Archive(
            name=f"{session.key.session}~{at}",
            key=session.key,
            archived_at=at,
            created_at=session.created_at,
            active_at=active_at,
            title=session.title,
        )
        draft = stem.with_name(f".{stem.name}.part")
        try:
            with suppress(FileNotFoundError):
                os.unlink(draft)
            try:
                with open(os.open(draft, _CREATE, 0o600), "wb") as file:
                    packed = pack(file, archive, session, self._store, self._journal, sealer=self._sealer)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(draft, f"{stem}{PACKED}")
            except BaseException:
                with suppress(OSError):
                    os.unlink(draft)
                raise
        except OSError as error:
            raise durable.unavailable("archiving a session", error) from error
        durable.fsync_folder(stem.parent)
        return packed

    def _remove_session(self, session: Session, snapshot: Snapshot, messages: int) -> None:
        """Remove what is archived. Raises TaskNotFinished where there is more by now, SessionNotFound."""
        key = session.key
        # First of all: a session that is gone has no tasks either, and that is no sign of use.
        record = self._store.load_session(key)
        tasks = {(task.key.task_id, task.revision) for task in self._store.tasks(key)}
        # Before the messages are counted: what somebody adds from now on comes after it, and stays.
        newest = self._newest_message(key)
        figures = self._journal.figures(key)
        if (
            tasks != snapshot
            or record != session
            or figures.live + figures.folded != messages
            or sum(self._store.counts(key).values()) != len(snapshot)
        ):
            raise TaskNotFinished(f"session {key.session!r} was used meanwhile", "try again when it is idle")
        self._store.delete_session(key)
        self._journal.delete(key, upto=newest)

    def _newest_message(self, key: SessionKey) -> int:
        return max((one.seq for one in self._journal.read(key, limit=1, newest_first=True)), default=0)

    def finish(self, stem: Path, archive: Archive) -> str:
        """Remove the session of a whole archive, or the archive where the session lives on."""
        with self._shelf.opened(stem, archive) as file:
            session, snapshot = snapshot_of(file, archive)
            newest = newest_message(file, archive)
        if not self._lives(session, snapshot):
            # Another one may have its name by now, and messages of its own.
            self._journal.delete(archive.key, upto=newest)
        else:
            try:
                self._remove_session(session, snapshot, archive.messages)
            except TaskNotFinished:
                self._shelf.discard(stem)
                return f"{archive.name}: its session is used still, so it is not archived"
        write_label(stem, replace(archive, problem=None), "away")
        return f"{archive.name}: its session is away now"

    def _lives(self, session: Session, snapshot: Snapshot) -> bool:
        """Whether a session that was archived is still in the store, and not another one of its name."""
        try:
            there = self._store.load_session(session.key)
        except SessionNotFound:
            return False
        if there.created_at == session.created_at:
            return True
        return bool(self._store.states(session.key, sorted(task_id for task_id, _ in snapshot)))

    def is_in_store(self, stem: Path, archive: Archive) -> bool:
        """Whether an archive without a label holds nothing that the store has not."""
        with open(open_to_read(f"{stem}{PACKED}"), "rb") as file:
            try:
                session, snapshot = snapshot_of(file, archive)
                tasks = {(task.key.task_id, task.revision) for task in self._store.tasks(session.key)}
                return snapshot <= tasks and self._lives(session, snapshot)
            except Damaged:
                # Cut short before it was whole; the session is removed after that only.
                return any(one.key == archive.key for one in self._store.sessions(archive.key.owner))
