"""What is done to a store while it is killed or failing, and what must hold whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mcp_tasks.models import SessionKey, Task
from mcp_tasks.ports import Store
from tests.stores.records import finished, pending, relabelled, running, started


@dataclass(frozen=True)
class Scenario:
    """One write.

    Attributes:
        prepare: Makes what is there before and returns the task to write.
        act: Writes.
        old: Turns the task into what the store holds of it before; None for nothing.
        new: The same for afterwards.
    """

    name: str
    prepare: Callable[[Store], Task]
    act: Callable[[Store, Task], object]
    old: Callable[[Task], Task | None]
    new: Callable[[Task], Task | None]


def _create_in_a_new_session(store: Store) -> Task:
    task = pending()
    return pending(f"session-{task.key.task_id}")


def _create_with_a_key(store: Store) -> Task:
    neighbour = pending()
    session = f"session-{neighbour.key.task_id}"
    store.create(pending(session))
    return pending(session, key="build")


def _existing(make: Callable[[], Task]) -> Callable[[Store], Task]:
    def prepare(store: Store) -> Task:
        task = make()
        store.create(task)
        return task

    return prepare


def _with_output(store: Store) -> Task:
    task = finished(running(key=f"key-{pending().key.task_id}"))
    folder = store.run_folder(task.key, 1)
    for place in (folder.parent.parent.parent, folder.parent.parent, folder.parent, folder):
        place.mkdir(exist_ok=True, mode=0o700)
    (folder / "stdout").write_bytes(b"output")
    (folder / "stderr").write_bytes(b"")
    store.create(task)
    return task


def _replacement(change: Callable[[Task], Task]) -> Callable[[Task], Task]:
    def stored(task: Task) -> Task:
        new = change(task)
        return type(new)(new.key, new.spec, new.created_at, new.state, new.history, task.revision + 1)

    return stored


def _same(task: Task) -> Task:
    return task


def _nothing(task: Task) -> None:
    return None


def _replace(name: str, make: Callable[[], Task], change: Callable[[Task], Task]) -> Scenario:
    return Scenario(
        name, _existing(make), lambda store, task: store.replace(change(task)), _same, _replacement(change)
    )


SCENARIOS = (
    Scenario("create", lambda store: pending(), lambda store, task: store.create(task), _nothing, _same),
    Scenario(
        "create_in_a_new_session",
        _create_in_a_new_session,
        lambda store, task: store.create(task),
        _nothing,
        _same,
    ),
    Scenario(
        "create_with_a_key", _create_with_a_key, lambda store, task: store.create(task), _nothing, _same
    ),
    _replace("relabel", running, lambda task: relabelled(task, "x" * 5000)),
    _replace("start", pending, started),
    _replace("finish", running, finished),
    Scenario("delete", _with_output, lambda store, task: store.delete(task.key), _same, _nothing),
)


def everything(store: Store) -> dict[str, Task]:
    """Every task of every session by its id."""
    return {task.key.task_id: task for session in store.sessions() for task in store.tasks(session.key)}


def inconsistencies(store: Store, tasks: dict[str, Task]) -> list[str]:
    """Where the parts of a store contradict its records."""
    found: list[str] = []
    unfinished = [task.key for _, task in sorted(tasks.items()) if not task.is_final]
    if store.unfinished() != unfinished:
        found.append("unfinished() differs from the records")
    if store.pending() != [key for key in unfinished if tasks[key.task_id].state_name == "pending"]:
        found.append("pending() differs from the records")
    for task in tasks.values():
        key = task.spec.key
        if key is not None and store.find_key(SessionKey(task.key.owner, task.key.session), key) != task:
            found.append(f"find_key({key!r}) misses its task")
        if store.load(task.key) != task:
            found.append(f"load({task.key.task_id}) differs from the listing")
    return found + store.problems()
