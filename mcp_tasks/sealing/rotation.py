"""Another key for everything that is sealed, while servers run.

First the new key, which every server seals with from then on; then whatever is still sealed with an older
one is sealed anew, piece by piece, each in one write of its own. So it may be stopped anywhere and called
again. Old keys stay: archives and backups need them, and nobody knows where all of those are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from mcp_tasks.errors import NotSupported, RevisionConflict, SessionNotFound, StoreUnavailable, TaskNotFound
from mcp_tasks.models import Session, TaskKey
from mcp_tasks.ports import Executor, Journal, Store
from mcp_tasks.sealing.sealer import KeyedSealer

__all__ = ["Resealed", "reseal", "rotate"]

log = logging.getLogger(__name__)

_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Resealed:
    """What was sealed anew.

    Attributes:
        key_id: Of the key that everything has now.
        unreadable: What is still as it was: its key is missing, or it is damaged.
        hooks: Of tasks, which are still to be told.
        older: Ids of the keys that are kept for what was not looked at: archives, backups, other stores.
    """

    key_id: str
    sessions: int
    messages: int
    launches: int
    unreadable: int
    older: tuple[str, ...]
    hooks: int = 0


class Outbox(Protocol):
    """Where the hooks of tasks are kept that are still to be told."""

    def reseal(self, renewed: Callable[[str], str | None]) -> tuple[int, int]:
        """Seal everything anew. Returns for how many tasks, and of how many it cannot be read."""
        ...


def rotate(
    sealer: KeyedSealer, store: Store, journal: Journal, executor: Executor, outbox: Outbox | None = None
) -> Resealed:
    """Make a new key, where the keys are made here, and seal everything with the newest one.

    Raises:
        StoreUnavailable: The key, the store or the journal cannot be written now; call it again.
    """
    # Where keys come from the environment, whoever starts the servers has put a new one there.
    with suppress(NotSupported):
        sealer.source.add()
    return reseal(sealer, store, journal, executor, outbox)


def reseal(
    sealer: KeyedSealer, store: Store, journal: Journal, executor: Executor, outbox: Outbox | None = None
) -> Resealed:
    """Seal everything with the newest key that is not. Raises as `rotate` does."""
    sessions, unreadable = _reseal_sessions(sealer, store)
    messages, more = journal.reseal(sealer.renewed)
    unreadable += more
    launches = 0
    for key in store.unfinished():
        done, failed = _reseal_launches(store, executor, key)
        launches += done
        unreadable += failed
    hooks, more = (0, 0) if outbox is None else outbox.reseal(sealer.renewed)
    unreadable += more
    older = tuple(sealer.source.older())
    return Resealed(sealer.source.newest().key_id, sessions, messages, launches, unreadable, older, hooks)


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
        targets = sealer.renewed_values(_targets(session))
        if env is None and targets is None:
            return False
        hooks = tuple(
            replace(hook, target=(targets or {}).get(str(number), hook.target))
            for number, hook in enumerate(session.hooks)
        )
        workspace = session.workspace if env is None else replace(session.workspace, env=env)
        try:
            store.replace_session(replace(session, workspace=workspace, hooks=hooks))
            return True
        except RevisionConflict:
            session = store.load_session(session.key)
    raise StoreUnavailable("the session is being changed again and again", "try again")


def _targets(session: Session) -> dict[str, str]:
    """What the hooks of a session call, sealed, by their numbers."""
    return {str(number): hook.target for number, hook in enumerate(session.hooks) if hook.target is not None}


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
