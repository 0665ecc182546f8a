"""What a task is: frozen values, no input or output.

A state carries only the facts that are true in it; how a task ended is a type of its own.
Moments are integer milliseconds since the Unix epoch, durations are integer milliseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from mcp_tasks.models.sessions import SessionKey

__all__ = [
    "FINAL_STATES",
    "Cancelled",
    "Change",
    "DependencyFailed",
    "Exited",
    "Finished",
    "Lost",
    "Outcome",
    "OutputLimit",
    "Pending",
    "Running",
    "Signalled",
    "SpawnFailure",
    "Spec",
    "State",
    "StateName",
    "Task",
    "TaskKey",
    "TimedOut",
    "as_task_id",
]

TASK_ID = re.compile(r"[0-9a-z]{36}", re.ASCII)

StateName: TypeAlias = Literal["pending", "running", "completed", "failed", "cancelled", "lost"]
FINAL_STATES: frozenset[StateName] = frozenset({"completed", "failed", "cancelled", "lost"})


def as_task_id(given: str) -> str:
    """The id of a task or a plan that somebody means, who may have written it in capitals.

    What is not shaped like an id is returned as it is: changed, a secret would not be known for one.
    """
    word = given.strip()
    task_id = word.lower()
    return task_id if TASK_ID.fullmatch(task_id) and word in (task_id, word.upper()) else given


@dataclass(frozen=True, slots=True, order=True)
class TaskKey:
    """Names one task. The only way to address a record, so the owner is never forgotten."""

    owner: str
    session: str
    task_id: str

    @property
    def session_key(self) -> SessionKey:
        """The session that the task belongs to."""
        return SessionKey(self.owner, self.session)


@dataclass(frozen=True, slots=True)
class Exited:
    """The command ended by itself with an exit code."""

    exit_code: int
    kind: Literal["exited"] = "exited"


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal that we did not send ended the command. `signal` is a name like SIGSEGV."""

    signal: str
    kind: Literal["signalled"] = "signalled"


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The deadline passed and the supervisor ended the command."""

    exit_code: int | None
    signal: str | None
    kind: Literal["timed_out"] = "timed_out"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody asked for the end, before or after the command had started."""

    exit_code: int | None
    signal: str | None
    kind: Literal["cancelled"] = "cancelled"


@dataclass(frozen=True, slots=True)
class OutputLimit:
    """The output could not be kept in full, so the supervisor ended the command."""

    exit_code: int | None
    signal: str | None
    message: str
    kind: Literal["output_limit"] = "output_limit"


@dataclass(frozen=True, slots=True)
class SpawnFailure:
    """The program could not be started; nothing ran."""

    message: str
    hint: str
    kind: Literal["spawn_failed"] = "spawn_failed"


@dataclass(frozen=True, slots=True)
class DependencyFailed:
    """A task that this one waited for did not complete; nothing ran."""

    task_id: str
    kind: Literal["dependency_failed"] = "dependency_failed"


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody saw the end. Never success, never a number."""

    reason: str
    kind: Literal["lost"] = "lost"


Outcome: TypeAlias = (
    Exited | Signalled | TimedOut | Cancelled | OutputLimit | SpawnFailure | DependencyFailed | Lost
)


@dataclass(frozen=True, slots=True)
class Pending:
    """Registered and waiting: for a place among the running, or for what the task is held by.

    Attributes:
        run: Number of the run that comes next; above 1 after a run that is to be retried.
        not_before: Milliseconds since the epoch before which it does not start; None for at once.
    """

    run: int = 1
    not_before: int | None = None
    kind: Literal["pending"] = "pending"


@dataclass(frozen=True, slots=True)
class Running:
    """Claimed by a server for run `run`; alive for as long as the run's lock is held.

    `boot_id` tells a reboot, after which no lock and no process of the run can be left.
    """

    run: int
    claimed_at: int
    boot_id: str
    kind: Literal["running"] = "running"


@dataclass(frozen=True, slots=True)
class Finished:
    """Over. `started_at` is None where nothing ran, `elapsed_ms` is on the monotonic clock."""

    outcome: Annotated[Outcome, Field(discriminator="kind")]
    run: int
    started_at: int | None
    ended_at: int
    elapsed_ms: int
    user_ms: int = 0
    system_ms: int = 0
    max_rss_kib: int = 0
    kind: Literal["finished"] = "finished"


State: TypeAlias = Pending | Running | Finished


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a task's history."""

    state: StateName
    at: int
    reason: str


@dataclass(frozen=True, slots=True)
class Spec:
    """What was asked for, as far as it may be kept: no env values, no input, secrets redacted.

    Attributes:
        command: One line for people, secrets redacted.
        fingerprint: Salted hash of everything that `key` compares.
        max_output_bytes: Over both streams; 0 means no limit.
        after: Ids of tasks of the same session that must be final first.
        after_failure: What becomes of it when one of those did not complete: `stop` ends it as
            DependencyFailed, `continue` starts it all the same.
        retries: How many more runs there are when one fails.
        plan: Id of the plan that it belongs to; it does not start before that plan is registered.
    """

    command: str
    cwd: str
    label: str | None = None
    key: str | None = None
    fingerprint: str = ""
    interactive: bool = False
    timeout_ms: int | None = None
    grace_ms: int = 5000
    max_output_bytes: int = 0
    on_output_limit: Literal["kill", "keep_tail"] = "kill"
    after: tuple[str, ...] = ()
    after_failure: Literal["stop", "continue"] = "stop"
    retries: int = 0
    plan: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One command of a session and everything that is durably known of it.

    `revision` counts the writes and is what compare-and-set compares.
    """

    key: TaskKey
    spec: Spec
    created_at: int
    state: Annotated[State, Field(discriminator="kind")]
    history: tuple[Change, ...] = field(default=())
    revision: int = 0

    @property
    def state_name(self) -> StateName:
        """The state as clients see it."""
        match self.state:
            case Pending():
                return "pending"
            case Running():
                return "running"
            case Finished(outcome=outcome):
                return outcome_state(outcome)

    @property
    def is_final(self) -> bool:
        """Whether nothing can change the state any more."""
        return isinstance(self.state, Finished)

    @property
    def run(self) -> int:
        """Number of the newest run, or of the one that is to come."""
        return self.state.run

    @property
    def begun(self) -> int:
        """Number of the newest run that has begun; 1 before the first has."""
        match self.state:
            case (
                Pending(run)
                | Finished(
                    outcome=Cancelled() | SpawnFailure() | DependencyFailed(), run=run, started_at=None
                )
            ) if run > 1:
                return run - 1
            case _:
                return self.state.run

    @property
    def is_held(self) -> bool:
        """Whether it is pending and waits for more than a place: a moment, other tasks, its plan."""
        match self.state:
            case Pending(run, not_before):
                return not_before is not None or (
                    run == 1 and (bool(self.spec.after) or self.spec.plan is not None)
                )
            case _:
                return False


def outcome_state(outcome: Outcome) -> StateName:
    """The final state that an outcome amounts to; only exit code 0 is success."""
    match outcome:
        case Exited(exit_code=0):
            return "completed"
        case Cancelled():
            return "cancelled"
        case Lost():
            return "lost"
        case _:
            return "failed"
