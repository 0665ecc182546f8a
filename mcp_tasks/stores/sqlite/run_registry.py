"""The run folders of the SQLite store: which session they are of, which tasks they belong to, their end."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, suppress
from itertools import count
from typing import Any

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import SessionKey, TaskKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.folder_names import (
    owner_folder,
    owner_of_folder,
    session_folder,
    session_of_folder,
)
from mcp_tasks.stores.disk.leftovers import runs_in
from mcp_tasks.stores.disk.locks import ProcessLock
from mcp_tasks.stores.disk.removal import remove_tree
from mcp_tasks.stores.disk.run_folders import run_folder
from mcp_tasks.stores.disk.state_folder import StateFolder

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

    def is_starting(self, session: SessionKey, registered: Collection[str]) -> bool:
        """Whether somebody is about to register a task in a session; see `leftovers`.

        Args:
            session: Whose run folders are looked at.
            registered: Ids of its tasks. The folder of a final one may be held as well, by a supervisor
                that is about to leave.
        """
        return any(_is_locked(path) for task_id, path in self._runs_of(session) if task_id not in registered)

    def remove_all(self, session: SessionKey, task_ids: Collection[str]) -> int:
        """Remove the run folders of a session that is gone, and tell the bytes.

        Any other folder is of a task that is about to be registered, and its session comes to be again; or
        it was left over, and is swept.

        Args:
            session: That was removed just now.
            task_ids: Its tasks.
        """
        owner, name = owner_folder(session.owner), session_folder(session.session)
        thrown: list[str] = []
        for task_id, path in self._runs_of(session):
            if task_id in task_ids:
                with suppress(OSError):  # what is left is swept
                    thrown.append(self._state.throw_away(path, task_id))
        place = self._state.path("sessions", owner, name)
        with suppress(OSError), self._making.held():
            for folder in (f"{place}/runs", place, os.path.dirname(place)):
                os.rmdir(folder)
        return self._remove(thrown, f"the cleared session {session.session}")

    def _runs_of(self, session: SessionKey) -> list[tuple[str, str]]:
        """Task id and path of each run folder of a session."""
        names = (owner_folder(session.owner), session_folder(session.session), "runs")
        try:
            place = durable.real_folder(self._state.root, "sessions", *names)
            return [(task_id, f"{place}/{task_id}.{run}") for task_id, run in runs_in(place)]
        except FileNotFoundError:
            return []
        except durable.UnsafeFile as error:
            self._state.report(f"session {session.session}: {error.message}")
            return []
        except OSError as error:
            raise durable.unavailable("listing runs", error) from error

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
    try:
        descriptor = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
