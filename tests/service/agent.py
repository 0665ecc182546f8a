"""An agent that calls the service directly, in few words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcp_tasks.app import open_service
from mcp_tasks.requests import (
    CancelTask,
    ClearTask,
    EndSession,
    GetResult,
    ListSessions,
    ListTasks,
    PollTask,
    RunCommand,
    SearchOutput,
    SendInput,
    SessionInfo,
    UpdateSession,
    WaitTasks,
)
from mcp_tasks.service import Caller, Service, View
from mcp_tasks.settings import Settings

__all__ = ["LONG_MS", "Agent", "open_agent"]

LONG_MS = 20_000
"""Longer than anything takes here."""


@dataclass(frozen=True)
class Agent:
    """Calls in the name of one caller."""

    service: Service
    caller: Caller

    def of(self, session: str, *, owner: str | None = None, named: bool = True) -> Agent:
        """The same agent in a session that it names."""
        return self._as(session=session, named=named, owner=owner or self.caller.owner)

    def patient_for(self, max_wait_ms: int) -> Agent:
        """The same agent with a client that gives up earlier."""
        return self._as(max_wait_ms=max_wait_ms)

    def _as(self, **changes: Any) -> Agent:
        return Agent(self.service, replace(self.caller, **changes))

    async def run(self, command: str | Sequence[str], wait_ms: int | None = LONG_MS, **options: Any) -> View:
        given = command if isinstance(command, str) else tuple(command)
        return await self.service.run_command(
            self.caller, RunCommand(command=given, wait_ms=wait_ms, **options)
        )

    async def start(self, command: str | Sequence[str], **options: Any) -> str:
        """Start a command and do not wait; its task id."""
        return str((await self.run(command, wait_ms=0, **options))["task_id"])

    async def poll(self, task_id: str, wait_ms: int | None = None, **options: Any) -> View:
        return await self.service.poll_task(
            self.caller, PollTask(task_id=task_id, wait_ms=wait_ms, **options)
        )

    async def ended(self, task_id: str) -> View:
        """The view of a task after its end."""
        view = await self.poll(task_id, wait_ms=LONG_MS)
        assert view["state"] not in ("pending", "running"), view
        return view

    async def result(self, task_id: str, **options: Any) -> View:
        return await self.service.get_result(self.caller, GetResult(task_id=task_id, **options))

    async def cancel(self, task_id: str | None = None, **options: Any) -> View:
        return await self.service.cancel_task(self.caller, CancelTask(task_id=task_id, **options))

    async def clear(self, task_id: str | None = None, **options: Any) -> View:
        return await self.service.clear_task(self.caller, ClearTask(task_id=task_id, **options))

    async def list(self, **options: Any) -> View:
        return await self.service.list_tasks(self.caller, ListTasks(**options))

    async def send(self, task_id: str, text: str | None = None, **options: Any) -> View:
        return await self.service.send_input(self.caller, SendInput(task_id=task_id, text=text, **options))

    async def wait(self, *task_ids: str, label: str | None = None, **options: Any) -> View:
        request = WaitTasks(task_ids=task_ids or None, label=label, **options)
        return await self.service.wait_tasks(self.caller, request)

    async def search(self, pattern: str, **options: Any) -> View:
        return await self.service.search_output(self.caller, SearchOutput(pattern=pattern, **options))

    async def info(self) -> View:
        return await self.service.session_info(self.caller, SessionInfo())

    async def update(self, **options: Any) -> View:
        return await self.service.update_session(self.caller, UpdateSession(**options))

    async def sessions(self, **options: Any) -> View:
        return await self.service.list_sessions(self.caller, ListSessions(**options))

    async def end(self, **options: Any) -> View:
        return await self.service.end_session(self.caller, EndSession(**options))

    def with_share(self, token: str, owner: str = "somebody else", session: str | None = None) -> Agent:
        """Another owner's agent, which comes with the token of a share."""
        return self._as(owner=owner, session=session or "default", named=session is not None, share=token)

    def events(self) -> Sequence[str]:
        """What the journal tells of the session itself, oldest first."""
        journal = self.service._desk.journal
        journal.flush()
        entries = journal.read(self.caller.session_key, role="event", limit=1_000)
        return [entry.data["event"] for entry in entries if "event" in entry.data and entry.task_id is None]

    def audited(self) -> Sequence[str]:
        """What the audit log tells of the session, oldest first."""
        entries = reversed(self.service._desk.audit.read(limit=1_000))
        return [entry["action"] for entry in entries if entry["session"] == self.caller.session]

    async def end_everything(self) -> None:
        """Cancel what a test that failed has left behind."""
        if active := (await self.list(state="active", limit=1_000))["tasks"]:
            await self.cancel(task_ids=tuple(task["task_id"] for task in active), grace_ms=0)


@asynccontextmanager
async def open_agent(directory: Path, **settings: Any) -> AsyncIterator[Agent]:
    """A server of its own on a state directory, and an agent that has named no session."""
    chosen = Settings(**{"dir": directory, "min_free_bytes": "0", **settings})
    async with open_service(chosen) as service:
        yield Agent(service, Caller(chosen.owner, "default", named=False))
