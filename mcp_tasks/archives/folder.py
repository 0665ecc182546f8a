"""All archives of a state directory.

In one place or the other, never in none: an archive is whole and durable before its session is removed,
and a session is whole before its archive is. One process at a time puts away or brings back (a lock),
so whatever looks half done to its next holder was left by one that was killed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from mcp_tasks.archives.labels import PACKED, Stage, read_label, session_and_moment, stem_of, write_label
from mcp_tasks.archives.packing import Snapshot, pack
from mcp_tasks.archives.unpacking import Damaged, Unpacker, newest_message, snapshot_of
from mcp_tasks.errors import (
    InvalidArgument,
    SessionNotFound,
    TaskNotFinished,
    TaskNotFound,
    TasksError,
)
from mcp_tasks.models import SESSION_NAME, Session, SessionKey, Task, TaskKey
from mcp_tasks.ports import Archive, Journal, Sealer, Store
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.folder_names import owner_folder, owner_of_folder
from mcp_tasks.stores.disk.locks import ProcessLock
from mcp_tasks.stores.disk.removal import remove_tree
from mcp_tasks.stores.disk.syncing import synced_once
from mcp_tasks.transfer.files import digest_of, open_to_read

__all__ = ["SessionArchives"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RESTORING = ".restoring"
_LOCK_S = 10.0
_Restored: TypeAlias = Literal["none", "half", "used", "whole"]
_SETTLED: dict[_Restored, str] = {
    "none": "it was not being restored",
    "half": "undid what was half restored",
    "used": "its session came back in part only, and is used",
    "whole": "its session is back",
}

log = logging.getLogger(__name__)


class SessionArchives:
    """Implements `ports.Archives` in the folder `archive` of a state directory.

    Args:
        root: The state directory.
        store: Where sessions come from and go back to.
        journal: The same for their journals.
        settle: Brings the record of a task up to what is true, and returns it.
        left_alive: Whether anything of a task that is over still runs.
        sealer: For journals that are sealed; without one they cannot be archived.
    """

    def __init__(
        self,
        root: Path,
        store: Store,
        journal: Journal,
        *,
        settle: Callable[[TaskKey], Task],
        left_alive: Callable[[Task], bool],
        sealer: Sealer | None = None,
    ) -> None:
        self._folder = root / "archive"
        self._store = store
        self._journal = journal
        self._settle = settle
        self._left_alive = left_alive
        self._sealer = sealer
        self._lock = ProcessLock(os.fspath(root / "archive.lock"), _LOCK_S)

    def archive(self, session: SessionKey, *, at: int) -> Archive:
        """See `ports.Archives`."""
        with self._lock.held():
            record = self._store.load_session(session)
            self._refuse_unfinished(session)
            self._journal.flush()
            stem = self._new_stem(session, at)
            label, snapshot = self._pack(stem, record)
            try:
                write_label(stem, label, "leaving")
                self._remove_session(record, snapshot, label.messages)
            except (TaskNotFinished, SessionNotFound):
                self._discard(stem)
                raise
            write_label(stem, label, "away")
            return label

    def all(self, owner: str | None = None) -> list[Archive]:
        """See `ports.Archives`."""
        found = [archive for _, archive, _ in self._listed(owner)]
        return sorted(found, key=lambda archive: (archive.archived_at, archive.name), reverse=True)

    def find(self, owner: str, name: str) -> Archive:
        """See `ports.Archives`."""
        return self._found(owner, name)[1]

    def restore(
        self, owner: str, name: str, *, at: int, into: str | None = None, keep: bool = False
    ) -> SessionKey:
        """See `ports.Archives`."""
        with self._lock.held():
            stem, archive = self._found(owner, name)
            key = SessionKey(owner, into or archive.key.session)
            if not SESSION_NAME.fullmatch(key.session):
                raise InvalidArgument(f"{key.session!r} cannot be the name of a session")
            self._undo_restoring(stem, archive)
            with self._opened(stem, archive) as file:
                _, snapshot = snapshot_of(file, archive)
                self._refuse_doubles(key, snapshot)
                marker = f"{stem}{_RESTORING}"
                durable.write_durably(marker, json.dumps({"into": key.session, "keep": keep}).encode())
                try:
                    self._unpack(archive, key, file)
                    self._journal.touch(key, at)
                except BaseException:
                    with suppress(TasksError):  # the next holder of the lock tries again
                        self._undo_restoring(stem, archive)
                    raise
            os.unlink(marker)
            durable.fsync_folder(stem.parent)
            if not keep:
                self._discard(stem)
            return key

    def remove(self, owner: str, name: str) -> int:
        """See `ports.Archives`."""
        with self._lock.held():
            stem, archive = self._found(owner, name)
            self._discard(stem)
            return archive.bytes

    def check(self) -> Iterator[str]:
        """Read every archive; one sentence for each that is damaged. Raises StoreUnavailable."""
        for stem, archive, _ in self._listed(None):
            if archive.problem is not None:
                yield f"archive {archive.name}: {archive.problem}"
                continue
            try:
                if digest_of(f"{stem}{PACKED}") != (archive.bytes, archive.sha256):
                    yield f"archive {archive.name}: it is not what was written"
            except (OSError, ValueError) as error:
                yield f"archive {archive.name}: it cannot be read ({error})"

    def recover(self) -> list[str]:
        """Finish or undo what killed processes left half done; one sentence for each."""
        done: list[str] = []
        if not os.path.isdir(self._folder):
            return done
        with self._lock.held():
            for stem, archive, stage in self._listed(None):
                try:
                    if os.path.lexists(f"{stem}{_RESTORING}"):
                        done.append(f"{archive.name}: {self._settle_restoring(stem, archive)}")
                        continue
                    if stage == "leaving" and archive.problem is None:
                        done.append(self._finish(stem, archive))
                    elif stage == "unlabelled" and self._is_in_store(stem, archive):
                        self._discard(stem)
                        done.append(f"{archive.name}: its session is still there")
                except TasksError as error:
                    log.warning("an archive that was left half done stays so for now: %s", error)
            for owner in self._owners(None):
                for name in os.listdir(self._folder / owner):
                    if name.startswith(".") and name.endswith((".part", ".tmp")):
                        os.unlink(self._folder / owner / name)
        return done

    # -- putting away ------------------------------------------------------------------------------

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

    def _new_stem(self, session: SessionKey, at: int) -> Path:
        for place in (self._folder, self._folder / owner_folder(session.owner)):
            if durable.make_private_folder(place):
                durable.fsync_folder(place.parent)
        stem = stem_of(self._folder, session, at)
        while os.path.lexists(f"{stem}{PACKED}") or os.path.lexists(f"{stem}.json"):
            at += 1
            stem = stem_of(self._folder, session, at)
        return stem

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

    def _finish(self, stem: Path, archive: Archive) -> str:
        """Remove the session of a whole archive, or the archive where the session lives on."""
        with self._opened(stem, archive) as file:
            session, snapshot = snapshot_of(file, archive)
            newest = newest_message(file, archive)
        if not self._lives(session, snapshot):
            # Another one may have its name by now, and messages of its own.
            self._journal.delete(archive.key, upto=newest)
        else:
            try:
                self._remove_session(session, snapshot, archive.messages)
            except TaskNotFinished:
                self._discard(stem)
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

    def _is_in_store(self, stem: Path, archive: Archive) -> bool:
        """Whether an archive without a label holds nothing that the store has not."""
        with open(open_to_read(f"{stem}{PACKED}"), "rb") as file:
            try:
                session, snapshot = snapshot_of(file, archive)
                tasks = {(task.key.task_id, task.revision) for task in self._store.tasks(session.key)}
                return snapshot <= tasks and self._lives(session, snapshot)
            except Damaged:
                # Cut short before it was whole; the session is removed after that only.
                return any(one.key == archive.key for one in self._store.sessions(archive.key.owner))

    # -- bringing back -----------------------------------------------------------------------------

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
            with synced_once(self._folder):
                Unpacker(archive, key, self._store, self._journal, sealer=self._sealer).unpack(file)
        except OSError as error:
            raise durable.unavailable("restoring a session", error) from error

    def _settle_restoring(self, stem: Path, archive: Archive) -> str:
        """End a restoration whose process was killed; tells how."""
        keep = self._restoring(stem).get("keep", True)
        found = self._undo_restoring(stem, archive)
        if found == "whole" and not keep:
            self._discard(stem)
        return _SETTLED[found]

    def _restoring(self, stem: Path) -> dict[str, Any]:
        """What is noted of a restoration that is not over."""
        try:
            noted = json.loads(durable.read_private(f"{stem}{_RESTORING}", 1_000))
        except (FileNotFoundError, ValueError):
            return {}
        return noted if isinstance(noted, dict) and isinstance(noted.get("into"), str) else {}

    def _undo_restoring(self, stem: Path, archive: Archive) -> _Restored:
        """Take back what came of a restoration, unless it is whole or somebody has used it; tells which."""
        noted = self._restoring(stem)
        found: _Restored = "none"
        if noted:
            into = SessionKey(archive.key.owner, noted["into"])
            with self._opened(stem, archive) as file:
                _, snapshot = snapshot_of(file, archive)
            ours = {task_id for task_id, _ in snapshot}
            found = self._restored(into, archive, ours)
            if found == "half":
                self._remove_runs(into, ours)
                with suppress(SessionNotFound):
                    self._store.delete_session(into)
                self._journal.delete(into)
        with suppress(FileNotFoundError):
            os.unlink(f"{stem}{_RESTORING}")
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

    # -- the files ---------------------------------------------------------------------------------

    @contextmanager
    def _opened(self, stem: Path, archive: Archive) -> Iterator[IO[bytes]]:
        """An archive to read from, its digest checked. Raises Damaged."""
        if archive.problem is not None and archive.sha256:
            raise Damaged(archive.name, archive.problem)
        path = f"{stem}{PACKED}"
        try:
            if archive.sha256 and digest_of(path) != (archive.bytes, archive.sha256):
                raise Damaged(archive.name, "it is not what was written")
            with open(open_to_read(path), "rb") as file:
                yield file
        except FileNotFoundError:
            raise Damaged(archive.name, "the archive itself is missing") from None
        except ValueError as error:
            raise Damaged(archive.name, str(error)) from error

    def _found(self, owner: str, name: str) -> tuple[Path, Archive]:
        ours = [(stem, one) for stem, one, _ in self._listed(owner) if name in (one.name, one.key.session)]
        if not ours:
            raise SessionNotFound(name)
        return max(ours, key=lambda pair: (pair[1].name == name, pair[1].archived_at))

    def _listed(self, owner: str | None) -> Iterator[tuple[Path, Archive, Stage]]:
        for folder in self._owners(owner):
            known = owner if owner is not None else owner_of_folder(folder)
            try:
                names = sorted(os.listdir(durable.real_folder(os.fspath(self._folder), folder)))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise durable.unavailable("listing archives", error) from error
            stems = {name.removesuffix(PACKED).removesuffix(".json") for name in names if name[0] != "."}
            for name in sorted(stems):
                stem, named = self._folder / folder / name, session_and_moment(name)
                if named is None:
                    continue
                try:
                    archive, stage = read_label(stem, known)
                except FileNotFoundError:
                    if f"{name}{PACKED}" in names:
                        yield stem, self._unlabelled(stem, known or "", *named), "unlabelled"
                    continue
                if owner is None or archive.key.owner == owner:
                    yield stem, archive, stage

    def _unlabelled(self, stem: Path, owner: str, session: str, at: int) -> Archive:
        size = os.lstat(f"{stem}{PACKED}").st_size
        key = SessionKey(owner, session)
        return Archive(f"{session}~{at}", key, at, at, at, bytes=size, problem="it has no label")

    def _owners(self, owner: str | None) -> list[str]:
        if owner is not None:
            return [owner_folder(owner)]
        try:
            with os.scandir(self._folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise durable.unavailable("listing archives", error) from error

    def _discard(self, stem: Path) -> None:
        """Remove an archive. Without its label it is still known, and is seen to be left over."""
        try:
            for suffix in (_RESTORING, ".json", PACKED):
                with suppress(FileNotFoundError):
                    os.unlink(f"{stem}{suffix}")
        except OSError as error:
            raise durable.unavailable("removing an archive", error) from error
        durable.fsync_folder(stem.parent)
