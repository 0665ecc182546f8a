"""The methods of `Service` that commands use, carried out by a server elsewhere over its HTTP API."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from pydantic import SecretStr

from mcp_tasks.api.answers import ALWAYS_THERE
from mcp_tasks.api.operations import operation
from mcp_tasks.api.requests import (
    AllSessions,
    ClearProjects,
    DeleteSession,
    JournalStats,
    ListPlans,
    ProjectFigures,
    PruneJournal,
    ResolvePrefix,
    ServerInfo,
    WarmProjects,
)
from mcp_tasks.errors import InvalidArgument, PlanNotFound, TaskNotFound
from mcp_tasks.models import TASK_ID
from mcp_tasks.output import Cursor, Stream
from mcp_tasks.remote.address import Address
from mcp_tasks.remote.asking import fields_of, headers_of, path_of, session_of
from mcp_tasks.remote.attempts import Answer, Ask
from mcp_tasks.remote.backoff import Patience
from mcp_tasks.remote.connection import Connection
from mcp_tasks.remote.exporting import export_pieces
from mcp_tasks.remote.output import RemoteOutput
from mcp_tasks.remote.problems import not_ours
from mcp_tasks.remote.waits import end_of, ended, plan_over, polled, waited
from mcp_tasks.requests import (
    AddMessage,
    CancelTask,
    ClearTask,
    EndSession,
    ExportSession,
    GetResult,
    ListSessions,
    ListTasks,
    PlanProgress,
    PollTask,
    ProjectContext,
    ReadJournal,
    Request,
    RunCommand,
    RunPlan,
    SearchJournal,
    SearchOutput,
    SendInput,
    SessionInfo,
    UpdateSession,
    WaitTasks,
)
from mcp_tasks.service import Caller, View
from mcp_tasks.service.desk import waits_for_more

__all__ = ["RemoteService", "open_remote"]

_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_FOLLOW_MS: Final = 20_000
_LONGEST_MS: Final = 3_600_000
"""For which an answer is waited for, however long the wait is that was asked for."""
_PAGE: Final = 262_144


class RemoteService:
    """A server's service. A wait takes as long as it is told to, whatever breaks meanwhile.

    Every method raises TasksError, as the service does; StoreUnavailable where the server does not answer.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def run_command(self, caller: Caller, request: RunCommand) -> View:
        """Start a command, once: a key of its own makes it safe to ask again."""
        own = request.key is None
        keyed = request.model_copy(update={"key": _own_key()}) if own else request
        view = await self._ask(caller, keyed, repeatable=True, wait_ms=request.wait_ms or 0)
        if own:
            view.pop("reused", None)  # which it is when the first answer was lost
        return view

    async def poll_task(self, caller: Caller, request: PollTask) -> View:
        """Look at a task, and wait a while if asked to."""
        wait_ms = request.wait_ms
        if wait_ms is None:
            wait_ms = caller.max_wait_ms if waits_for_more(request) else 0

        async def ask(part: PollTask) -> View:
            return await self._ask(caller, part, wait_ms=part.wait_ms or 0, what="the wait")

        return await polled(ask, request, min(wait_ms, caller.max_wait_ms))

    async def get_result(self, caller: Caller, request: GetResult) -> View:
        """Show the record of a task and a part of its output."""
        return await self._ask(caller, request)

    async def list_tasks(self, caller: Caller, request: ListTasks) -> View:
        """List the tasks of a session."""
        return await self._ask(caller, request)

    async def search_output(self, caller: Caller, request: SearchOutput) -> View:
        """Find lines in the output."""
        return await self._ask(caller, request)

    async def cancel_task(self, caller: Caller, request: CancelTask) -> View:
        """End tasks; answers when it is over, or the patience of the caller."""
        wait_ms = caller.max_wait_ms
        name = "cancel_task" if request.task_ids is None else "cancel_tasks"
        view = await self._ask(caller, request, name, repeatable=True, wait_ms=wait_ms)
        views = view.get("tasks") if request.task_ids is not None else [view]
        if views is None:
            raise not_ours(self._connection.shown)
        still = [one["task_id"] for one in views if one["state"] in ("pending", "running")]
        if not still:
            return view
        # The server's own patience is over; the signals have been sent, and what is left is to wait.
        await self.wait_tasks(caller, WaitTasks(task_ids=tuple(still), mode="all", wait_ms=wait_ms))
        return await self._ask(caller, request, name, repeatable=True, wait_ms=wait_ms)

    async def clear_task(self, caller: Caller, request: ClearTask) -> View:
        """Remove finished tasks for good."""
        return await self._ask(caller, request, wait_ms=caller.max_wait_ms)

    async def send_input(self, caller: Caller, request: SendInput) -> View:
        """Give a running command input; never twice."""
        return await self._ask(caller, request, wait_ms=max(request.wait_ms or 0, _FOLLOW_MS))

    async def wait_tasks(self, caller: Caller, request: WaitTasks) -> View:
        """Wait for several tasks."""
        wait_ms = caller.max_wait_ms if request.wait_ms is None else request.wait_ms

        async def ask(part: WaitTasks) -> View:
            return await self._ask(caller, part, repeatable=True, wait_ms=part.wait_ms or 0, what="the wait")

        return await waited(ask, request, min(wait_ms, caller.max_wait_ms))

    async def run_plan(self, caller: Caller, request: RunPlan) -> View:
        """Register several commands, once: as `run_command`."""
        own = request.key is None
        keyed = request.model_copy(update={"key": _own_key()}) if own else request
        view = await self._ask(caller, keyed, repeatable=True, wait_ms=request.wait_ms or 0)
        if own:
            view.pop("reused", None)
        return view

    async def plan_progress(self, caller: Caller, request: PlanProgress) -> View:
        """Tell how far a plan has come."""
        if request.plan_id is None:
            newest = (await self.list_plans(caller, 1))["plans"]
            if not newest:
                raise PlanNotFound(None)
            request = request.model_copy(update={"plan_id": newest[0]["plan_id"]})

        async def ask(part: PlanProgress) -> View:
            return await self._ask(caller, part, wait_ms=part.wait_ms or 0, what="the wait")

        return await plan_over(ask, request, min(request.wait_ms or 0, caller.max_wait_ms))

    async def list_plans(self, caller: Caller, limit: int = 100) -> View:
        """The plans of a session, newest first."""
        return await self._ask(caller, ListPlans(limit=min(limit, 1_000)))

    async def session_info(self, caller: Caller, request: SessionInfo) -> View:
        """Tell everything about one session."""
        return await self._ask(caller, request)

    async def update_session(self, caller: Caller, request: UpdateSession) -> View:
        """Change a session, or make it."""
        once = request.share is not None or request.revision is not None
        return await self._ask(caller, request, repeatable=not once)

    async def list_sessions(self, caller: Caller, request: ListSessions) -> View:
        """List the caller's sessions."""
        return await self._ask(caller, request)

    async def all_sessions(self, caller: Caller) -> View:
        """List the sessions of every owner."""
        return await self._ask(caller, AllSessions())

    async def end_session(self, caller: Caller, request: EndSession) -> View:
        """Close a session."""
        wait_ms = caller.max_wait_ms if request.wait_ms is None else request.wait_ms

        async def ask(part: EndSession) -> View:
            # Closing and archiving take their time, beside what is waited for.
            patience = (part.wait_ms or 0) + caller.max_wait_ms
            return await self._ask(caller, part, repeatable=not request.archive, wait_ms=patience)

        return await ended(ask, request, min(wait_ms, caller.max_wait_ms))

    async def delete_session(self, caller: Caller, *, force: bool = False) -> View:
        """Remove a session for good."""
        return await self._ask(
            caller, DeleteSession(force=force), repeatable=False, wait_ms=caller.max_wait_ms
        )

    async def project_context(self, caller: Caller, request: ProjectContext) -> View:
        """Tell what is known of the project in a folder of the server's machine."""
        return await self._ask(caller, request)

    async def add_message(self, caller: Caller, request: AddMessage) -> View:
        """Write something into the journal; never twice."""
        return await self._ask(caller, request)

    async def read_journal(self, caller: Caller, request: ReadJournal) -> View:
        """Read the journal by page."""
        return await self._ask(caller, request)

    async def search_journal(self, caller: Caller, request: SearchJournal) -> View:
        """Find messages."""
        return await self._ask(caller, request)

    async def import_journal(self, caller: Caller, document: bytes) -> View:
        """Take the messages of an export over; those that are there already are skipped, so also twice."""
        row = operation("import_journal")
        path = path_of(row.path, {"session": session_of(caller)})
        headers = {**headers_of(caller), "content-type": "application/json"}
        return await self._connection.view(
            Ask(row.method, path, body=document, headers=headers, wait_s=60.0, is_repeatable=True)
        )

    async def prune_journal(self, caller: Caller, keep: int | None = None) -> View:
        """Fold the oldest messages."""
        return await self._ask(caller, PruneJournal(keep=keep), repeatable=True)

    async def journal_stats(self, caller: Caller) -> View:
        """How large and how old the journal is."""
        return await self._ask(caller, JournalStats())

    async def resolve_prefix(self, caller: Caller, prefix: str) -> str:
        """The one task whose id begins with `prefix`."""
        if not _PREFIX.fullmatch(prefix):
            raise TaskNotFound(prefix)
        return await self._resolved(caller, ResolvePrefix(prefix=prefix), "task_id")

    async def resolve_plan_prefix(self, caller: Caller, prefix: str) -> str:
        """The one plan whose id begins with `prefix`."""
        if not _PREFIX.fullmatch(prefix):
            raise PlanNotFound(prefix)
        return await self._resolved(caller, ResolvePrefix(prefix=prefix, kind="plan"), "plan_id")

    async def _resolved(self, caller: Caller, request: ResolvePrefix, field: str) -> str:
        if TASK_ID.fullmatch(request.prefix):
            return request.prefix
        found = (await self._ask(caller, request)).get(field)
        if not isinstance(found, str):
            raise not_ours(self._connection.shown)
        return found

    async def export_pieces(self, caller: Caller, kind: str) -> AsyncGenerator[str, None]:
        """The export of a session, piece by piece; after a break it goes on where it was."""

        async def page(offset: int) -> View:
            request = ExportSession(
                format="json" if kind == "json" else "markdown", offset=offset, limit=_PAGE
            )
            return await self._ask(caller, request, wait_ms=60_000, what=f"the export at byte {offset}")

        async for piece in export_pieces(page):
            yield piece

    async def reached(
        self, caller: Caller, task_id: str, beyond: Cursor | None = None
    ) -> tuple[Cursor, bool]:
        """How far the output of a task reaches, in its newest run, and whether the task is final."""
        request = PollTask(task_id=task_id, show="none")
        what = "the task"
        if beyond is not None:
            request = PollTask(
                task_id=task_id, show="none", until="output", cursor=beyond.encode(), wait_ms=_FOLLOW_MS
            )
            what = f"the output at byte {beyond.stdout} of stdout and {beyond.stderr} of stderr"
        view = await self._ask(caller, request, wait_ms=request.wait_ms or 0, what=what)
        return end_of(view), view["state"] not in ("pending", "running")

    async def captured(self, caller: Caller, task_id: str, run: int) -> RemoteOutput:
        """The output of one run of a task."""

        async def read_range(stream: Stream, start: int, limit: int) -> Answer:
            row = operation(f"read_{stream}")
            ask = Ask(
                row.method,
                path_of(row.path, {"task_id": task_id}),
                query={"session": caller.session} if caller.named else {},
                headers={**headers_of(caller), "range": f"bytes={start}-{start + limit - 1}"},
                is_repeatable=True,
                what=f"{stream} at byte {start}",
            )
            return await self._connection.answer(ask, allowed=(416,))

        async def read_page(stream: Stream, cursor: Cursor, limit: int) -> View:
            request = GetResult(
                task_id=task_id, stream=stream, cursor=cursor.encode(), limit=limit, encoding="base64"
            )
            return await self._ask(caller, request, what=f"{stream} at byte {cursor.of(stream)}")

        return RemoteOutput(run, read_range, read_page)

    async def warm_project(self, caller: Caller, folder: str) -> bool:
        """Look at a project of the server's machine in advance; whether that was needed."""
        answer = await self._ask(caller, WarmProjects(folders=[folder]), repeatable=True, wait_ms=60_000)
        if not answer["warmed"]:
            raise InvalidArgument(f"{folder} is not a directory", "name a folder of the server's machine")
        return bool(answer["warmed"][0]["looked_at"])

    async def project_figures(self, caller: Caller) -> dict[str, int]:
        """How often an answer about projects was known already."""
        return await self._ask(caller, ProjectFigures())

    async def clear_projects(self, caller: Caller) -> int:
        """Forget all looks at projects, and the figures."""
        return int((await self._ask(caller, ClearProjects(), repeatable=True))["cleared"])

    async def server_info(self, caller: Caller) -> View:
        """Which server it is, what time it has, and as what it knows the caller."""
        return await self._ask(caller, ServerInfo())

    async def _ask(
        self,
        caller: Caller,
        request: Request,
        name: str | None = None,
        *,
        repeatable: bool = False,
        wait_ms: int = 0,
        what: str = "",
    ) -> View:
        """Carry out one operation; what only reads may always be asked again."""
        row = operation(name or request.tool)
        given = fields_of(caller, request)
        if "session" in row.path_fields:
            given["session"] = session_of(caller)
        path = path_of(row.path, {field: given.pop(field) for field in row.path_fields})
        in_query = row.method in ("GET", "DELETE")
        view = await self._connection.view(
            Ask(
                row.method,
                path,
                query=given if in_query else {},
                body=None if in_query else given,
                headers=headers_of(caller),
                wait_s=min(wait_ms, _LONGEST_MS) / 1000,
                is_repeatable=repeatable or row.method == "GET",
                what=what,
            )
        )
        # Anything may speak JSON at an address that is wrong.
        if not view.keys() >= ALWAYS_THERE.get(row.name, {}).keys():
            raise not_ours(self._connection.shown)
        return view


@asynccontextmanager
async def open_remote(
    address: str,
    *,
    token: SecretStr | None,
    tell: Callable[[str], None],
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> AsyncIterator[RemoteService]:
    """Use the server at an address for as long as the block lasts.

    Args:
        address: http://…, https://… or unix:PATH.
        token: What lets us in there.
        tell: Is told when the connection is lost, and when it is there again.
        patience: For how long to try.

    Raises:
        InvalidArgument: It is no address.
    """
    async with Connection(Address.parse(address), token, tell, patience) as connection:
        yield RemoteService(connection)


def _own_key() -> str:
    return f"cli-{secrets.token_hex(16)}"
