"""Another key for everything that is sealed, while servers run.

First the new key, which every server seals with from then on; then whatever is still sealed with an older
one is sealed anew, piece by piece, each in one write of its own. So it may be stopped anywhere and called
again. Old keys stay, for archives and backups, until `forget_old_keys` finds that nothing needs them.
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mcp_tasks.errors import NotSupported, RevisionConflict, SessionNotFound, StoreUnavailable, TaskNotFound
from mcp_tasks.models import Session, TaskKey
from mcp_tasks.ports import Executor, Journal, Store
from mcp_tasks.sealing.sealer import KeyedSealer

__all__ = ["Resealed", "forget_old_keys", "reseal", "rotate"]

log = logging.getLogger(__name__)

_ATTEMPTS = 10
_FOLDERS = ("archive", "backups")
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Resealed:
    """What was sealed anew.

    Attributes:
        key_id: Of the key that everything has now.
        unreadable: What is still as it was: its key is missing, or it is damaged.
        older: Ids of the keys that are kept for what was not looked at: archives, backups, other stores.
    """

    key_id: str
    sessions: int
    messages: int
    launches: int
    unreadable: int
    older: tuple[str, ...]


def rotate(sealer: KeyedSealer, store: Store, journal: Journal, executor: Executor) -> Resealed:
    """Make a new key, where the keys are made here, and seal everything with the newest one.

    Raises:
        StoreUnavailable: The key, the store or the journal cannot be written now; call it again.
    """
    # Where keys come from the environment, whoever starts the servers has put a new one there.
    with suppress(NotSupported):
        sealer.source.add()
    return reseal(sealer, store, journal, executor)


def reseal(sealer: KeyedSealer, store: Store, journal: Journal, executor: Executor) -> Resealed:
    """Seal everything with the newest key that is not. Raises as `rotate` does."""
    sessions, unreadable = _reseal_sessions(sealer, store)
    messages, more = journal.reseal(sealer.renewed)
    unreadable += more
    launches = 0
    for key in store.unfinished():
        done, failed = _reseal_launches(store, executor, key)
        launches += done
        unreadable += failed
    older = tuple(sealer.source.older())
    return Resealed(sealer.source.newest().key_id, sessions, messages, launches, unreadable, older)


def forget_old_keys(sealer: KeyedSealer, state: Path) -> tuple[list[str], list[str]]:
    """Drop the keys that nothing in the archives and backups of a store is sealed with.

    For a store whose `reseal` left nothing unreadable, a minute or more after the new key was made: until
    then another server may be writing what it sealed a moment before. Other stores of the same keys
    are to be resealed before, too.

    Returns:
        The ids of the keys that are gone, and of those that are still needed.
    """
    older = sealer.source.older()
    needed = _keys_in_use(state, older)
    gone = [key_id for key_id in older if key_id not in needed]
    sealer.source.drop(gone)
    return gone, sorted(needed)


def _reseal_sessions(sealer: KeyedSealer, store: Store) -> tuple[int, int]:
    done = unreadable = 0
    for session in store.sessions():
        try:
            done += _reseal_session(sealer, store, session)
        except SessionNotFound:
            continue
        except StoreUnavailable as error:
            log.warning("the environment of session %s stays as it is: %s", session.key.session, error)
            unreadable += 1
    return done, unreadable


def _reseal_session(sealer: KeyedSealer, store: Store, session: Session) -> bool:
    for _ in range(_ATTEMPTS):
        env = sealer.renewed_values(session.workspace.env)
        if env is None:
            return False
        try:
            store.replace_session(replace(session, workspace=replace(session.workspace, env=env)))
            return True
        except RevisionConflict:
            session = store.load_session(session.key)
    raise StoreUnavailable("the session is being changed again and again", "try again")


def _reseal_launches(store: Store, executor: Executor, key: TaskKey) -> tuple[int, int]:
    """Those of a task that waits, and of the run that comes after the present one."""
    done = failed = 0
    # Nothing is started meanwhile, so no launch is put back that was taken away.
    with store.admission(), suppress(TaskNotFound):
        task = store.load(key)
        if task.is_final:
            return 0, 0
        for run in (task.run, task.run + 1):
            try:
                done += executor.reseal(store.run_folder(key, run))
            except StoreUnavailable as error:
                log.warning("the launch of task %s stays as it is: %s", key.task_id, error)
                failed += 1
    return done, failed


def _keys_in_use(state: Path, key_ids: Collection[str]) -> set[str]:
    if not key_ids:
        return set()
    mark = re.compile(b"sealed1\\.(%s)\\." % b"|".join(re.escape(key_id.encode()) for key_id in key_ids))
    found: set[str] = set()
    for folder in _FOLDERS:
        for place, _, names in os.walk(state / folder):
            for name in names:
                rest = b""
                for piece in _pieces(Path(place, name)):
                    found.update(match[1].decode() for match in mark.finditer(rest + piece))
                    rest = piece[-100:]
    return found


def _pieces(path: Path) -> Iterator[bytes]:
    """The content of a file, decompressed. One that cannot be read keeps every key: it raises."""
    try:
        with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as file:
            while piece := file.read(_PIECE):
                yield piece
    except (OSError, EOFError, zlib.error) as error:
        raise StoreUnavailable(
            f"{path.name} cannot be read, so nobody knows which keys it needs", "see `doctor`"
        ) from error
