"""Which task of a session holds an idempotency key: one small file per key, derived from the records."""

from __future__ import annotations

import os
from hashlib import sha256

from mcp_tasks.codec import BrokenRecord
from mcp_tasks.models import TASK_ID, SessionKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.removal import remove_tree
from mcp_tasks.stores.disk.state_folder import StateFolder
from mcp_tasks.stores.json.session_folders import SessionFolders

__all__ = ["KeyEntries"]


class KeyEntries:
    """The entries in `keys/` of every session, named by a hash of the key."""

    def __init__(self, state: StateFolder, sessions: SessionFolders) -> None:
        """Nothing is read yet."""
        self._state = state
        self._sessions = sessions

    def read(self, session: SessionKey, idempotency_key: str) -> str | None:
        """The task id under an idempotency key, whether the task exists or not.

        Raises:
            BrokenRecord: There is an entry that names no task.
        """
        return self.read_named(session, _entry_name(idempotency_key))

    def read_named(self, session: SessionKey, name: str) -> str | None:
        """The same by the name of the entry's file."""
        try:
            path = f"{self._sessions.existing(session, 'keys')}/{name}"
            data = durable.read_private(path, 200, self._state.report)
        except FileNotFoundError:
            return None
        except durable.UnsafeFile as error:
            raise BrokenRecord(error.message) from error
        task_id = data.decode("ascii", "replace").strip()
        if not TASK_ID.fullmatch(task_id):
            raise BrokenRecord("the entry names no task")
        return task_id

    def write(self, session: SessionKey, idempotency_key: str, task_id: str) -> None:
        """Let an idempotency key name a task, durably. Raises StoreUnavailable."""
        path = self._path(session, idempotency_key)
        durable.make_private_folder(os.path.dirname(path), self._state.report)
        durable.write_durably(path, f"{task_id}\n".encode())

    def remove(self, session: SessionKey, idempotency_key: str) -> None:
        """Forget an entry. One that stays names a task that is gone, and is free."""
        remove_tree(self._path(session, idempotency_key))

    def set_aside(self, session: SessionKey, idempotency_key: str, why: str) -> None:
        """Quarantine a broken entry. The caller holds the session's lock."""
        self._state.set_aside(self._path(session, idempotency_key), why)

    def _path(self, session: SessionKey, idempotency_key: str) -> str:
        return f"{self._sessions.path(session)}/keys/{_entry_name(idempotency_key)}"


def _entry_name(idempotency_key: str) -> str:
    return sha256(idempotency_key.encode("utf-8", "surrogatepass")).hexdigest()
