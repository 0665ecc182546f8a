"""Where the folder of a session is, which there are, and their locks."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from contextlib import AbstractContextManager, suppress
from weakref import WeakValueDictionary

from mcp_tasks.codec import BrokenRecord, decode_session, decode_task
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import SESSION_NAME, TASK_ID, SessionKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.folder_names import (
    owner_folder,
    owner_of_folder,
    session_folder,
    session_of_folder,
)
from mcp_tasks.stores.disk.locks import ProcessLock
from mcp_tasks.stores.disk.state_folder import StateFolder

__all__ = ["SessionFolders"]

_LOCK_SECONDS = 10.0
_MOST_LOOKED_INTO = 20
_RECORD = re.compile(rf"{TASK_ID.pattern}\.json", re.ASCII)
_ALL_RECORDS = re.compile(rf"(?:{TASK_ID.pattern}\.json(?:\n|\Z))*+", re.ASCII)


class SessionFolders:
    """All sessions below `sessions/<owner>/<session>/`."""

    def __init__(self, state: StateFolder) -> None:
        """Nothing is read yet."""
        self._state = state
        self._guard = threading.Lock()
        self._owners: dict[str, str] = {}
        self._locks: WeakValueDictionary[str, ProcessLock] = WeakValueDictionary()
        self._recent: deque[ProcessLock] = deque(maxlen=64)
        self._making = ProcessLock(state.path("sessions.lock"), _LOCK_SECONDS)

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
            StoreUnavailable: The state directory itself is gone, so nobody can tell.
        """
        if not SESSION_NAME.fullmatch(key.session):
            raise FileNotFoundError(key.session)
        names = (owner_folder(key.owner), session_folder(key.session))
        try:
            return durable.real_folder(self._state.root, "sessions", *names, *below)
        except FileNotFoundError:
            self._require_root()
            raise

    def _require_root(self) -> None:
        if not os.path.lexists(self._state.path("sessions")):
            raise StoreUnavailable(
                "the state directory is gone", "bring it back, or restart the server to begin anew"
            )

    def lock(self, key: SessionKey) -> AbstractContextManager[None]:
        """The lock of a session, between threads and processes. Raises FolderGone without one."""
        return self.lock_of(self.path(key))

    def lock_of(self, path: str) -> AbstractContextManager[None]:
        """The lock of the session in a folder; see `lock`."""
        with self._guard:
            lock = self._locks.get(path)
            if lock is None:
                lock = self._locks[path] = ProcessLock(f"{path}/lock", _LOCK_SECONDS)
            self._recent.append(lock)  # making one is dearer than taking it
        return lock.held()

    def making(self) -> AbstractContextManager[None]:
        """Held while the folder of a session is made or taken away, before the lock that is in it."""
        return self._making.held()

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
        """The owner that a folder belongs to, read from a record inside where the name is a hash."""
        owner = owner_of_folder(folder)
        if owner is None:
            owner = self._owners.get(folder)
        if owner is None:
            owner = self._owner_inside(folder, session_name)
            if owner is not None:
                self._owners[folder] = owner
        return owner

    def task_ids(self, key: SessionKey) -> list[str]:
        """The ids of the tasks that have a record, in no order. Raises StoreUnavailable."""
        return [name[:-5] for name in self.record_names(key, "tasks")]

    def record_names(self, key: SessionKey, below: str) -> list[str]:
        """The names of the records in `tasks` or `plans`, in no order. Raises StoreUnavailable."""
        try:
            names = os.listdir(self.existing(key, below))
        except FileNotFoundError:
            return []
        except durable.UnsafeFile as error:
            self._state.report(f"session {key.session}: {error.message}")
            return []
        except OSError as error:
            raise durable.unavailable(f"listing {below}", error) from error
        if _ALL_RECORDS.fullmatch("\n".join(names)):  # much faster than to look at each
            return names
        return [name for name in names if _RECORD.fullmatch(name)]

    def remove_stale_temporaries(self, key: SessionKey) -> None:
        """Remove what a process that was killed had not finished to write."""
        for name in ("tasks", "keys", "plans"):
            durable.remove_stale_temporaries(f"{self.path(key)}/{name}")

    def _owner_inside(self, folder: str, session_name: str) -> str | None:
        with suppress(OSError, StoreUnavailable):
            path = durable.real_folder(self._state.root, "sessions", folder, session_name)
            with suppress(FileNotFoundError, BrokenRecord, StoreUnavailable):
                owner = decode_session(durable.read_private(f"{path}/session.json")).key.owner
                if owner_folder(owner) == folder:
                    return owner
            # The record of the session is broken, those of its tasks say the same.
            for name in os.listdir(durable.real_folder(path, "tasks"))[:_MOST_LOOKED_INTO]:
                with suppress(FileNotFoundError, BrokenRecord, StoreUnavailable):
                    owner = decode_task(durable.read_private(f"{path}/tasks/{name}")).key.owner
                    if owner_folder(owner) == folder:
                        return owner
        return None

    def _listed(self, *below: str) -> list[str]:
        """The real folders in `sessions/` or in an owner's, by name."""
        try:
            with os.scandir(durable.real_folder(self._state.root, "sessions", *below)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            self._require_root()
            return []
        except OSError as error:
            raise durable.unavailable("listing sessions", error) from error
