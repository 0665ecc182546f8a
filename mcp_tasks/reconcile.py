"""What the store says against what is really there: the one path on which a running task ends.

The same at start, when a supervisor has left, and in the periodic sweep; a restart is nothing special.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mcp_tasks.clock import Clock
from mcp_tasks.errors import RevisionConflict
from mcp_tasks.lifecycle import Concluded, IllegalMove, Returned, Vanished, transition
from mcp_tasks.models import Running, Task, TaskKey
from mcp_tasks.parking import forget_next_run
from mcp_tasks.ports import Ended, Executor, Gone, Observation, Store

__all__ = ["Reconciler", "Sight"]


@dataclass(frozen=True, slots=True)
class Sight:
    """A task as it is now, and what was seen of its run; None where there is nothing to see."""

    task: Task
    seen: Observation | None


class Reconciler:
    """Reads tasks as they really are, and writes down what has become of them. Blocking."""

    def __init__(self, store: Store, executor: Executor, clock: Clock) -> None:
        self._store = store
        self._executor = executor
        self._clock = clock

    def look(self, key: TaskKey) -> Sight:
        """The task as it is, nothing written. An end is told only from an exit record on disk."""
        return self._seen(self._store.load(key))

    def look_at(self, task: Task) -> Sight:
        """The same for a record that has just been read."""
        return self._seen(task)

    def settle(self, key: TaskKey) -> Task:
        """Bring the record up to what is true, durably, whoever else does the same. Returns it."""
        while True:
            stored = self._store.load(key)
            sight = self._seen(stored, thorough=True)
            if sight.task is stored:
                return stored
            if isinstance(sight.seen, Gone) and not sight.task.is_final:
                # Nothing that a lost run has left may go on beside the next one.
                self._executor.end_survivors(self._folder(stored))
            try:
                settled = self._store.replace(replace(sight.task, revision=stored.revision))
            except RevisionConflict:
                continue
            is_over = settled.is_final or settled.run > stored.run
            if is_over and not self._executor.lingers(self._folder(stored)):
                self._executor.tidy(self._folder(stored))
            if settled.is_final:
                forget_next_run(self._store, self._executor, settled)
            return settled

    def _seen(self, task: Task, *, thorough: bool = False) -> Sight:
        """`thorough` looks for survivors of a killed supervisor, which takes time."""
        if not isinstance(task.state, Running):
            return Sight(task, None)
        seen = self._executor.observe(self._folder(task))
        try:
            match seen:
                case Ended(finished):
                    return Sight(transition(task, Concluded(finished)), seen)
                case Gone() if self._never_began(task):
                    return Sight(transition(task, Returned(self._clock.now_ms())), None)
                case Gone(reason):
                    return Sight(
                        transition(task, Vanished(self._clock.now_ms(), self._why(task, reason, thorough))),
                        seen,
                    )
                case _:
                    return Sight(task, seen)
        except IllegalMove:
            return Sight(task, seen)

    def _never_began(self, task: Task) -> bool:
        # A supervisor takes the parked launch away before it starts the command. That it did so may be
        # forgotten by a power cut, so a launch that is found after a restart proves nothing.
        return (
            isinstance(task.state, Running)
            and task.state.boot_id == self._clock.boot_id
            and self._executor.is_unstarted(self._folder(task))
        )

    def _why(self, task: Task, reason: str, thorough: bool) -> str:
        if isinstance(task.state, Running) and task.state.boot_id != self._clock.boot_id:
            return "the machine was restarted while it ran"
        if thorough and (survivors := self._executor.background(self._folder(task))):
            return f"{reason}; still alive: {', '.join(survivors[:10])}"
        return reason

    def _folder(self, task: Task) -> Path:
        return self._store.run_folder(task.key, task.run)
