"""Which tasks of a session are final and how they ended, derived: one line per task in `finals`.

A final state hardly ever changes, so a line once written is right for as long as the task is there; one
that is to change is taken back first. Which tasks are there is told by the names of the records and by
nothing else; a task without a line is read, and gets one. So the file may be missing, cut off or behind
at any time, and is not synced, but for what is taken back.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import SessionKey, StateName, Task
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.syncing import sync
from mcp_tasks.stores.json.session_folders import SessionFolders

__all__ = ["Finals"]

# No two of these letters are one flipped bit apart.
_LETTERS: Mapping[StateName, str] = {"completed": "c", "failed": "f", "cancelled": "x", "lost": "l"}
_NAMES: Mapping[str, StateName] = {letter: name for name, letter in _LETTERS.items()}
_WITHDRAWN = "o"
_WIDTH = 38
_LINE = re.compile(rb"[0-9a-z]{36}[cfxlo]")
_LINES = re.compile(rb"(?:[0-9a-z]{36}[cfxlo]\n)*+")
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_KEPT = 250_000
_FEW_DEAD = 1_000

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """What was read of one file.

    Attributes:
        inode: Which file it was.
        read: How many bytes of it.
        lines: How many of ours.
        is_damaged: Whether there were others.
    """

    inode: int = 0
    read: int = 0
    lines: int = 0
    is_damaged: bool = False
    states: dict[str, StateName] = field(default_factory=dict)
    tally: Counter[StateName] = field(default_factory=Counter)

    def take(self, lines: list[str]) -> None:
        """Learn what lines say; of two about the same task the later one is right."""
        said = {line[:36]: line[36] for line in lines}
        for task_id in said.keys() & self.states.keys():
            self.tally[self.states.pop(task_id)] -= 1
        new = {task_id: _NAMES[letter] for task_id, letter in said.items() if letter != _WITHDRAWN}
        self.tally.update(new.values())
        self.states.update(new)


class Finals:
    """The files of all sessions. Safe for many threads and many processes."""

    def __init__(self, sessions: SessionFolders) -> None:
        """Nothing is read yet."""
        self._sessions = sessions
        self._guard = threading.Lock()
        self._known: dict[SessionKey, _Known] = {}
        self._kept = 0

    def states(self, session: SessionKey) -> Mapping[str, StateName]:
        """The final states that are written down, of tasks that may be gone meanwhile.

        What is returned must not be changed, and grows when it is asked for again.
        """
        return self.tally(session)[0]

    def tally(self, session: SessionKey) -> tuple[Mapping[str, StateName], Mapping[StateName, int]]:
        """The same, and how many are in each state."""
        with self._guard:
            known = self._known.pop(session, None) or _Known()
            before = len(known.states)
            self._catch_up(known, f"{self._sessions.path(session)}/finals")
            self._known[session] = known  # the newest comes last
            self._kept += len(known.states) - before
            while self._kept > _MOST_KEPT and len(self._known) > 1:
                self._kept -= len(self._known.pop(next(iter(self._known))).states)
            return known.states, Counter(known.tally)

    def add(self, session: SessionKey, tasks: Iterable[Task]) -> None:
        """Write down the states of tasks whose final records are on the disk. Never fails."""
        lines = [f"{task.key.task_id}{_LETTERS[task.state_name]}\n" for task in tasks if task.is_final]
        if not lines:
            return
        try:
            self._append(session, "".join(lines))
        except OSError as error:
            _log.info("the end of a task could not be written into the index: %s", error)

    def withdraw(self, session: SessionKey, task_id: str) -> None:
        """Take back what is written of a task, before its record says otherwise. Raises StoreUnavailable."""
        try:
            self._append(session, f"{task_id}{_WITHDRAWN}\n", lasting=True)
        except OSError as error:
            raise durable.unavailable("writing the index of a session", error) from error

    def _append(self, session: SessionKey, lines: str, *, lasting: bool = False) -> None:
        data = lines.encode()
        descriptor = os.open(f"{self._sessions.path(session)}/finals", _APPEND, 0o600)
        try:
            if os.write(descriptor, data) < len(data):  # the rest would not be one with it any more
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if lasting:
                sync(descriptor)
        finally:
            os.close(descriptor)

    def compact(self, session: SessionKey, there: Sequence[str]) -> None:
        """Write the file anew where it is damaged, or most of its lines are of tasks that are gone.

        Args:
            session: Whose file.
            there: The ids of the tasks that have a record.
        """
        with self._guard:
            known = self._known.get(session)
            if known is None:
                return
            if not known.is_damaged and known.lines - len(there) <= max(len(there), _FEW_DEAD):
                return
        with suppress(StoreUnavailable), self._sessions.lock(session):
            # Under the lock nobody takes a line back. One that is added meanwhile is lost, and is written
            # again when it is missed.
            path = f"{self._sessions.path(session)}/finals"
            with self._guard:
                before = len(known.states)
                self._catch_up(known, path)
                live = {task_id: known.states[task_id] for task_id in there if task_id in known.states}
                if self._known.get(session) is known:
                    self._kept += len(live) - before
                known.states, known.tally, known.read, known.lines = live, Counter(live.values()), 0, 0
            lines = "".join(f"{task_id}{_LETTERS[state]}\n" for task_id, state in live.items())
            durable.write_durably(path, lines.encode())

    def forget(self, session: SessionKey) -> None:
        """Give back what was read of a session."""
        with self._guard:
            self._kept -= len(self._known.pop(session, _Known()).states)

    def clear(self) -> None:
        """Give back everything."""
        with self._guard:
            self._known.clear()
            self._kept = 0

    def _catch_up(self, known: _Known, path: str) -> None:
        """Read what was added since, or all of it where the file is another one, or shorter."""
        try:
            descriptor = os.open(path, _READ)
        except OSError:
            known.inode, known.read, known.lines, known.is_damaged = 0, 0, 0, False
            return
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return
            if found.st_ino != known.inode or found.st_size < known.read:
                known.inode, known.read, known.lines, known.is_damaged = found.st_ino, 0, 0, False
            new = _read_from(descriptor, known.read, found.st_size)
        except OSError as error:
            _log.warning("the index of a session cannot be read: %s", error)
            return
        finally:
            os.close(descriptor)
        new = new[: new.rfind(b"\n") + 1]  # the last line may be on its way
        known.read += len(new)
        if not _LINES.fullmatch(new):
            _log.warning("the index of a session is damaged in places, what is missing is read again")
            new = b"".join(line + b"\n" for line in new.split(b"\n") if _LINE.fullmatch(line))
            known.is_damaged = True
        known.lines += len(new) // _WIDTH
        known.take(new.decode("ascii").splitlines())


def _read_from(descriptor: int, offset: int, size: int) -> bytes:
    pieces: list[bytes] = []
    while offset < size and (piece := os.pread(descriptor, size - offset, offset)):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)
