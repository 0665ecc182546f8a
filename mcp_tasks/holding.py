"""What keeps a pending task from its turn, beside the want of a place: a moment, other tasks, its plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from mcp_tasks.clock import Clock
from mcp_tasks.errors import PlanNotFound, StoreUnavailable, TaskNotFound
from mcp_tasks.models import FINAL_STATES, Pending, PlanKey, SessionKey, StateName, Task, TaskKey
from mcp_tasks.ports import Store
from mcp_tasks.reconcile import Reconciler

__all__ = ["Hindrance", "Holding", "Round", "awaited"]

_ORPHAN_MS = 60_000

States: TypeAlias = Mapping[str, StateName]
"""States of the tasks of one session by id; one that was cleared is missing."""


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why a task cannot start.

    Attributes:
        tasks: Ids of the tasks that are to end first.
        until: The moment that is to come first, in milliseconds since the epoch.
        plan: Whether its plan is still to be registered.
    """

    tasks: tuple[str, ...] = ()
    until: int | None = None
    plan: bool = False


@dataclass(slots=True)
class Round:
    """What one look at all held tasks has found.

    Attributes:
        held: All of them.
        ready: Those that want a place and nothing else, oldest first.
        hopeless: Those that will never start, each with the task that did not complete.
        orphans: Those whose plan was never registered.
        awaited: Tasks that held ones name in `after`, in whatever state.
        watched: Those of them that run.
        next_moment: When the next one becomes ready by itself; None when none does.
    """

    held: frozenset[TaskKey] = frozenset()
    ready: list[Task] = field(default_factory=list)
    hopeless: list[tuple[Task, str]] = field(default_factory=list)
    orphans: list[Task] = field(default_factory=list)
    awaited: set[TaskKey] = field(default_factory=set)
    watched: list[Task] = field(default_factory=list)
    next_moment: int | None = None

    def at(self, moment: int) -> None:
        """Something is to be done at this moment."""
        self.next_moment = moment if self.next_moment is None else min(self.next_moment, moment)


class Holding:
    """Tells which held tasks are ready. Blocking; changes nothing."""

    def __init__(self, store: Store, reconciler: Reconciler, clock: Clock) -> None:
        self._store = store
        self._reconciler = reconciler
        self._clock = clock
        self._known: dict[TaskKey, Task] = {}
        self._registered: set[PlanKey] = set()

    def look(self) -> Round:
        """Look at all held tasks. Next to free when there are none. Raises StoreUnavailable."""
        keys = self._store.held()
        tasks = self._loaded(keys)
        self._known = {task.key: task for task in tasks}
        found = Round(held=frozenset(keys))
        now = self._clock.now_ms()
        left: list[Task] = []
        for task in tasks:
            if not self._has_plan(task):
                if task.created_at + _ORPHAN_MS <= now:
                    found.orphans.append(task)
                else:
                    found.at(task.created_at + _ORPHAN_MS)
            else:
                left.append(task)
        awaiting: dict[SessionKey, list[Task]] = {}
        for task in left:
            awaiting.setdefault(task.key.session_key, []).append(task)
        sessions = {session: self._states(session, those, found) for session, those in awaiting.items()}
        while lost := self._hopeless(left, sessions):
            found.hopeless += lost
            gone = {task.key for task, _ in lost}
            left = [task for task in left if task.key not in gone]
        for task in left:
            if _open(task, sessions[task.key.session_key]):
                continue
            until = _not_before(task)
            if until is None or until <= now:
                found.ready.append(task)
            else:
                found.at(until)
        return found

    def _hopeless(
        self, tasks: Iterable[Task], sessions: Mapping[SessionKey, dict[str, StateName]]
    ) -> list[tuple[Task, str]]:
        found: list[tuple[Task, str]] = []
        for task in tasks:
            states = sessions[task.key.session_key]
            if (culprit := _culprit(task, states)) is not None:
                found.append((task, culprit))
                # It may itself be what others wait for.
                states[task.key.task_id] = "failed"
        return found

    def is_orphan(self, task: Task) -> bool:
        """Whether its plan is still not registered. It may have been since `look`."""
        return not self._has_plan(task)

    def forget(self, key: TaskKey) -> None:
        """What was known of a task is not true any more."""
        self._known.pop(key, None)

    def hindrance(self, task: Task) -> Hindrance:
        """What keeps this one task from its turn."""
        if not task.is_held:
            return Hindrance()
        states = self._store.states(task.key.session_key, awaited(task))
        until = _not_before(task)
        return Hindrance(
            tuple(_open(task, states)),
            until if until is not None and until > self._clock.now_ms() else None,
            plan=not self._has_plan(task),
        )

    def awaited_in(self, session: SessionKey) -> frozenset[str]:
        """The ids of all tasks of a session that a held one names in `after`."""
        keys = [key for key in self._store.held() if key.session_key == session]
        return frozenset(task_id for task in self._loaded(keys) for task_id in awaited(task))

    def _loaded(self, keys: Iterable[TaskKey]) -> list[Task]:
        # A held task is claimed, and by then it is read again; so what is known of it is good enough here.
        found: list[Task] = []
        for key in keys:
            task = self._known.get(key)
            if task is None:
                try:
                    task = self._store.load(key)
                except TaskNotFound:
                    continue
            if task.is_held:
                found.append(task)
        return found

    def _has_plan(self, task: Task) -> bool:
        if task.spec.plan is None or task.run > 1:
            return True
        key = PlanKey(task.key.owner, task.key.session, task.spec.plan)
        if key in self._registered:
            return True
        try:
            self._store.load_plan(key)
        except PlanNotFound:
            return False
        self._registered.add(key)
        return True

    def _states(self, session: SessionKey, tasks: Iterable[Task], found: Round) -> dict[str, StateName]:
        """What has become of what these tasks of one session wait for."""
        ids = {task_id for task in tasks for task_id in awaited(task)}
        found.awaited |= {TaskKey(session.owner, session.session, task_id) for task_id in ids}
        states = dict(self._store.states(session, sorted(ids)))
        for task_id in [task_id for task_id, state in states.items() if state == "running"]:
            # Its record may be behind what is true by a moment.
            try:
                task = self._reconciler.look(TaskKey(session.owner, session.session, task_id)).task
            except TaskNotFound:
                del states[task_id]
                continue
            except StoreUnavailable:
                continue  # nobody can tell now
            states[task_id] = task.state_name
            if not task.is_final:
                found.watched.append(task)
        return states


def awaited(task: Task) -> tuple[str, ...]:
    """The ids that a held task waits for. A retry waits for a moment only."""
    return task.spec.after if task.is_held and task.run == 1 else ()


def _culprit(task: Task, states: States) -> str | None:
    """The task because of which this one will never start."""
    if task.spec.after_failure == "continue":
        return None
    for task_id in awaited(task):
        state = states.get(task_id)
        if state is None or (state in FINAL_STATES and state != "completed"):
            return task_id
    return None


def _open(task: Task, states: States) -> list[str]:
    """The tasks that are to end before this one may start; one that was cleared has ended."""
    return [task_id for task_id in awaited(task) if states.get(task_id, "cleared") not in _OVER]


def _not_before(task: Task) -> int | None:
    return task.state.not_before if isinstance(task.state, Pending) else None


_OVER: frozenset[StateName | Literal["cleared"]] = FINAL_STATES | {"cleared"}
