"""The use cases: what an agent, a person or a program can ask for, whoever asks.

Blocking work runs in a bounded pool of threads; waits are asynchronous. Cancelling a call never
cancels a task.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator
from typing import TypeVar

from mcp_tasks.errors import InvalidArgument, TaskNotFound, TasksError
from mcp_tasks.models import TASK_ID, SessionKey, Task
from mcp_tasks.output import Cursor, RunOutput, Stream
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
from mcp_tasks.service.access import Caller, needed, require
from mcp_tasks.service.desk import Desk, View
from mcp_tasks.service.figures import ServiceFigures, count, is_well
from mcp_tasks.service.journal.entries import ToolCall
from mcp_tasks.service.journal.exporting import Exporting
from mcp_tasks.service.journal.journaling import Journaling
from mcp_tasks.service.plans.planning import Planning
from mcp_tasks.service.projects import Projects
from mcp_tasks.service.sessions.connections import Attendance, Client
from mcp_tasks.service.sessions.ends import SessionEnds
from mcp_tasks.service.sessions.sessions import Sessions
from mcp_tasks.service.tasks.conversing import Conversing
from mcp_tasks.service.tasks.ending import Ending
from mcp_tasks.service.tasks.reading import Excerpt, Reading
from mcp_tasks.service.tasks.several import Several
from mcp_tasks.service.tasks.starting import Starting
from mcp_tasks.service.watching import Piece, Tally, Watching

__all__ = [
    "Attendance",
    "Caller",
    "Client",
    "Desk",
    "Excerpt",
    "Piece",
    "Service",
    "ServiceFigures",
    "Tally",
    "ToolCall",
    "View",
    "needed",
    "require",
]

R = TypeVar("R", bound=Request)


class Service:
    """One method per tool; each takes a Caller and a request and returns a JSON-ready view.

    Every method raises TasksError, and then nothing has changed.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._starting = Starting(desk)
        self._reading = Reading(desk)
        self._ending = Ending(desk)
        self._conversing = Conversing(desk)
        self._several = Several(desk)
        self._planning = Planning(desk)
        self._projects = Projects(desk, desk.projects)
        self._sessions = Sessions(desk)
        self._journaling = Journaling(desk)
        self._exporting = Exporting(desk)
        self._session_ends = SessionEnds(desk, self._ending, self._sessions)
        self._watching = Watching(desk)
        self._observe: Callable[[str, str, float], None] | None = None

    async def run_command(self, caller: Caller, request: RunCommand) -> View:
        """Start a command as a durable task and answer with its view."""
        return await self._served(caller, request, self._starting.run_command)

    async def poll_task(self, caller: Caller, request: PollTask) -> View:
        """Look at a task, and wait a while if asked to."""
        return await self._served(caller, request, self._reading.poll_task)

    async def get_result(self, caller: Caller, request: GetResult) -> View:
        """Show the record of a task and a part of its output."""
        return await self._served(caller, request, self._reading.get_result)

    async def read_output(
        self, caller: Caller, task_id: str, stream: Stream, offset: int = 0, limit: int = 262_144
    ) -> Excerpt:
        """The exact bytes of one stream of a task's output, a part of them; no tool does that."""
        admitted = await self._desk.access.admit(caller, "read")
        return await self._reading.read_output(admitted, task_id, stream, offset, limit)

    async def list_tasks(self, caller: Caller, request: ListTasks) -> View:
        """List the tasks of a session, newest first, with how many there are in each state."""
        return await self._served(caller, request, self._reading.list_tasks)

    async def search_output(self, caller: Caller, request: SearchOutput) -> View:
        """Find lines in the output of one task or of the whole session."""
        return await self._served(caller, request, self._reading.search_output)

    async def cancel_task(self, caller: Caller, request: CancelTask) -> View:
        """End one task or several with all their processes; answer when it is over."""
        return await self._served(caller, request, self._ending.cancel_task)

    async def clear_task(self, caller: Caller, request: ClearTask) -> View:
        """Remove finished tasks for good."""
        return await self._served(caller, request, self._ending.clear_task)

    async def send_input(self, caller: Caller, request: SendInput) -> View:
        """Give a running command text, end of file or a signal, and show what came of it."""
        return await self._served(caller, request, self._conversing.send_input)

    async def wait_tasks(self, caller: Caller, request: WaitTasks) -> View:
        """Wait for the first, all, or the first failure of several tasks."""
        return await self._served(caller, request, self._several.wait_tasks)

    async def run_plan(self, caller: Caller, request: RunPlan) -> View:
        """Register several commands at once, which run in order or as they depend on each other."""
        return await self._served(caller, request, self._planning.run_plan)

    async def plan_progress(self, caller: Caller, request: PlanProgress) -> View:
        """Tell how far a plan has come."""
        return await self._served(caller, request, self._planning.plan_progress)

    async def list_plans(self, caller: Caller, limit: int = 100) -> View:
        """The plans of a session, newest first; no tool does that."""
        return await self._planning.list_plans(await self._desk.access.admit(caller, "read"), limit)

    def resolve_plan_prefix(self, caller: Caller, prefix: str) -> str:
        """The one plan whose id begins with `prefix`. Raises PlanNotFound, InvalidArgument."""
        return self._planning.resolve_prefix(self._desk.access.admit_now(caller), prefix)

    async def session_info(self, caller: Caller, request: SessionInfo) -> View:
        """Tell everything about one session."""
        view = await self._served(caller, request, self._sessions.session_info)
        self._projects.expect(view.get("workspace", {}).get("cwd"))
        return view

    async def update_session(self, caller: Caller, request: UpdateSession) -> View:
        """Change a session, or make it."""
        view = await self._served(caller, request, self._sessions.update_session)
        self._projects.expect(view.get("workspace", {}).get("cwd"))
        return view

    async def list_sessions(self, caller: Caller, request: ListSessions) -> View:
        """List the caller's sessions, the one used last first."""
        return await self._served(caller, request, self._sessions.list_sessions)

    async def end_session(self, caller: Caller, request: EndSession) -> View:
        """Close a session; what is there stays readable."""
        return await self._served(caller, request, self._session_ends.end_session)

    async def project_context(self, caller: Caller, request: ProjectContext) -> View:
        """Tell what is known of the project in a folder."""
        return await self._served(caller, request, self._projects.project_context)

    @property
    def projects(self) -> Projects:
        """What is done for the knowledge of projects beside the tool."""
        return self._projects

    async def add_message(self, caller: Caller, request: AddMessage) -> View:
        """Write something into the journal, or give a message another text."""
        return await self._served(caller, request, self._journaling.add_message)

    async def read_journal(self, caller: Caller, request: ReadJournal) -> View:
        """Read the journal by page, or a thread, a branch, the versions of a message."""
        return await self._served(caller, request, self._journaling.read_journal, existing=True)

    async def search_journal(self, caller: Caller, request: SearchJournal) -> View:
        """Find messages that have all the words, newest first."""
        return await self._served(caller, request, self._journaling.search_journal, existing=True)

    async def export_session(self, caller: Caller, request: ExportSession) -> View:
        """Give the journal and the records of the tasks as one text, by page."""
        return await self._served(caller, request, self._exporting.export_session, existing=True)

    def export_pieces(self, caller: Caller, kind: str) -> Iterator[str]:
        """The same text (`json`, `markdown`) as a whole, piece by piece. Blocking; no tool does that."""
        admitted = self._desk.access.admit_now(caller)
        self._desk.records.load(admitted.session_key)
        return self._exporting.pieces(admitted, kind)

    async def import_journal(self, caller: Caller, document: bytes) -> View:
        """Take the messages of a JSON export into the session; no tool does that."""
        from mcp_tasks.service.journal.importing import Importing  # costs start-up time

        admitted = await self._desk.access.admit(caller, "write")
        return await Importing(self._desk).import_journal(admitted, document)

    async def prune_journal(self, caller: Caller, keep: int | None = None) -> View:
        """Fold the oldest messages until `keep` (or the limit) are live; no tool does that."""
        return await self._journaling.prune(await self._desk.access.admit(caller, "write"), keep)

    async def journal_stats(self, caller: Caller) -> View:
        """How large and how old the journal is; no tool does that."""
        return await self._journaling.stats(await self._desk.access.admit(caller, "read"))

    def note_call(self, caller: Caller, call: ToolCall) -> None:
        """Have a call of a tool written into the journal, without waiting. Never raises."""
        self._journaling.note_call(caller, call)

    async def delete_session(self, caller: Caller, *, force: bool = False) -> View:
        """Remove a session for good; no tool does that. Raises TaskNotFinished unless it is forced."""
        admitted = await self._desk.access.admit(caller, "owner")
        return await self._session_ends.delete_session(admitted, force=force)

    def observe(self, observer: Callable[[str, str, float], None]) -> None:
        """Have `observer` told of each call of a tool: its name, `ok` or the code of the error, seconds."""
        self._observe = observer

    async def figures(self) -> ServiceFigures:
        """How much of everything there is, over all owners. Raises StoreUnavailable."""
        return await self._desk.blocking(count, self._desk)

    async def is_well(self) -> bool:
        """Whether the store can be read now."""
        return await self._desk.blocking(is_well, self._desk)

    async def all_sessions(self, caller: Caller) -> View:
        """List the sessions of every owner; no tool does that, and no share lets anybody."""
        await self._desk.access.admit(caller, "owner")
        return await self._sessions.all_sessions()

    async def _served(
        self,
        caller: Caller,
        request: R,
        use_case: Callable[[Caller, R], Awaitable[View]],
        *,
        existing: bool = False,
    ) -> View:
        """Carry out a call as far as the caller may; every call comes through here.

        With `existing` a session that is not there is told from one in which nothing is.
        """
        began, outcome = time.monotonic(), "withdrawn"
        try:
            view = await self._carried_out(caller, request, use_case, existing=existing)
            outcome = "ok"
            return view
        except TasksError as error:
            outcome = error.code
            raise
        except Exception:
            outcome = "internal"
            raise
        finally:
            if self._observe is not None:
                self._observe(request.tool, outcome, time.monotonic() - began)

    async def _carried_out(
        self, caller: Caller, request: R, use_case: Callable[[Caller, R], Awaitable[View]], *, existing: bool
    ) -> View:
        desk, need = self._desk, needed(request.tool)
        admitted = await desk.access.admit(caller, need)
        if existing:
            await desk.blocking(desk.records.load, admitted.session_key)
        view = await use_case(admitted, request)
        if admitted.via is not None and need == "read":
            # A share may have ended while it waited. What was changed, though, is not to be denied.
            await desk.access.admit(caller, need)
        # A task may be another session's than the one that the caller works in, where he named none.
        key = SessionKey(admitted.owner, view.get("session", admitted.session))
        desk.records.used(key)
        if caller.served_in is not None:
            caller.served_in(key)
        return view

    async def admitted(self, caller: Caller) -> Caller:
        """The caller as he is let in: with a share, in the session of it and in its role.

        Raises:
            SessionNotFound: His share opens nothing (ShareNotValid), or another session than he named.
        """
        return await self._desk.access.admit(caller, "read")

    def attend(self, transport: str) -> Attendance:
        """A client has come; what it is served in is written down as its connections."""
        return self._desk.connections.attend(transport)

    @property
    def watching(self) -> Watching:
        """What looks out for those who watch; the composition root has it attend."""
        return self._watching

    def watch(self, caller: Caller, task_ids: Collection[str]) -> AsyncGenerator[View, None]:
        """The view of each task now, and again when its state changes; see `Watching.watch`."""
        return self._watching.watch(caller, task_ids)

    def follow(
        self, caller: Caller, task_id: str, stdout: int = 0, stderr: int = 0, run: int | None = None
    ) -> AsyncGenerator[Piece, None]:
        """The output of a task from these positions on, until its end; see `Watching.follow`."""
        return self._watching.follow(caller, task_id, stdout, stderr, run)

    def growth(self, caller: Caller, task_id: str) -> AsyncGenerator[Cursor, None]:
        """Where the output of a task ends, each time that it has grown; see `Watching.growth`."""
        return self._watching.growth(caller, task_id)

    def changes(self, caller: Caller) -> AsyncGenerator[Tally, None]:
        """What the tasks of the session are, each time that they are others; see `Watching.changes`."""
        return self._watching.changes(caller)

    def resolve_prefix(self, caller: Caller, prefix: str) -> str:
        """The one task whose id begins with `prefix`. Raises TaskNotFound, InvalidArgument."""
        caller = self._desk.access.admit_now(caller)
        if TASK_ID.fullmatch(prefix):
            return prefix
        sessions = [caller.session_key]
        if not caller.named:
            sessions = [session.key for session in self._desk.store.sessions(caller.owner)]
        found = [
            task.key.task_id
            for session in sessions
            for task in self._desk.store.tasks(session)
            if prefix and task.key.task_id.startswith(prefix)
        ]
        if not found:
            raise TaskNotFound(prefix)
        if len(found) > 1:
            raise InvalidArgument(f"{prefix!r} fits {len(found)} tasks", "give more characters of the id")
        return found[0]

    def output_of(self, caller: Caller, task_id: str) -> tuple[Task, RunOutput]:
        """A task as it is, and its captured output, for those who copy bytes."""
        caller = self._desk.access.admit_now(caller)
        task = self._desk.reconciler.look(self._desk.find(caller, task_id)).task
        return task, self._desk.presenter.output(task)

    def startup_report(self) -> str:
        """How many sessions and tasks there are, and what was found broken."""
        sessions, tasks = len(self._desk.store.sessions()), self._desk.store.count_tasks()
        unfinished = len(self._desk.store.unfinished())
        report = f"{sessions} sessions and {tasks} tasks, {unfinished} of them not finished"
        return "; ".join([report, *self.problems()])

    async def until_nothing_waits(self) -> None:
        """Wait until nothing of the whole store is left to be started, now or as a further run."""
        await self._desk.keeping.until_nothing_waits()

    def look_around(self) -> None:
        """Another process may have registered something that is to be started."""
        self._desk.keeping.look_around()

    def problems(self) -> list[str]:
        """What is broken in the store and the journal, one sentence each."""
        return [*self._desk.store.problems(), *self._desk.journal.problems()]
