"""What all use cases share: who calls, which tasks they may see, how they wait."""

from __future__ import annotations

import functools
import logging
import signal as signals
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from mcp_tasks.admission import Admission
from mcp_tasks.clock import Clock
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.keeping import Keeping
from mcp_tasks.launches import Defaults, absolute
from mcp_tasks.models import Role, Task, TaskKey
from mcp_tasks.output import Cursor
from mcp_tasks.output.search import compile_pattern
from mcp_tasks.ports import Archives, Audit, Executor, Hooks, Journal, Sealer, Store
from mcp_tasks.presenting import Presenter
from mcp_tasks.projects import ProjectCache
from mcp_tasks.reconcile import Reconciler, Sight
from mcp_tasks.redaction import redact_text
from mcp_tasks.requests import PollTask, RunCommand, SendInput
from mcp_tasks.service.access import Access, Caller
from mcp_tasks.service.sessions.connections import Connections
from mcp_tasks.service.sessions.records import SessionRecords
from mcp_tasks.service.sessions.turns import Turns
from mcp_tasks.service.sessions.workspaces import Workspaces
from mcp_tasks.views import Wait
from mcp_tasks.waiting import Condition, Waiting

__all__ = ["Caller", "Desk", "View", "clamp", "signal_number", "waits_for_more"]

log = logging.getLogger(__name__)

T = TypeVar("T")
View = dict[str, Any]

_IDLE_MS = 1_000


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts that use cases work with, and what they do with them alike.

    Attributes:
        divert: Lets a task that the store cannot take live in memory; returns the slots to use there.
        threads: Bounds how much blocking work goes on at once.
        access: Says who may do what.
        records: Where session records are changed.
        turns: In which order calls change a session.
        workspaces: What commands of a session are given by default.
        connections: Who is attached.
        journal_limit: Live messages of a journal whose session sets no limit; 0 means no limit.
        projects: What was found out about projects.
        archives: Where sessions are put away.
        hooks: What tells of tasks to those who cannot be pushed to.
        in_memory: Figures of what ends with this process, over all sessions; None where nothing does.
    """

    store: Store
    executor: Executor
    clock: Clock
    admission: Admission
    keeping: Keeping
    presenter: Presenter
    reconciler: Reconciler
    waiting: Waiting
    defaults: Defaults
    divert: Callable[[TaskKey], Path]
    threads: anyio.CapacityLimiter
    journal: Journal
    sealer: Sealer
    audit: Audit
    access: Access
    records: SessionRecords
    turns: Turns
    workspaces: Workspaces
    connections: Connections
    journal_limit: int
    projects: ProjectCache
    archives: Archives
    hooks: Hooks
    in_memory: Callable[[], Mapping[str, int] | None]

    async def blocking(self, function: Callable[..., T], *args: Any) -> T:
        """Do blocking work in a thread. A cancelled caller waits until it is done, so nothing is half."""
        return await anyio.to_thread.run_sync(functools.partial(function, *args), limiter=self.threads)

    def find(self, caller: Caller, task_id: str) -> TaskKey:
        """The task that an id means for a caller; see `Access.find`. Raises TaskNotFound."""
        return self.access.find(caller, task_id)

    def require(self, caller: Caller, need: Role) -> None:
        """See `Access.require`. Raises PolicyDenied."""
        self.access.require(caller, need)

    async def wait(
        self, caller: Caller, key: TaskKey, condition: Condition, wait_ms: int
    ) -> tuple[Sight, Wait]:
        """Wait for a task, no longer than the caller may."""
        allowed, clamped = clamp(caller, wait_ms)
        sight, wait = await self.waiting.until(key, condition, allowed, caller.progress)
        return sight, replace(wait, clamped_to=clamped)

    def conditions(self, request: RunCommand | PollTask | SendInput) -> Callable[[Cursor | None], Condition]:
        """Check what a wait is to end on before anything is started; say afterwards from where on."""
        pattern = compile_pattern(request.pattern) if request.pattern is not None else None

        def condition(since: Cursor | None) -> Condition:
            if pattern is not None:
                return Condition("pattern", pattern=pattern, since=since)
            if request.idle_ms is not None or request.until == "idle":
                return Condition("idle", idle_ms=request.idle_ms or _IDLE_MS)
            return Condition("output" if request.until == "output" else "exit", since=since)

        return condition

    def folder(self, task: Task) -> Path:
        """Where the output and the exit record of the newest run that has begun are."""
        return self.store.run_folder(task.key, task.begun)

    def matching(self, caller: Caller, label: str | None, cwd: str | None) -> Iterator[Sight]:
        """The tasks of the caller's session, newest first, as they are now. Blocking."""
        if cwd is not None:
            cwd = redact_text(absolute(cwd, self.workspaces.base(caller.session_key)))
        if label is not None:
            label = redact_text(label)  # as the records have it
        for task in self.store.tasks(caller.session_key):
            if label is not None and task.spec.label != label:
                continue
            if cwd is not None and task.spec.cwd != cwd:
                continue
            yield self.look_at(task)

    def look_at(self, task: Task) -> Sight:
        """A task that has just been read, as it is now, one of many: what cannot be told is left out."""
        try:
            return self.reconciler.look_at(task)
        except StoreUnavailable as error:
            # One run that cannot be read does not hide the others.
            log.warning("a run cannot be read: %s", error)
            return Sight(task, None)


def waits_for_more(request: RunCommand | PollTask | SendInput) -> bool:
    """Whether a call names what it waits for, so that by default it waits as long as it may."""
    return request.until is not None or request.pattern is not None or request.idle_ms is not None


def clamp(caller: Caller, wait_ms: int) -> tuple[int, int | None]:
    """The wait that is allowed, and the limit where that is less than what was asked for."""
    if wait_ms > caller.max_wait_ms:
        return caller.max_wait_ms, caller.max_wait_ms
    return wait_ms, None


def signal_number(signal: str) -> int:
    """The number of a signal of this platform."""
    return signals.Signals[signal].value
