"""The same service without a server, for Python programs: asynchronous, or plain.

    async with open_tasks() as tasks:
        task = await tasks.run("make test", wait_ms=0)
        done = await tasks.wait(task["task_id"])

Commands outlive the program, as they outlive a server. `open_remote_tasks` is the same with a server
elsewhere.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.from_thread
from pydantic import SecretStr

from mcp_tasks.app import open_service
from mcp_tasks.models import DEFAULT_SESSION
from mcp_tasks.output import Stream
from mcp_tasks.requests import (
    CancelTask,
    ClearTask,
    EndSession,
    GetResult,
    ListSessions,
    ListTasks,
    PlanProgress,
    PollTask,
    RunCommand,
    RunPlan,
    SearchOutput,
    SendInput,
    SessionInfo,
    UpdateSession,
    WaitTasks,
)
from mcp_tasks.service import Caller, Service, View
from mcp_tasks.settings import Settings, user_name

if TYPE_CHECKING:
    from mcp_tasks.remote import RemoteService

__all__ = [
    "BlockingTasks",
    "RemoteTasks",
    "Tasks",
    "open_blocking_tasks",
    "open_remote_tasks",
    "open_tasks",
]

_FOREVER_MS = 10 * 365 * 86_400_000
_PIECE = 1 << 18

_log = logging.getLogger(__name__)


class _Calls:
    """What can be done, wherever it is done."""

    def __init__(self, service: Service | RemoteService, caller: Caller) -> None:
        self._service = service
        self._caller = caller

    async def run(self, command: str | Sequence[str], **options: Any) -> View:
        """Start a command: `run_command`."""
        return await self._service.run_command(self._caller, RunCommand(command=_listed(command), **options))

    async def run_plan(self, commands: Sequence[Any], **options: Any) -> View:
        """Start several commands, in order or as they depend on each other: `run_plan`."""
        return await self._service.run_plan(self._caller, RunPlan(commands=_listed(commands), **options))

    async def plan_progress(self, plan_id: str | None = None, **options: Any) -> View:
        """How far a plan has come, by default the newest: `plan_progress`."""
        return await self._service.plan_progress(self._caller, PlanProgress(plan_id=plan_id, **options))

    async def poll(self, task_id: str, **options: Any) -> View:
        """Look at a task: `poll_task`."""
        return await self._service.poll_task(self._caller, PollTask(task_id=task_id, **options))

    async def wait(self, task_id: str, timeout_ms: int | None = None) -> View:
        """Wait until a task is over, or for `timeout_ms`, and return its view."""
        return await self.poll(task_id, wait_ms=_FOREVER_MS if timeout_ms is None else timeout_ms)

    async def wait_all(self, *task_ids: str, **options: Any) -> View:
        """Wait for several tasks: `wait_tasks`, by default for all of them."""
        request = WaitTasks(**{"mode": "all", "wait_ms": _FOREVER_MS, **options}, task_ids=task_ids)
        return await self._service.wait_tasks(self._caller, request)

    async def result(self, task_id: str, **options: Any) -> View:
        """Read record and output: `get_result`."""
        return await self._service.get_result(self._caller, GetResult(task_id=task_id, **options))

    async def cancel(self, task_id: str, **options: Any) -> View:
        """End a task and all its processes: `cancel_task`."""
        return await self._service.cancel_task(self._caller, CancelTask(task_id=task_id, **options))

    async def clear(self, task_id: str | None = None, **options: Any) -> View:
        """Remove finished tasks for good: `clear_task`."""
        return await self._service.clear_task(self._caller, ClearTask(task_id=task_id, **options))

    async def list(self, **options: Any) -> View:
        """List the tasks of the session: `list_tasks`."""
        return await self._service.list_tasks(self._caller, ListTasks(**options))

    async def send(self, task_id: str, text: str | None = None, **options: Any) -> View:
        """Give a running command input: `send_input`."""
        return await self._service.send_input(self._caller, SendInput(task_id=task_id, text=text, **options))

    async def search(self, pattern: str, **options: Any) -> View:
        """Find lines in the output: `search_output`."""
        return await self._service.search_output(self._caller, SearchOutput(pattern=pattern, **options))

    async def info(self) -> View:
        """Everything about the session: `session_info`."""
        return await self._service.session_info(self._caller, SessionInfo())

    async def update(self, **options: Any) -> View:
        """Change the session, or make it: `update_session`."""
        return await self._service.update_session(self._caller, UpdateSession(**options))

    async def sessions(self, **options: Any) -> View:
        """List the sessions: `list_sessions`."""
        return await self._service.list_sessions(self._caller, ListSessions(**options))

    async def end(self, **options: Any) -> View:
        """Close the session: `end_session`."""
        return await self._service.end_session(self._caller, EndSession(**options))


class Tasks(_Calls):
    """Tasks of one session. Each method takes the arguments of the tool of its name, as keywords.

    Answers are the views of the tools, as dicts; errors are `mcp_tasks.errors.TasksError`. A program
    has no client that loses patience, so a wait lasts as long as it is told to.
    """

    def __init__(self, service: Service, caller: Caller) -> None:
        super().__init__(service, caller)
        self._here = service

    def output(self, task_id: str, stream: str = "stdout") -> Iterator[bytes]:
        """Every byte that a task has written to a stream so far, in pieces."""
        name = _stream(stream)
        _, output = self._here.output_of(self._caller, task_id)
        position = 0
        while True:
            start, piece = output.read(name, position, _PIECE)
            if not piece:
                return
            yield piece
            position = start + len(piece)


class RemoteTasks(_Calls):
    """`Tasks` of a server elsewhere: the same methods, but that `output` is to be iterated with `async for`.

    A break is waited out, and what is read or waited for goes on where it was. `run`, `run_plan` and `send`
    wait no longer than the server lets its clients; all others as long as they are told to.
    """

    def __init__(self, service: RemoteService, caller: Caller) -> None:
        super().__init__(service, caller)
        self._there = service

    async def output(self, task_id: str, stream: str = "stdout") -> AsyncIterator[bytes]:
        """Every byte that a task has written to a stream so far, in pieces."""
        name = _stream(stream)
        reached, _ = await self._there.reached(self._caller, task_id)
        output = await self._there.captured(self._caller, task_id, reached.run)
        position = 0
        while True:
            start, piece = await output.read(name, position, _PIECE)
            if not piece:
                return
            yield piece
            position = start + len(piece)


def _stream(name: str) -> Stream:
    if name not in ("stdout", "stderr"):
        raise ValueError("stream is stdout or stderr")
    return "stdout" if name == "stdout" else "stderr"


def _listed(given: Any) -> Any:
    """A sequence as a request takes it; what is none is left for the request to refuse."""
    return tuple(given) if isinstance(given, Sequence) and not isinstance(given, str | bytes) else given


@asynccontextmanager
async def open_tasks(
    directory: str | os.PathLike[str] | None = None, *, session: str | None = None, **settings: Any
) -> AsyncIterator[Tasks]:
    """Open the tasks of a session in this process.

    Args:
        directory: State directory; the user's own by default, which servers use too.
        session: Name of the session.
        settings: Anything else of `mcp_tasks.settings.Settings`, such as `store="memory"`.

    Raises:
        InvalidArgument: A setting is wrong.
        StoreUnavailable: The state directory cannot be used.
    """
    chosen = Settings(dir=None if directory is None else Path(directory), session=session, **settings)
    async with open_service(chosen) as service:
        yield Tasks(service, _caller(chosen))


@asynccontextmanager
async def open_remote_tasks(
    address: str,
    *,
    token: str | None = None,
    session: str | None = None,
    tell: Callable[[str], None] = _log.warning,
    **settings: Any,
) -> AsyncIterator[RemoteTasks]:
    """Open the tasks of a session of a server that serves HTTP.

    Args:
        address: http://…, https://… or unix:PATH, as the server tells it when it starts.
        token: What lets us in there, also the token of a share; else MCP_TASKS_TOKEN.
        session: Name of the session.
        tell: Is told, in a sentence, when the connection is lost and when it is there again.
        settings: As for `open_tasks`; `share` is of use here.

    Raises:
        InvalidArgument: The address, the token or a setting is wrong.
    """
    # It takes an HTTP client, which who works here does not need.
    from mcp_tasks.remote import open_remote, share_given

    secret = None if token is None else SecretStr(token)
    chosen = Settings(session=session, token=secret, **settings)
    async with open_remote(address, token=chosen.token, tell=tell) as service:
        caller = replace(_caller(chosen), share=share_given(chosen.share, chosen.token))
        yield RemoteTasks(service, caller)


def _caller(settings: Settings) -> Caller:
    return Caller(
        user_name(),
        settings.session or DEFAULT_SESSION,
        named=settings.session is not None,
        max_wait_ms=_FOREVER_MS,
        share=settings.share.get_secret_value() if settings.share else None,
    )


class BlockingTasks:
    """`Tasks` for plain code: the same methods, each of which returns when it is done."""

    def __init__(self, tasks: Tasks, portal: anyio.from_thread.BlockingPortal) -> None:
        self._tasks = tasks
        self._portal = portal
        self.output = tasks.output

    def __getattr__(self, name: str) -> Callable[..., View]:
        method = getattr(self._tasks, name)
        return lambda *args, **options: self._portal.call(functools.partial(method, *args, **options))


@contextmanager
def open_blocking_tasks(
    directory: str | os.PathLike[str] | None = None, *, session: str | None = None, **settings: Any
) -> Iterator[BlockingTasks]:
    """`open_tasks` for plain code."""
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_tasks(directory, session=session, **settings)) as tasks,
    ):
        yield BlockingTasks(tasks, portal)
