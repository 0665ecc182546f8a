"""What killed processes left of runs: folders without a record, launches that nobody will start.

A folder is taken away only while nobody can be about to register its task: who starts one holds the
folder's lock until the record is written, who parks one holds the right to admit.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from mcp_tasks.clock import new_task_id
from mcp_tasks.errors import StoreUnavailable, TaskNotFound
from mcp_tasks.models import TASK_ID, Task, TaskKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.folder_names import session_of_folder
from mcp_tasks.stores.disk.locks import ProcessLock
from mcp_tasks.stores.disk.removal import remove_tree
from mcp_tasks.stores.disk.state_folder import StateFolder

__all__ = ["Folders", "Leftovers", "RecordFiles", "Registered", "runs_in"]

_LAUNCH = "launch"
_DATABASE = re.compile(r"(\d{1,14})-[0-9a-f]{8}-records\.db")
_BREATH_S = 0.001
"""Where there is very much to look at, the threads that answer calls get their turn in between."""
_MANY = 100
_MOMENT = 10
"""So many characters of an id tell when the task was made."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_NOW = (errno.EAGAIN, errno.ENOENT)

_log = logging.getLogger(__name__)


class Folders(Protocol):
    """Where runs can be."""

    def folders(self) -> list[tuple[str, str]]:
        """Names of the owner's and the session's folder of each session."""
        ...

    def owner_of(self, folder: str, session_name: str) -> str | None:
        """The owner that an owner's folder belongs to, None where that cannot be told."""
        ...


class Registered(Protocol):
    """Which tasks have a record."""

    def of(self, owner: str, session: str) -> frozenset[str]:
        """Ids of the tasks of a session, named by its two folders. Raises StoreUnavailable, OSError."""
        ...

    def has(self, owner: str, session: str, task_id: str) -> bool:
        """Whether one of them is there now. Raises StoreUnavailable, OSError."""
        ...


class RecordFiles:
    """The records of the JSON store."""

    def __init__(self, state: StateFolder) -> None:
        """Nothing is read yet."""
        self._state = state

    def of(self, owner: str, session: str) -> frozenset[str]:
        """See `Registered`."""
        try:
            names = os.listdir(durable.real_folder(self._state.root, "sessions", owner, session, "tasks"))
        except FileNotFoundError:
            return frozenset()  # killed before the first task of the session was registered
        return frozenset(name.removesuffix(".json") for name in names if name.endswith(".json"))

    def has(self, owner: str, session: str, task_id: str) -> bool:
        """See `Registered`."""
        try:
            os.lstat(self._state.path("sessions", owner, session, "tasks", f"{task_id}.json"))
        except FileNotFoundError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Orphan:
    """A run folder that had no record when it was listed."""

    path: str
    owner: str
    session: str
    task_id: str


