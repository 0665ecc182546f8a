"""Any sequence of calls leaves a store as a simple model of it, also when it is opened anew."""

from __future__ import annotations

import shutil
import tempfile
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

from mcp_tasks.errors import KeyConflict, RevisionConflict, TaskNotFound
from mcp_tasks.models import SessionKey, Task, TaskKey
from mcp_tasks.ports import Store
from mcp_tasks.stores.json_files import JsonFileStore
from mcp_tasks.stores.memory import MemoryStore
from tests.stores.faulty_os import sync_nothing
from tests.stores.records import OWNER, finished, pending, relabelled, running, started

NAMES = st.sampled_from(["default", "Default", "other"])
KEYS = st.sampled_from([None, None, "k", "K"])


class AnyHistory(RuleBasedStateMachine):
    """The store beside a dictionary."""

    keys = Bundle("keys")
    lasting = True

    def __init__(self) -> None:
        super().__init__()
        self.take_back = sync_nothing()
        self.root = Path(tempfile.mkdtemp())
        self.store: Store = self.open()
        self.model: dict[TaskKey, Task] = {}
        self.sessions: set[str] = set()

    def open(self) -> Store:
        return JsonFileStore(self.root) if self.lasting else MemoryStore(self.root)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.root)
        self.take_back()

    @rule(target=keys, session=NAMES, key=KEYS, waits=st.booleans())
    def create(self, session: str, key: str | None, waits: bool) -> TaskKey:
        task = (pending if waits else running)(session, key=key)
        held = any(one.key.session == session and one.spec.key == key for one in self.model.values())
        if key is not None and held:
            with pytest.raises(KeyConflict):
                self.store.create(task)
        else:
            self.store.create(task)
            self.model[task.key] = task
            self.sessions.add(session)
        return task.key

    @rule(key=keys, change=st.sampled_from([started, finished, lambda task: relabelled(task, "new")]))
    def change(self, key: TaskKey, change: st.SearchStrategy[Task]) -> None:
        task = self.model.get(key)
        if task is None:
            with pytest.raises(TaskNotFound):
                self.store.replace(finished(replace(running(), key=key)))
            return
        new = change(task)  # type: ignore[operator]  # drawn from the list above
        self.model[key] = self.store.replace(new)
        assert self.model[key] == replace(new, revision=task.revision + 1)

    @rule(key=keys, behind=st.integers(min_value=1, max_value=3))
    def change_too_late(self, key: TaskKey, behind: int) -> None:
        task = self.model.get(key)
        if task is not None:
            with pytest.raises(RevisionConflict):
                self.store.replace(replace(task, revision=task.revision - behind))

    @rule(key=consumes(keys))
    def delete(self, key: TaskKey) -> None:
        if self.model.pop(key, None) is None:
            with pytest.raises(TaskNotFound):
                self.store.delete(key)
        else:
            self.store.delete(key)

    @rule()
    def open_anew(self) -> None:
        if self.lasting:
            self.store.close()
            self.store = self.open()

    @invariant()
    def is_as_the_model(self) -> None:
        by_id = dict(sorted((key.task_id, task) for key, task in self.model.items()))
        for session in ("default", "Default", "other"):
            mine = [task for task in by_id.values() if task.key.session == session]
            assert list(self.store.tasks(SessionKey(OWNER, session))) == mine[::-1]
            for key in ("k", "K"):
                holders = [task for task in mine if task.spec.key == key]
                assert self.store.find_key(SessionKey(OWNER, session), key) == next(iter(holders), None)
        open_ones = [task.key for task in by_id.values() if not task.is_final]
        assert self.store.unfinished() == open_ones
        waiting = [task.key for task in by_id.values() if task.state_name == "pending"]
        assert self.store.pending() == waiting
        assert {one.key.session for one in self.store.sessions()} == self.sessions
        assert self.store.count_tasks() == len(self.model)
        for task_id, task in by_id.items():
            assert self.store.locate(OWNER, task_id) == task.key
        assert self.store.problems() == []


class AnyHistoryInMemory(AnyHistory):
    lasting = False


@pytest.mark.parametrize("machine", [AnyHistory, AnyHistoryInMemory])
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
