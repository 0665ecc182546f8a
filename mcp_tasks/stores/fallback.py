"""Where a task goes when the store cannot be written: into memory, said so, until the server ends."""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from mcp_tasks.errors import SessionNotFound, StoreUnavailable, TaskNotFinished
from mcp_tasks.models import Plan, PlanKey, Session, SessionKey, StateName, Task, TaskKey
from mcp_tasks.ports import Store
from mcp_tasks.stores.memory.finished import Usage
from mcp_tasks.stores.memory.store import MemoryStore

__all__ = ["FallbackStore"]


class FallbackStore:
    """A store with another one behind it, for new tasks that it cannot take.

    Which store a task lives in is decided once, before anything is written (`divert`), and never
    changes. See `ports.Store` for the methods.
    """

    def __init__(self, primary: Store, make_refuge: Callable[[], Store]) -> None:
        self._primary = primary
        self._make_refuge = make_refuge
        self._tell_end: list[Callable[[Task], None]] = []
        self._refuge: Store | None = None
        self._diverted: set[TaskKey] = set()
        self._lock = threading.Lock()
        self.durable = primary.durable
        self.slots: Path = primary.slots

    def tell_ends(self, tell: Callable[[Task], None]) -> None:
        """Have `tell` called for each task that becomes final through this store.

        Over all servers that is once for each task: of those who see its end one wins the compare-and-set.
        """
        self._tell_end.append(tell)

    def divert(self, key: TaskKey) -> Path:
        """Let a task that is not registered yet live in the refuge; returns the refuge's slots.

        Raises StoreUnavailable where there is no room for a refuge either.
        """
        with self._lock:
            if self._refuge is None:
                try:
                    self._refuge = self._make_refuge()
                except OSError as error:
                    raise StoreUnavailable(
                        f"there is no room in the temporary folder ({error.strerror})"
                    ) from error
            self._diverted.add(key)
            return self._refuge.slots

    def is_diverted(self, key: TaskKey) -> bool:
        """Whether a task lives in the refuge, and ends with this process."""
        return key in self._diverted

    def diverted(self) -> list[TaskKey]:
        """The tasks in the refuge that are not final."""
        return self._refuge.unfinished() if self._refuge is not None else []

    def _of(self, key: TaskKey) -> Store:
        return self._refuge if self._refuge is not None and key in self._diverted else self._primary

    def create(self, task: Task) -> None:
        """See `ports.Store`."""
        self._of(task.key).create(task)

    def load(self, key: TaskKey) -> Task:
        """See `ports.Store`."""
        return self._of(key).load(key)

    def locate(self, owner: str, task_id: str) -> TaskKey:
        """See `ports.Store`."""
        for key in self._diverted.copy():  # other threads change it
            if (key.owner, key.task_id) == (owner, task_id):
                return key
        return self._primary.locate(owner, task_id)

    def replace(self, task: Task) -> Task:
        """See `ports.Store`."""
        stored = self._of(task.key).replace(task)
        if stored.is_final:
            for tell in self._tell_end:
                tell(stored)
        return stored

    def delete(self, key: TaskKey) -> int:
        """See `ports.Store`."""
        freed = self._of(key).delete(key)
        self._diverted.discard(key)
        return freed

    def find_key(self, session: SessionKey, key: str) -> Task | None:
        """See `ports.Store`."""
        held = self._refuge.find_key(session, key) if self._refuge is not None else None
        return held or self._primary.find_key(session, key)

    def tasks(
        self, session: SessionKey, *, before: str | None = None, states: Collection[StateName] | None = None
    ) -> Iterator[Task]:
        """See `ports.Store`."""
        if self._refuge is None:
            return self._primary.tasks(session, before=before, states=states)
        both = (one.tasks(session, before=before, states=states) for one in (self._refuge, self._primary))
        return heapq.merge(*both, key=lambda task: task.key.task_id, reverse=True)

    def in_memory(self) -> Usage | None:
        """What ends with this process: all of a memory store, else what was diverted; None for nothing."""
        for store in (self._primary, self._refuge):
            if isinstance(store, MemoryStore):
                return store.usage()
        return None

    def unfinished(self) -> list[TaskKey]:
        """See `ports.Store`."""
        return sorted([*self.diverted(), *self._primary.unfinished()], key=lambda key: key.task_id)

    def pending(self) -> list[TaskKey]:
        """See `ports.Store`."""
        return self._primary.pending()

    def held(self) -> list[TaskKey]:
        """See `ports.Store`."""
        return self._primary.held()

    def counts(self, session: SessionKey) -> Mapping[StateName, int]:
        """See `ports.Store`."""
        counted = self._primary.counts(session)
        return counted if self._refuge is None else Counter(counted) + Counter(self._refuge.counts(session))

    def states(self, session: SessionKey, task_ids: Sequence[str]) -> Mapping[str, StateName]:
        """See `ports.Store`."""
        found = dict(self._primary.states(session, task_ids))
        return found if self._refuge is None else found | dict(self._refuge.states(session, task_ids))

    def count_tasks(self) -> int:
        """See `ports.Store`."""
        more = self._refuge.count_tasks() if self._refuge is not None else 0
        return self._primary.count_tasks() + more

    def sessions(self, owner: str | None = None) -> list[Session]:
        """See `ports.Store`."""
        known = {s.key: s for s in (self._refuge.sessions(owner) if self._refuge is not None else [])}
        known |= {session.key: session for session in self._primary.sessions(owner)}
        return [known[key] for key in sorted(known)]

    def open_session(self, session: Session) -> Session:
        """See `ports.Store`."""
        return self._primary.open_session(session)

    def load_session(self, key: SessionKey) -> Session:
        """See `ports.Store`. One whose only tasks are in the refuge is told from there."""
        try:
            return self._primary.load_session(key)
        except SessionNotFound:
            if self._refuge is None:
                raise
            return self._refuge.load_session(key)

    def replace_session(self, session: Session) -> Session:
        """See `ports.Store`. What is only in the refuge is registered by this, as soon as it can be."""
        try:
            return self._primary.replace_session(session)
        except SessionNotFound:
            if self._refuge is None:
                raise
            self._primary.open_session(self._refuge.load_session(session.key))
            return self._primary.replace_session(session)

    def delete_session(self, key: SessionKey) -> int:
        """See `ports.Store`."""
        if self._refuge is None:
            return self._primary.delete_session(key)
        if busy := [task for task in self._refuge.unfinished() if task.session_key == key]:
            raise TaskNotFinished(
                f"session {key.session} is in use: task {busy[0].task_id} is not final",
                "end what runs in it first",
            )
        freed, found = 0, False
        for store in (self._primary, self._refuge):
            try:
                freed += store.delete_session(key)
                found = True
            except SessionNotFound:
                continue
        if not found:
            raise SessionNotFound(key.session)
        self._diverted -= {task for task in self._diverted.copy() if task.session_key == key}
        return freed

    def create_plan(self, plan: Plan) -> None:
        """See `ports.Store`."""
        self._primary.create_plan(plan)

    def load_plan(self, key: PlanKey) -> Plan:
        """See `ports.Store`."""
        return self._primary.load_plan(key)

    def plans(self, session: SessionKey) -> Iterator[Plan]:
        """See `ports.Store`."""
        return self._primary.plans(session)

    def delete_plan(self, key: PlanKey) -> None:
        """See `ports.Store`."""
        self._primary.delete_plan(key)

    def run_folder(self, key: TaskKey, run: int) -> Path:
        """See `ports.Store`."""
        return self._of(key).run_folder(key, run)

    def make_run_folder(self, key: TaskKey, run: int) -> Path:
        """See `ports.Store`."""
        return self._of(key).make_run_folder(key, run)

    def sweep(self) -> None:
        """See `ports.Store`."""
        self._primary.sweep()

    def admission(self) -> AbstractContextManager[object]:
        """See `ports.Store`."""
        return self._primary.admission()

    def verify(self) -> Iterator[str]:
        """See `ports.Store`."""
        return self._primary.verify()

    def problems(self) -> list[str]:
        """See `ports.Store`."""
        return self._primary.problems()

    def close(self) -> None:
        """See `ports.Store`."""
        self._primary.close()
        if self._refuge is not None:
            self._refuge.close()
