"""The run folders of the SQLite store: which session they are of, which tasks they belong to, their end."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from itertools import count
from typing import Any

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import SessionKey, TaskKey
from mcp_tasks.stores import durable
from mcp_tasks.stores.folder_names import owner_folder, owner_of_folder, session_folder, session_of_folder
from mcp_tasks.stores.leftovers import runs_in
from mcp_tasks.stores.locks import ProcessLock
from mcp_tasks.stores.removal import remove_tree
from mcp_tasks.stores.run_folders import run_folder
from mcp_tasks.stores.state_folder import StateFolder

__all__ = ["RunRegistry"]

_LOCK_SECONDS = 10.0
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class RunRegistry:
    """Implements `leftovers.Folders` and `leftovers.Registered`, and removes what is cleared."""

    def __init__(self, state: StateFolder, select: Callable[..., list[tuple[Any, ...]]]) -> None:
        """Nothing is read yet.

        Args:
            state: The state directory.
            select: Runs a query on the records.
        """
        self._state = state
        self._select = select
        self._making = ProcessLock(state.path("sessions.lock"), _LOCK_SECONDS)

    def making(self) -> AbstractContextManager[None]:
        """Held while the folder of a session is made or taken away."""
        return self._making.held()

    def folders(self) -> list[tuple[str, str]]:
        """See `leftovers.Folders`."""
        found = [(owner, name) for owner in self._listed() for name in self._listed(owner)]
        return [(owner, name) for owner, name in found if session_of_folder(name) is not None]

    def owner_of(self, folder: str, session_name: str) -> str | None:
        """See `leftovers.Folders`. A name that is a hash is looked for among the owners."""
        known = owner_of_folder(folder)
        if known is not None:
            return known
        session = session_of_folder(session_name)
        owners = self._select("SELECT owner FROM sessions WHERE session = ?", session)
        return next((owner for (owner,) in owners if owner_folder(owner) == folder), None)

    def of(self, owner: str, session: str) -> frozenset[str]:
        """See `leftovers.Registered`."""
        whose, name = self.owner_of(owner, session), session_of_folder(session)
        rows = self._select("SELECT task_id FROM tasks WHERE owner = ? AND session = ?", whose, name)
        return frozenset(task_id for (task_id,) in rows)

    def has(self, owner: str, session: str, task_id: str) -> bool:
        """See `leftovers.Registered`."""
        whose, name = self.owner_of(owner, session), session_of_folder(session)
        query = "SELECT 1 FROM tasks WHERE owner = ? AND session = ? AND task_id = ?"
        return bool(self._select(query, whose, name, task_id))

    def remove(self, key: TaskKey, runs: int) -> int:
        """Remove the run folders of a task that is gone, and tell the bytes.

        Args:
            key: The task.
            runs: How many there were at least; they are numbered from 1.
        """
        thrown: list[str] = []
        for run in count(1):
            try:
                thrown.append(
                    self._state.throw_away(str(run_folder(self._state.root, key, run)), key.task_id)
                )
            except OSError:
                if run >= runs:
                    break
        return self._remove(thrown, f"the cleared task {key.task_id}")

    def remove_all(self, session: SessionKey) -> int:
        """Remove the run folders of a session that is gone, and tell the bytes.

        A folder of a task that is just being started is left: its session comes to be again.
        """
        owner, name = owner_folder(session.owner), session_folder(session.session)
        thrown: list[str] = []
        try:
            place = durable.real_folder(self._state.root, "sessions", owner, name, "runs")
            registered = self.of(owner, name)
            for task_id, run in list(runs_in(place)):
                if task_id not in registered and not _is_locked(f"{place}/{task_id}.{run}"):
                    with suppress(FileNotFoundError):
                        thrown.append(self._state.throw_away(f"{place}/{task_id}.{run}", task_id))
            with self._making.held():
                for folder in (place, os.path.dirname(place), os.path.dirname(os.path.dirname(place))):
                    os.rmdir(folder)
        except FileNotFoundError:
            pass
        except (OSError, StoreUnavailable):
            # Somebody is starting something in it, or a link is there: what is left can stay.
            pass
        return self._remove(thrown, f"the cleared session {session.session}")

    def _remove(self, thrown: list[str], whose: str) -> int:
        freed = 0
        for path in thrown:
            try:
                freed += remove_tree(path)
            except StoreUnavailable as error:
                self._state.report(f"files of {whose} are left in trash/: {error.message}")
        return freed

    def _listed(self, *below: str) -> list[str]:
        try:
            with os.scandir(durable.real_folder(self._state.root, "sessions", *below)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise durable.unavailable("listing sessions", error) from error


def _is_locked(folder: str) -> bool:
    """Whether somebody holds a run's folder, as who starts it does until it is registered."""
    descriptor = os.open(folder, _FOLDER)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
