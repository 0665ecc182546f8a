"""Any sequence of calls leaves a store as a simple model of it, also when it is opened anew."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from mcp_tasks.errors import (
    KeyConflict,
    PlanNotFound,
    RevisionConflict,
    SessionNotFound,
    TaskNotFinished,
    TaskNotFound,
)
from mcp_tasks.models import (
    Closed,
    Exited,
    Open,
    Pending,
    Plan,
    PlanKey,
    Session,
    SessionKey,
    Task,
    TaskKey,
)
from mcp_tasks.ports import Store
from mcp_tasks.stores.memory.store import MemoryStore
from tests.stores.adapters import LASTING
from tests.stores.faulty_os import sync_nothing
from tests.stores.records import (
    OWNER,
    finished,
    held_back,
    pending,
    plan_of,
    relabelled,
    running,
    session_named,
    started,
)

SESSIONS = ("default", "Default", "other")
NAMES = st.sampled_from(SESSIONS)
KEYS = st.sampled_from([None, None, "k", "K"])

Change = Callable[[Task], Task]


def retried(task: Task) -> Task:
    return replace(task, state=Pending(2, 1_800_000_000_000))


def failed(task: Task) -> Task:
    return finished(task, Exited(1))


class AnyHistory(RuleBasedStateMachine):
    """The store beside dictionaries."""

    adapter = ""
    tasks = Bundle("tasks")
    plans = Bundle("plans")

    def __init__(self) -> None:
        super().__init__()
        self.take_back = sync_nothing()
        self.root = Path(tempfile.mkdtemp())
        self.store: Store = self.open()
        self.model: dict[TaskKey, Task] = {}
        self.sessions: dict[SessionKey, Session] = {}
        self.known_plans: dict[PlanKey, Plan] = {}

    def open(self) -> Store:
        return LASTING[self.adapter](self.root) if self.adapter else MemoryStore(self.root)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.root)
        self.take_back()

    @rule(target=tasks, session=NAMES, key=KEYS, make=st.sampled_from(["pending", "running", "held"]))
    def create(self, session: str, key: str | None, make: str) -> TaskKey:
        task = held_back(session) if make == "held" else pending(session)
        task = replace(task, spec=replace(task.spec, key=key))
        if make == "running":
            task = started(task)
        holders = [one for one in self.model.values() if one.key.session == session and one.spec.key == key]
        if key is not None and holders:
            with pytest.raises(KeyConflict, match=holders[0].key.task_id):
                self.store.create(task)
        else:
            self.store.create(task)
            self.model[task.key] = task
            self.sessions.setdefault(task.key.session_key, Session(task.key.session_key, task.created_at))
        return task.key

    @rule(key=tasks, change=st.sampled_from([started, finished, failed, retried, None]))
    def change(self, key: TaskKey, change: Change | None) -> None:
        task = self.model.get(key)
        if task is None:
            with pytest.raises(TaskNotFound):
                self.store.replace(finished(replace(running(), key=key)))
            return
        # A final state never changes; see `lifecycle`.
        new = relabelled(task, "new") if change is None or task.is_final else change(task)
        self.model[key] = self.store.replace(new)
        assert self.model[key] == replace(new, revision=task.revision + 1)

    @rule(key=tasks, behind=st.integers(min_value=1, max_value=3))
    def change_too_late(self, key: TaskKey, behind: int) -> None:
        task = self.model.get(key)
        if task is not None:
            with pytest.raises(RevisionConflict):
                self.store.replace(replace(task, revision=task.revision - behind))

    @rule(key=consumes(tasks))
    def delete(self, key: TaskKey) -> None:
        if self.model.pop(key, None) is None:
            with pytest.raises(TaskNotFound):
                self.store.delete(key)
        else:
            self.store.delete(key)

    @rule(name=NAMES)
    def open_session(self, name: str) -> None:
        session = session_named(name)
        assert self.store.open_session(session) == self.sessions.setdefault(session.key, session)

    @rule(name=NAMES, closes=st.booleans(), behind=st.integers(min_value=0, max_value=1))
    def change_session(self, name: str, closes: bool, behind: int) -> None:
        key = SessionKey(OWNER, name)
        session = self.sessions.get(key)
        if session is None:
            with pytest.raises(SessionNotFound):
                self.store.replace_session(session_named(name))
            return
        new = replace(
            session,
            title=f"{session.revision}",
            state=Closed(1, "over") if closes else Open(),
            revision=session.revision - behind,
        )
        if behind:
            with pytest.raises(RevisionConflict):
                self.store.replace_session(new)
        else:
            self.sessions[key] = self.store.replace_session(new)
            assert self.sessions[key] == replace(new, revision=session.revision + 1)

    @rule(name=NAMES)
    def delete_session(self, name: str) -> None:
        key = SessionKey(OWNER, name)
        mine = [task for task in self.model.values() if task.key.session_key == key]
        if key not in self.sessions:
            with pytest.raises(SessionNotFound):
                self.store.delete_session(key)
        elif not all(task.is_final for task in mine):
            with pytest.raises(TaskNotFinished):
                self.store.delete_session(key)
        else:
            self.store.delete_session(key)
            del self.sessions[key]
            for task in mine:
                del self.model[task.key]
            for plan in [plan for plan in self.known_plans if plan.session_key == key]:
                del self.known_plans[plan]

    @rule(target=plans, name=NAMES)
    def create_plan(self, name: str) -> PlanKey:
        key = SessionKey(OWNER, name)
        plan = plan_of(name, [task for task in self.model.values() if task.key.session_key == key])
        if key in self.sessions:
            self.store.create_plan(plan)
            self.known_plans[plan.key] = plan
            with pytest.raises(RevisionConflict):
                self.store.create_plan(plan)
        else:
            with pytest.raises(SessionNotFound):
                self.store.create_plan(plan)
        return plan.key

    @rule(key=plans)
    def load_plan(self, key: PlanKey) -> None:
        if key in self.known_plans:
            assert self.store.load_plan(key) == self.known_plans[key]
        else:
            with pytest.raises(PlanNotFound):
                self.store.load_plan(key)

    @rule(key=consumes(plans))
    def delete_plan(self, key: PlanKey) -> None:
        self.store.delete_plan(key)
        self.known_plans.pop(key, None)

    @rule()
    def open_anew(self) -> None:
        if self.adapter:
            self.store.close()
            self.store = self.open()

    @rule()
    def verify(self) -> None:
        assert list(self.store.verify()) == []

    @invariant()
    def is_as_the_model(self) -> None:
        by_id = dict(sorted((key.task_id, task) for key, task in self.model.items()))
        for name in SESSIONS:
            key = SessionKey(OWNER, name)
            mine = [task for task in by_id.values() if task.key.session == name]
            assert list(self.store.tasks(key)) == mine[::-1]
            over = [task for task in mine if task.state_name in ("completed", "failed")]
            assert list(self.store.tasks(key, states=("completed", "failed"))) == over[::-1]
            if mine:
                middle = mine[len(mine) // 2].key.task_id
                older = [task for task in mine if task.key.task_id < middle]
                assert list(self.store.tasks(key, before=middle)) == older[::-1]
            assert self.store.counts(key) == Counter(task.state_name for task in mine)
            assert self.store.states(key, list(by_id)) == {task.key.task_id: task.state_name for task in mine}
            plans = [plan for _, plan in sorted(self.known_plans.items()) if plan.key.session_key == key]
            assert list(self.store.plans(key)) == plans[::-1]
            for idempotency_key in ("k", "K"):
                holders = [task for task in mine if task.spec.key == idempotency_key]
                assert self.store.find_key(key, idempotency_key) == next(iter(holders), None)
        unfinished = [task for task in by_id.values() if not task.is_final]
        assert self.store.unfinished() == [task.key for task in unfinished]
        waiting = [task for task in unfinished if task.state_name == "pending"]
        assert self.store.pending() == [task.key for task in waiting if not task.is_held]
        assert self.store.held() == [task.key for task in waiting if task.is_held]
        assert self.store.sessions(OWNER) == [session for _, session in sorted(self.sessions.items())]
        assert self.store.count_tasks() == len(self.model)
        for task_id, task in by_id.items():
            assert self.store.locate(OWNER, task_id) == task.key
        assert self.store.problems() == []


class AnyHistoryInMemory(AnyHistory):
    pass


class AnyHistoryInFiles(AnyHistory):
    adapter = "json"


class AnyHistoryInADatabase(AnyHistory):
    adapter = "sqlite"


@pytest.mark.parametrize("machine", [AnyHistoryInMemory, AnyHistoryInFiles, AnyHistoryInADatabase])
def test_any_sequence_of_calls_is_answered_as_by_a_model(machine: type[AnyHistory]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
