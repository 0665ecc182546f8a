"""The store that lives as long as this process. Output goes to a private folder, records nowhere."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path

from mcp_tasks.codec import encode_task
from mcp_tasks.errors import (
    InvalidArgument,
    KeyConflict,
    PlanNotFound,
    RevisionConflict,
    SessionNotFound,
    StoreUnavailable,
    TaskNotFinished,
    TaskNotFound,
    TasksError,
)
from mcp_tasks.models import (
    SESSION_NAME,
    TASK_ID,
    Plan,
    PlanKey,
    Session,
    SessionKey,
    StateName,
    Task,
    TaskKey,
)
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.removal import remove_tree
from mcp_tasks.stores.disk.run_folders import make_run_folder, run_folder, session_place
from mcp_tasks.stores.memory.finished import FinishedTasks, Room, Usage, folder_bytes

__all__ = ["MemoryStore"]


class MemoryStore:
    """Implements `mcp_tasks.ports.Store` in dictionaries. Tasks are frozen, so nothing is copied."""

    durable = False

    def __init__(
        self, root: Path, room: Room | None = None, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Start empty.

        Args:
            root: A private folder that the caller has made and removes; the runs go below it.
            room: How much of what is finished is kept. What is not final is never forgotten.
            now: In seconds.
        """
        self._now = now
        self._finished = FinishedTasks(room or Room())
        self._root = os.fspath(root)
        self._lock = threading.RLock()
        self._admission = threading.Lock()
        self._sessions: dict[SessionKey, Session] = {}
        self._tasks: dict[SessionKey, dict[str, Task]] = {}
        self._keys: dict[tuple[SessionKey, str], str] = {}
        self._plans: dict[SessionKey, dict[str, Plan]] = {}
        self._unfinished: set[TaskKey] = set()
        self._problems: list[str] = []
        self.slots = root / "slots"
        durable.make_private_folder(self.slots)

    def create(self, task: Task) -> None:
        """See `Store.create`."""
        key, session = task.key, task.key.session_key
        if not TASK_ID.fullmatch(key.task_id):
            raise InvalidArgument("the task id must be 36 characters of 0-9 and a-z")
        with self._lock:
            _check_name(session)
            tasks = self._tasks.setdefault(session, {})
            if key.task_id in tasks:
                raise RevisionConflict(f"there is a task {key.task_id} already", "make a new id")
            if task.spec.key is not None:
                holder = self.find_key(session, task.spec.key)
                if holder is not None:
                    raise KeyConflict(
                        f"the key {task.spec.key!r} belongs to task {holder.key.task_id}",
                        "a key is free again when its task is cleared",
                    )
                self._keys[session, task.spec.key] = key.task_id
            self._sessions.setdefault(session, Session(session, task.created_at))
            tasks[key.task_id] = task
            self._count(task)

    def load(self, key: TaskKey) -> Task:
        """See `Store.load`."""
        with self._lock:
            self._make_room()
            task = self._tasks.get(key.session_key, {}).get(key.task_id)
        if task is None:
            raise TaskNotFound(key.task_id)
        return task

    def locate(self, owner: str, task_id: str) -> TaskKey:
        """See `Store.locate`."""
        with self._lock:
            for session, tasks in self._tasks.items():
                if session.owner == owner and task_id in tasks:
                    return tasks[task_id].key
        raise TaskNotFound(task_id)

    def replace(self, task: Task) -> Task:
        """See `Store.replace`."""
        key = task.key
        with self._lock:
            stored = self.load(key)
            if stored.revision != task.revision:
                raise RevisionConflict(
                    f"task {key.task_id} was changed meanwhile: "
                    f"revision {stored.revision}, not {task.revision}",
                    "read it again",
                )
            new = dataclasses.replace(task, revision=task.revision + 1)
            self._tasks[key.session_key][key.task_id] = new
            self._count(new)
        return new

    def delete(self, key: TaskKey) -> int:
        """See `Store.delete`."""
        with self._lock:
            stored = self.load(key)
            self._finished.discard(key)
            self._forget(stored)
        return self._remove_runs(stored)

    def _forget(self, task: Task) -> None:
        key = task.key
        del self._tasks[key.session_key][key.task_id]
        self._unfinished.discard(key)
        if task.spec.key is not None and self._keys.get((key.session_key, task.spec.key)) == key.task_id:
            del self._keys[key.session_key, task.spec.key]

    def _remove_runs(self, task: Task) -> int:
        key, freed = task.key, 0
        for run in count(1):
            folder = self.run_folder(key, run)
            if run > task.run and not folder.is_dir():
                break
            freed += self._remove(folder, f"the cleared task {key.task_id}")
        return freed

    def _remove(self, folder: Path, whose: str) -> int:
        try:
            return remove_tree(folder)
        except StoreUnavailable as error:
            with self._lock:
                self._problems.append(f"files of {whose} are left: {error.message}")
            return 0

    def find_key(self, session: SessionKey, key: str) -> Task | None:
        """See `Store.find_key`."""
        with self._lock:
            self._make_room()
            task = self._tasks.get(session, {}).get(self._keys.get((session, key), ""))
        return task if task is not None and task.spec.key == key else None

    def tasks(
        self, session: SessionKey, *, before: str | None = None, states: Collection[StateName] | None = None
    ) -> Iterator[Task]:
        """See `Store.tasks`."""
        with self._lock:
            self._make_room()
            known = self._tasks.get(session, {})
            ids = [
                task_id
                for task_id, task in known.items()
                if (before is None or task_id < before) and (states is None or task.state_name in states)
            ]
        return self._loaded(session, sorted(ids, reverse=True))

    def unfinished(self) -> list[TaskKey]:
        """See `Store.unfinished`."""
        with self._lock:
            return sorted(self._unfinished, key=lambda key: key.task_id)

    def pending(self) -> list[TaskKey]:
        """See `Store.pending`."""
        with self._lock:
            return [key for key in self.unfinished() if _waits(self.load(key), held=False)]

    def held(self) -> list[TaskKey]:
        """See `Store.held`."""
        with self._lock:
            return [key for key in self.unfinished() if _waits(self.load(key), held=True)]

    def counts(self, session: SessionKey) -> Mapping[StateName, int]:
        """See `Store.counts`."""
        with self._lock:
            self._make_room()
            return Counter(task.state_name for task in self._tasks.get(session, {}).values())

    def states(self, session: SessionKey, task_ids: Sequence[str]) -> Mapping[str, StateName]:
        """See `Store.states`."""
        with self._lock:
            self._make_room()
            tasks = self._tasks.get(session, {})
            return {task_id: tasks[task_id].state_name for task_id in task_ids if task_id in tasks}

    def count_tasks(self) -> int:
        """See `Store.count_tasks`."""
        with self._lock:
            self._make_room()
            return sum(len(tasks) for tasks in self._tasks.values())

    def usage(self) -> Usage:
        """What is held, and what has been forgotten to make room."""
        with self._lock:
            return Usage(
                sessions=len(self._sessions),
                plans=sum(len(plans) for plans in self._plans.values()),
                tasks=self.count_tasks(),
                finished=len(self._finished),
                bytes=self._finished.bytes,
                evicted=self._finished.evicted,
                expired=self._finished.expired,
            )

    def sessions(self, owner: str | None = None) -> list[Session]:
        """See `Store.sessions`."""
        with self._lock:
            found = [one for one in self._sessions.values() if owner is None or one.key.owner == owner]
        return sorted(found, key=lambda session: session.key)

    def open_session(self, session: Session) -> Session:
        """See `Store.open_session`."""
        _check_name(session.key)
        with self._lock:
            return self._sessions.setdefault(session.key, session)

    def load_session(self, key: SessionKey) -> Session:
        """See `Store.load_session`."""
        with self._lock:
            session = self._sessions.get(key)
        if session is None:
            raise SessionNotFound(key.session)
        return session

    def replace_session(self, session: Session) -> Session:
        """See `Store.replace_session`."""
        with self._lock:
            stored = self.load_session(session.key)
            if stored.revision != session.revision:
                raise RevisionConflict(
                    f"session {session.key.session} was changed meanwhile: "
                    f"revision {stored.revision}, not {session.revision}",
                    "read it again",
                )
            new = dataclasses.replace(session, revision=session.revision + 1)
            self._sessions[session.key] = new
        return new

    def delete_session(self, key: SessionKey) -> int:
        """See `Store.delete_session`."""
        with self._lock:
            self.load_session(key)
            for task in self._tasks.get(key, {}).values():
                if not task.is_final:
                    raise TaskNotFinished(
                        f"session {key.session} is in use: task {task.key.task_id} is {task.state_name}",
                        "end what runs in it first",
                    )
            del self._sessions[key]
            for task in self._tasks.pop(key, {}).values():
                self._finished.discard(task.key)
            self._plans.pop(key, None)
            self._keys = {entry: task_id for entry, task_id in self._keys.items() if entry[0] != key}
        return self._remove(session_place(self._root, key), f"the deleted session {key.session}")

    def create_plan(self, plan: Plan) -> None:
        """See `Store.create_plan`."""
        key = plan.key
        if not TASK_ID.fullmatch(key.plan_id):
            raise InvalidArgument("the plan id must be 36 characters of 0-9 and a-z")
        with self._lock:
            self.load_session(key.session_key)
            plans = self._plans.setdefault(key.session_key, {})
            if key.plan_id in plans:
                raise RevisionConflict(f"there is a plan {key.plan_id} already", "make a new id")
            plans[key.plan_id] = plan

    def load_plan(self, key: PlanKey) -> Plan:
        """See `Store.load_plan`."""
        with self._lock:
            plan = self._plans.get(key.session_key, {}).get(key.plan_id)
        if plan is None:
            raise PlanNotFound(key.plan_id)
        return plan

    def plans(self, session: SessionKey) -> Iterator[Plan]:
        """See `Store.plans`."""
        with self._lock:
            found = dict(self._plans.get(session, {}))
        return (found[plan_id] for plan_id in sorted(found, reverse=True))

    def delete_plan(self, key: PlanKey) -> None:
        """See `Store.delete_plan`."""
        with self._lock:
            self._plans.get(key.session_key, {}).pop(key.plan_id, None)

    def run_folder(self, key: TaskKey, run: int) -> Path:
        """See `Store.run_folder`. Raises TaskNotFound for names that cannot be."""
        return run_folder(self._root, key, run)

    def make_run_folder(self, key: TaskKey, run: int) -> Path:
        """See `Store.make_run_folder`. Raises TaskNotFound as `run_folder` does."""
        return make_run_folder(self._root, key, run, making=lambda: self._lock)

    def sweep(self) -> None:
        """See `Store.sweep`. Nothing here outlives the process that made it."""

    def admission(self) -> AbstractContextManager[None]:
        """See `Store.admission`; one process is all there is."""
        return self._admitted()

    def verify(self) -> Iterator[str]:
        """See `Store.verify`. Nothing here can go bad by itself."""
        yield from self.problems()

    def problems(self) -> list[str]:
        """See `Store.problems`."""
        with self._lock:
            return list(self._problems)

    def close(self) -> None:
        """Forget every record. The files belong to whoever made the folder."""
        with self._lock:
            self._sessions.clear()
            self._tasks.clear()
            self._keys.clear()
            self._plans.clear()
            self._unfinished.clear()
            self._finished = FinishedTasks(Room())

    def _count(self, task: Task) -> None:
        """Note what has become of a task, and forget others where there is no room for it."""
        if not task.is_final:
            self._finished.discard(task.key)
            self._unfinished.add(task.key)
            return
        self._unfinished.discard(task.key)
        output = sum(folder_bytes(self.run_folder(task.key, run)) for run in range(1, task.run + 1))
        self._finished.add(task.key, _record_bytes(task) + output, self._now())
        self._make_room()

    def _make_room(self) -> None:
        now = self._now()
        if not self._finished.is_due(now):
            return
        open_tasks = [self._tasks[key.session_key][key.task_id] for key in self._unfinished]
        awaited = {(task.key.session_key, other) for task in open_tasks for other in task.spec.after}
        plans = {task.spec.plan for task in open_tasks} - {None}

        def is_needed(key: TaskKey) -> bool:
            task = self._tasks[key.session_key][key.task_id]
            return (key.session_key, key.task_id) in awaited or task.spec.plan in plans

        for key in self._finished.due(now, is_needed):
            task = self._tasks[key.session_key][key.task_id]
            self._forget(task)
            self._remove_runs(task)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        with self._admission:
            yield

    def _loaded(self, session: SessionKey, ids: list[str]) -> Iterator[Task]:
        for task_id in ids:
            with self._lock:
                task = self._tasks.get(session, {}).get(task_id)
            if task is not None:
                yield task


def _check_name(key: SessionKey) -> None:
    if not SESSION_NAME.fullmatch(key.session):
        raise InvalidArgument(
            f"{key.session!r} cannot be the name of a session", "1 to 128 of A-Z a-z 0-9 . _ -"
        )


def _record_bytes(task: Task) -> int:
    try:
        return len(encode_task(task))
    except TasksError:  # it could not be written to a disk, and need not be
        return 0


def _waits(task: Task, *, held: bool) -> bool:
    return task.state_name == "pending" and task.is_held is held
