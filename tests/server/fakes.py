"""A service that answers without doing anything, and settings for the server in front of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
from pydantic import SecretStr

from mcp_tasks.models import SessionKey
from mcp_tasks.requests import Request
from mcp_tasks.server.toolsets import ToolSet
from mcp_tasks.service import Caller, Client, Service, ToolCall

__all__ = ["VIEW", "FakeService", "FakeSettings"]

VIEW = {
    "task_id": "0" * 36,
    "session": "default",
    "state": "running",
    "elapsed_ms": 12,
    "stdout_bytes": 0,
    "stderr_bytes": 0,
    "next_cursor": "c1",
}


@dataclass
class FakeSettings:
    owner: str = "me"
    session: str | None = None
    share: SecretStr | None = None
    max_wait_ms: int = 25_000
    tools: ToolSet = "standard"


@dataclass
class FakeService:
    """Notes who asked for what, and answers `answer`, which may raise.

    Attributes:
        waits: A call waits for `release`, and reports progress before.
        clients: What each served client said of itself.
        noted: The calls that were to be written into the journal, and who called.
        closed: Whether the client was seen to go.
        cancelled: Set when a waiting call was cancelled.
    """

    answer: Callable[[Request], dict[str, Any]] = lambda _: VIEW
    waits: bool = False
    reports: tuple[int, ...] = ()
    clients: list[Client] = field(default_factory=list)
    noted: list[tuple[Caller, ToolCall]] = field(default_factory=list)
    closed: bool = False
    calls: list[tuple[Caller, Request]] = field(default_factory=list)
    release: anyio.Event = field(default_factory=anyio.Event)
    waiting: anyio.Event = field(default_factory=anyio.Event)
    cancelled: anyio.Event = field(default_factory=anyio.Event)

    def as_service(self) -> Service:
        return cast("Service", self)

    def startup_report(self) -> str:
        return "1 session and 2 tasks"

    def attend(self, transport: str) -> FakeService:
        return self

    def saw(self, key: SessionKey, client: Client) -> None:
        self.clients.append(client)

    def close(self) -> None:
        self.closed = True

    def note_call(self, caller: Caller, call: ToolCall) -> None:
        self.noted.append((caller, call))

    async def _call(self, caller: Caller, request: Request) -> dict[str, Any]:
        self.calls.append((caller, request))
        for waited in self.reports:
            if caller.progress is not None:
                await caller.progress(waited, 100, f"waited {waited} ms")
        if self.waits:
            self.waiting.set()
            try:
                await self.release.wait()
            except BaseException:
                self.cancelled.set()
                raise
        if caller.served_in is not None:
            caller.served_in(caller.session_key)
        return self.answer(request)

    run_command = poll_task = get_result = cancel_task = clear_task = list_tasks = _call
    send_input = wait_tasks = search_output = _call
    session_info = update_session = list_sessions = end_session = _call
    run_plan = plan_progress = add_message = read_journal = search_journal = _call
    export_session = project_context = _call