class Leftovers:
    """Finds and removes them, in all sessions. Safe beside everything that other processes do."""

    def __init__(
        self,
        state: StateFolder,
        sessions: Folders,
        load: Callable[[TaskKey], Task],
        admission: ProcessLock,
        now: Callable[[], float],
        *,
        registered: Registered | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            state: The state directory.
            sessions: Where the runs are.
            load: Reads a task. Raises TaskNotFound, StoreUnavailable.
            admission: Held by whoever parks a task, until the task is registered.
            now: Seconds since the epoch; tells what is old enough.
            registered: Which tasks have a record; files in the sessions' folders unless told otherwise.
        """
        self._state = state
        self._sessions = sessions
        self._load = load
        self._admission = admission
        self._now = now
        self._registered = registered or RecordFiles(state)

    def remove(self) -> None:
        """See `ports.Store.sweep`. One session or run that cannot be swept does not keep the others."""
        for owner, session in self._sessions.folders():
            time.sleep(_BREATH_S)
            try:
                orphans = self._look_through(owner, session)
            except durable.UnsafeFile as error:
                self._state.report(f"session {session_of_folder(session)}: {error.message}")
                continue
            except (StoreUnavailable, OSError) as error:
                _log.warning("the runs of a session could not be swept: %s", error)
                continue
            for orphan in orphans:
                self._remove(orphan)

    def _look_through(self, owner: str, session: str) -> list[_Orphan]:
        """The runs without a record; on the way, launches of tasks that are final are removed."""
        way = ("sessions", owner, session)
        try:
            runs = durable.real_folder(self._state.root, *way, "runs")
        except FileNotFoundError:
            return []
        # In this order: a record is made after its run, and moves from `tasks/` to `quarantine/`.
        found = list(runs_in(runs))
        recorded = self._registered.of(owner, session)
        kept: frozenset[str] | None = None
        since = ""
        orphans: list[_Orphan] = []
        for number, (task_id, run) in enumerate(found, 1):
            if number % _MANY == 0:
                time.sleep(_BREATH_S)
            path = f"{runs}/{task_id}.{run}"
            if task_id in recorded:
                if os.path.lexists(f"{path}/{_LAUNCH}"):
                    self._remove_launch(path, owner, session, task_id)
                continue
            if kept is None:
                kept, since = self._set_aside()
            if task_id not in kept and task_id >= since and self._is_old(path):
                orphans.append(_Orphan(path, owner, session, task_id))
        return orphans

    def _set_aside(self) -> tuple[frozenset[str], str]:
        """The tasks whose record is in quarantine: what they wrote is kept with it.

        And the least id of those that came after the newest database that lies there as a whole: of the
        older ones nobody knows any more which had a record in it.
        """
        names = os.listdir(self._state.path("quarantine"))
        lost = [int(found[1]) for name in names if (found := _DATABASE.match(name))]
        since = new_task_id(max(lost))[:_MOMENT] if lost else ""
        return frozenset(name.rpartition("~")[2].partition(".")[0] for name in names), since

    def _is_old(self, path: str) -> bool:
        try:
            return self._now() - os.lstat(path).st_mtime > durable.STALE_SECONDS
        except FileNotFoundError:
            return False

    def _remove_launch(self, path: str, owner: str, session: str, task_id: str) -> None:
        name, whose = session_of_folder(session), self._sessions.owner_of(owner, session)
        if name is None or whose is None:
            return
        try:
            task = self._load(TaskKey(whose, name, task_id))
            if task.is_final:  # of a further run as well, which will not come
                os.unlink(f"{path}/{_LAUNCH}")
        except (TaskNotFound, FileNotFoundError):
            return
        except (StoreUnavailable, OSError) as error:
            _log.warning("a launch that is not needed any more could not be removed: %s", error)

    def _remove(self, orphan: _Orphan) -> None:
        with self._admission.held():
            try:
                trash = self._taken_out(orphan)
            except (OSError, StoreUnavailable) as error:
                if not isinstance(error, OSError) or error.errno not in _NOT_NOW:
                    _log.warning("a run without a task could not be removed: %s", error)
                return
        if trash is None:
            return
        try:
            remove_tree(trash)
        except StoreUnavailable as error:
            self._state.report(f"files of a run without a task are left in trash/: {error.message}")

    def _taken_out(self, orphan: _Orphan) -> str | None:
        """Where it lies now; None where it got a record meanwhile. Raises BlockingIOError for one in use."""
        folder = os.open(orphan.path, _FOLDER)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._registered.has(orphan.owner, orphan.session, orphan.task_id):
                return None
            return self._state.throw_away(orphan.path, orphan.task_id)
        finally:
            os.close(folder)


def runs_in(folder: str) -> Iterator[tuple[str, str]]:
    """Task id and number of each run; what else lies there is none of ours."""
    with os.scandir(folder) as entries:
        for entry in entries:
            task_id, _, run = entry.name.partition(".")
            named = TASK_ID.fullmatch(task_id) and run.isascii() and run.isdigit()
            if named and entry.is_dir(follow_symlinks=False):
                yield task_id, run
