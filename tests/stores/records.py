"""Tasks to put into stores."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import replace

from mcp_tasks.models import (
    Change,
    Exited,
    Finished,
    Outcome,
    Pending,
    Plan,
    PlanKey,
    Running,
    Session,
    SessionKey,
    Spec,
    Task,
    TaskKey,
)

OWNER = "somebody"
SESSION = SessionKey(OWNER, "default")

_numbers = itertools.count(1)


def new_id() -> str:
    """Ids sort in the order in which they were made, as the real ones do."""
    return f"{next(_numbers):010d}{secrets.token_hex(13)}"


def pending(
    session: str = "default", *, owner: str = OWNER, key: str | None = None, label: str = "0"
) -> Task:
    return Task(
        TaskKey(owner, session, new_id()),
        Spec("make all", "/somewhere", label=label, key=key, fingerprint="f" * 64),
        created_at=1_700_000_000_000,
        state=Pending(),
        history=(Change("pending", 1_700_000_000_000, "registered"),),
    )


def running(session: str = "default", *, owner: str = OWNER, key: str | None = None) -> Task:
    return started(pending(session, owner=owner, key=key))


def started(task: Task) -> Task:
    state = Running(1, 1_700_000_000_001, "boot")
    return replace(
        task, state=state, history=(*task.history, Change("running", 1_700_000_000_001, "started"))
    )


def finished(task: Task, outcome: Outcome | None = None) -> Task:
    state = Finished(outcome or Exited(0), 1, 1_700_000_000_001, 1_700_000_000_002, 1)
    return replace(
        task, state=state, history=(*task.history, Change("completed", 1_700_000_000_002, "exit 0"))
    )


def relabelled(task: Task, label: str) -> Task:
    return replace(task, spec=replace(task.spec, label=label))


def held_back(session: str = "default", *, owner: str = OWNER) -> Task:
    """A pending task of a plan."""
    task = pending(session, owner=owner)
    return replace(task, spec=replace(task.spec, plan="p" * 36))


def plan_of(session: str, tasks: Sequence[Task], *, name: str | None = None) -> Plan:
    return Plan(
        PlanKey(OWNER, session, new_id()),
        1_700_000_000_000,
        tuple(task.key.task_id for task in tasks),
        name=name,
    )


def session_named(session: str, *, owner: str = OWNER) -> Session:
    return Session(SessionKey(owner, session), 1_700_000_000_000)
