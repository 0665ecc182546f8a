"""The folder of a session: its record, its tasks, its keys and its lock."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import AbstractContextManager
from hashlib import sha256
from weakref import WeakValueDictionary

from mcp_tasks.codec import BrokenRecord, NewerSchema, decode_session, encode_session
from mcp_tasks.errors import InvalidArgument
from mcp_tasks.models import SESSION_NAME, TASK_ID, Session, SessionKey
from mcp_tasks.stores import durable
from mcp_tasks.stores.folder_names import owner_folder, owner_of_folder, session_folder, session_of_folder
from mcp_tasks.stores.locks import ProcessLock
from mcp_tasks.stores.removal import remove_tree
from mcp_tasks.stores.state_folder import StateFolder

__all__ = ["SessionFolders"]

_LOCK_SECONDS = 10.0


class SessionFolders:
    """All sessions below `sessions/<owner>/<session>/`."""

    def __init__(self, state: StateFolder) -> None:
        """Nothing is read yet."""
        self._state = state
        self._guard = threading.Lock()
        self._ready: set[SessionKey] = set()
        self._owners: dict[str, str] = {}
        self._locks: WeakValueDictionary[SessionKey, ProcessLock] = WeakValueDictionary()
        self._recent: deque[ProcessLock] = deque(maxlen=64)

    def path(self, key: SessionKey) -> str:
        """Where a session lies, whether it exists or not. Raises ValueError for a name that cannot be."""
        if not SESSION_NAME.fullmatch(key.session):
            raise ValueError(key.session)
        return self._state.path("sessions", owner_folder(key.owner), session_folder(key.session))

    def existing(self, key: SessionKey, *below: str) -> str:
        """The session's folder, or one below it, where no step on the way is a link.

        Raises:
            FileNotFoundError: There is none.
            UnsafeFile: A link was planted.
        """
        if not SESSION_NAME.fullmatch(key.session):
            raise FileNotFoundError(key.session)
        names = (owner_folder(key.owner), session_folder(key.session))
        return durable.real_folder(self._state.root, "sessions", *names, *below)

    def ready(self, key: SessionKey, created_at: int) -> str:
        """Make sure that a session exists durably, and return its folder.

        Args:
            key: The session.
            created_at: Used where the session is new. Milliseconds since the epoch.

        Raises:
            InvalidArgument: The name cannot be a session's.
            StoreUnavailable: It could not be made, or a newer version wrote it.
        """
        if key in self._ready:
            try:
                return os.path.dirname(self.existing(key, "tasks"))
            except FileNotFoundError:
                self._ready.discard(key)
        try:
            path = self.path(key)
        except ValueError:
            raise InvalidArgument(
                f"{key.session!r} cannot be the name of a session", "1 to 128 of A-Z a-z 0-9 . _ -"
            ) from None
        report = self._state.report
        for folder in (
            os.path.dirname(path),
            path,
            *(f"{path}/{part}" for part in ("tasks", "runs", "keys")),
        ):
            durable.make_private_folder(folder, report)
        durable.remove_stale_temporaries(path)
        durable.remove_stale_temporaries(f"{path}/keys")
        with self.lock(key):
            if self._record(key.owner, path, locked=True) is None:
                # Somebody may have made the folders without a sync; the record comes last, so
                # that whoever sees it need not sync them again.
                durable.fsync_folder(os.path.dirname(os.path.dirname(path)))
                durable.fsync_folder(os.path.dirname(path))
                durable.create_exclusively(f"{path}/session.json", encode_session(Session(key, created_at)))
        self._ready.add(key)
        return path

    def lock(self, key: SessionKey) -> AbstractContextManager[None]:
        """The lock of an existing session, between threads and processes."""
        with self._guard:
            lock = self._locks.get(key)
            if lock is None:
                lock = self._locks[key] = ProcessLock(f"{self.path(key)}/lock", _LOCK_SECONDS)
            self._recent.append(lock)  # making one is dearer than taking it
        return lock.held()

    def all(self, owner: str | None = None) -> list[Session]:
        """All sessions, or those of one owner, by name. Raises StoreUnavailable."""
        owners = self._listed() if owner is None else [owner_folder(owner)]
        found: list[Session] = []
        for folder in owners:
            for name in self._listed(folder):
                if session_of_folder(name) is None:
                    continue
                session = self._record(owner_of_folder(folder), self._state.path("sessions", folder, name))
                if session is not None:
                    found.append(session)
        return sorted(found, key=lambda session: session.key)

    def names(self, owner: str | None = None) -> list[SessionKey]:
        """The sessions as told from the names of the folders, no record read where none need be."""
        owners = self._listed() if owner is None else [owner_folder(owner)]
        found: list[SessionKey] = []
        for folder in owners:
            for name in self._listed(folder):
                session = session_of_folder(name)
                known = owner if owner is not None else self.owner_of(folder, name)
                if session is not None and known is not None:
                    found.append(SessionKey(known, session))
        return found

    def folders(self) -> list[tuple[str, str]]:
        """Names of the owner's and the session's folder of each session, be there a record or not."""
        found = [(owner, name) for owner in self._listed() for name in self._listed(owner)]
        return [(owner, name) for owner, name in found if session_of_folder(name) is not None]

    def owner_of(self, folder: str, session_name: str) -> str | None:
        """The owner that a folder belongs to, read from a session's record where the name is a hash."""
        owner = owner_of_folder(folder)
        if owner is None:
            owner = self._owners.get(folder)
        if owner is None:
            session = self._record(None, self._state.path("sessions", folder, session_name))
            if session is not None:
                owner = self._owners[folder] = session.key.owner
        return owner

    def task_ids(self, key: SessionKey) -> list[str]:
        """The ids of the tasks that have a record, in no order. Raises StoreUnavailable."""
        try:
            names = os.listdir(self.existing(key, "tasks"))
        except FileNotFoundError:
            return []
        except durable.UnsafeFile as error:
            self._state.report(f"session {key.session}: {error.message}")
            return []
        except OSError as error:
            raise durable.unavailable("listing tasks", error) from error
        ids = (name.removesuffix(".json") for name in names if name.endswith(".json"))
        return [task_id for task_id in ids if TASK_ID.fullmatch(task_id)]

    def remove_stale_temporaries(self, key: SessionKey) -> None:
        """Remove what a process that was killed had not finished to write."""
        for name in ("tasks", "keys"):
            durable.remove_stale_temporaries(f"{self.path(key)}/{name}")

    def read_entry(self, key: SessionKey, idempotency_key: str) -> str | None:
        """The task id under an idempotency key, whether the task exists or not.

        Raises:
            BrokenRecord: There is an entry that names no task.
        """
        try:
            path = f"{self.existing(key, 'keys')}/{_entry_name(idempotency_key)}"
            data = durable.read_private(path, 200, self._state.report)
        except FileNotFoundError:
            return None
        except durable.UnsafeFile as error:
            raise BrokenRecord(error.message) from error
        task_id = data.decode("ascii", "replace").strip()
        if not TASK_ID.fullmatch(task_id):
            raise BrokenRecord("the entry names no task")
        return task_id

    def write_entry(self, key: SessionKey, idempotency_key: str, task_id: str) -> None:
        """Let an idempotency key name a task, durably. Raises StoreUnavailable."""
        path = f"{self.path(key)}/keys/{_entry_name(idempotency_key)}"
        durable.make_private_folder(os.path.dirname(path), self._state.report)
        durable.write_durably(path, f"{task_id}\n".encode())

    def remove_entry(self, key: SessionKey, idempotency_key: str) -> None:
        """Forget an entry. One that stays names a task that is gone, and is free."""
        remove_tree(f"{self.path(key)}/keys/{_entry_name(idempotency_key)}")

    def set_entry_aside(self, key: SessionKey, idempotency_key: str, why: str) -> None:
        """Quarantine a broken entry. The caller holds the session's lock."""
        self._state.set_aside(f"{self.path(key)}/keys/{_entry_name(idempotency_key)}", why)

    def _record(self, owner: str | None, path: str, *, locked: bool = False) -> Session | None:
        """The session in a folder; None where there is no record. A broken one is set aside."""
        parent, name = os.path.split(path)
        folder = os.path.basename(parent)
        try:
            durable.real_folder(self._state.root, "sessions", folder, name)
            session = decode_session(durable.read_private(f"{path}/session.json", report=self._state.report))
        except FileNotFoundError:
            return None
        except NewerSchema as error:
            if locked:
                raise
            self._state.report(f"session {session_of_folder(name)}: {error.message}")
            return None
        except (BrokenRecord, durable.UnsafeFile) as error:
            return self._broken(owner, path, error.message, locked=locked)
        key = session.key
        if owner_folder(key.owner) != folder or session_folder(key.session) != name:
            return self._broken(owner, path, "it names another session than its folder", locked=locked)
        return session

    def _broken(self, owner: str | None, path: str, why: str, *, locked: bool) -> Session | None:
        session = session_of_folder(os.path.basename(path))
        if session is None:
            return None
        if locked:
            self._state.set_aside(f"{path}/session.json", why)
            return None
        # The tasks of the session are well, so it is listed still, with what is left of it, and
        # its record is written anew by the next task.
        self._state.report(f"session {session}: session.json could not be read ({why})")
        if owner is None:
            return None
        try:
            created_at = int(os.lstat(path).st_mtime * 1000)
        except OSError:
            return None
        return Session(SessionKey(owner, session), created_at)

    def _listed(self, *below: str) -> list[str]:
        """The real folders in `sessions/` or in an owner's, by name."""
        try:
            with os.scandir(durable.real_folder(self._state.root, "sessions", *below)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise durable.unavailable("listing sessions", error) from error


def _entry_name(idempotency_key: str) -> str:
    return sha256(idempotency_key.encode("utf-8", "surrogatepass")).hexdigest()
