"""The contract of what keeps the records of sessions, tasks and plans."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from mcp_tasks.models import Plan, PlanKey, Session, SessionKey, StateName, Task, TaskKey

__all__ = ["Store"]


class Store(Protocol):
    """Keeps the records of sessions and tasks. Safe for many threads and many processes.

    A method that writes returns only when the write would survive a power cut (unless `durable`
    is false), and changes nothing when it raises. Each may raise StoreUnavailable, which means
    that the write did not happen.
    """

    durable: bool
    """Whether records outlive this process."""

    slots: Path
    """Folder of the lock files that count the running, for all servers of the store."""

    def create(self, task: Task) -> None:
        """Register a new task in whatever state it is, and its session where that is new.

        Where the task has an idempotency key (`spec.key`), the call is refused with KeyConflict
        if a task of the session holds that key; whoever calls resolves that with `find_key`.
        """
        ...

    def load(self, key: TaskKey) -> Task:
        """Read one task. Raises TaskNotFound."""
        ...

    def locate(self, owner: str, task_id: str) -> TaskKey:
        """Find a task id in any of the owner's sessions. Raises TaskNotFound."""
        ...

    def replace(self, task: Task) -> Task:
        """Compare and set: write `task` if the stored revision is still `task.revision`.

        Returns the task as stored, its revision one higher. Raises RevisionConflict where another
        writer was faster, TaskNotFound where the task has been cleared.
        """
        ...

    def delete(self, key: TaskKey) -> int:
        """Remove a task: record, key, run folders. Returns the bytes freed. Raises TaskNotFound."""
        ...

    def find_key(self, session: SessionKey, key: str) -> Task | None:
        """The task that holds an idempotency key in a session."""
        ...

    def tasks(
        self,
        session: SessionKey,
        *,
        before: str | None = None,
        states: Collection[StateName] | None = None,
    ) -> Iterator[Task]:
        """The tasks of a session, newest first, lazily: only those that are asked for are read.

        With `before` only those whose ids sort before it; with `states` only those that are recorded
        in one of them.

        A session that does not exist has none. A record that cannot be read is left out, set
        aside and named in `problems`.
        """
        ...

    def unfinished(self) -> list[TaskKey]:
        """The tasks of all sessions that are not final, oldest first. Cheap with many final ones."""
        ...

    def pending(self) -> list[TaskKey]:
        """The pending tasks of all sessions that wait for a place and nothing else, oldest first.

        Next to free when there are none.
        """
        ...

    def held(self) -> list[TaskKey]:
        """The pending tasks of all sessions that wait for more (`Task.is_held`), oldest first.

        Next to free when there are none.
        """
        ...

    def counts(self, session: SessionKey) -> Mapping[StateName, int]:
        """How many tasks a session has in each state, as recorded, without reading their records."""
        ...

    def states(self, session: SessionKey, task_ids: Sequence[str]) -> Mapping[str, StateName]:
        """The recorded states of these tasks, without reading final ones; what is not there is left out."""
        ...

    def count_tasks(self) -> int:
        """How many tasks there are, without reading them."""
        ...

    def sessions(self, owner: str | None = None) -> list[Session]:
        """All sessions, or those of one owner, by name."""
        ...

    def open_session(self, session: Session) -> Session:
        """Register a session unless it is there; returns it as stored."""
        ...

    def load_session(self, key: SessionKey) -> Session:
        """Read one session. Cheap when it has not changed. Raises SessionNotFound."""
        ...

    def replace_session(self, session: Session) -> Session:
        """Compare and set, as `replace` does for tasks. Raises RevisionConflict, SessionNotFound."""
        ...

    def delete_session(self, key: SessionKey) -> int:
        """Remove a session with its tasks, their output and its plans; returns the bytes freed.

        Raises SessionNotFound, and TaskNotFinished where a task is not final.
        """
        ...

    def create_plan(self, plan: Plan) -> None:
        """Register a plan, whose tasks are there already. Its session must exist."""
        ...

    def load_plan(self, key: PlanKey) -> Plan:
        """Read one plan. Raises PlanNotFound."""
        ...

    def plans(self, session: SessionKey) -> Iterator[Plan]:
        """The plans of a session, newest first, lazily."""
        ...

    def delete_plan(self, key: PlanKey) -> None:
        """Forget a plan; its tasks stay. Harmless where there is none."""
        ...

    def run_folder(self, key: TaskKey, run: int) -> Path:
        """Where the output and the exit record of a run live, a folder named `<task id>.<run>`.

        Does not create it.
        """
        ...

    def make_run_folder(self, key: TaskKey, run: int) -> Path:
        """Make a run's folder, for its owner only, and return it; the task need not be registered yet.

        No step on the way down may be a link. Raises StoreUnavailable, with nothing written elsewhere.
        """
        ...

    def sweep(self) -> None:
        """Remove what killed processes left; done once in the background after opening.

        That is: old run folders of tasks that are not registered and that nobody holds, and what was
        parked for tasks that are final by now.
        """
        ...

    def admission(self) -> AbstractContextManager[object]:
        """Hold the store-wide right to decide which pending task runs next."""
        ...

    def verify(self) -> Iterator[str]:
        """Look at every record and every index; one sentence for each thing that is wrong.

        What is broken is set aside as any reading would; nothing else is changed.
        """
        ...

    def problems(self) -> list[str]:
        """What was found broken since the store was opened, one sentence each."""
        ...

    def close(self) -> None:
        """Give back what the store holds."""
        ...
