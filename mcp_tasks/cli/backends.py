"""Who does the work of a command: the service in this process, or a server elsewhere that is asked to.

Commands are written against `Backend` and do not know the difference.
"""

# ruff: noqa: D102  # the methods of `Service` are described there

from __future__ import annotations

import os
import struct
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.output.captured import Cursor, RunOutput, Stream

if TYPE_CHECKING:
    from mcp_tasks.requests import (
        AddMessage,
        CancelTask,
        ClearTask,
        EndSession,
        GetResult,
        ListSessions,
        ListTasks,
        PlanProgress,
        PollTask,
        ProjectContext,
        ReadJournal,
        RunCommand,
        RunPlan,
        SearchJournal,
        SearchOutput,
        SendInput,
        SessionInfo,
        UpdateSession,
        WaitTasks,
    )
    from mcp_tasks.service import Caller, Service

__all__ = ["CHUNK_MS", "Backend", "Captured", "LocalBackend"]

CHUNK_MS: Final = 3_600_000
"""One wait of a backend; what waits for longer waits again."""

View: TypeAlias = dict[str, Any]

_RECORD: Final = struct.Struct("<QII")
_RECORDS: Final = 4096


class Captured(Protocol):
    """The captured output of one run."""

    async def read(self, stream: Stream, start: int, limit: int) -> tuple[int, bytes]:
        """At most `limit` bytes from `start` on, and where they begin: see `RunOutput.read`."""
        ...

    def in_order(self) -> Iterator[tuple[Stream, int]]:
        """The pieces of output in their order in time, as far as it is known: the stream, where each ends."""
        ...


class Backend(Protocol):
    """What commands use: the methods of `Service` and, where reading bytes is the matter, a few of its own.

    Every method raises TasksError.
    """

    async def run_command(self, caller: Caller, request: RunCommand) -> View: ...
    async def poll_task(self, caller: Caller, request: PollTask) -> View: ...
    async def get_result(self, caller: Caller, request: GetResult) -> View: ...
    async def list_tasks(self, caller: Caller, request: ListTasks) -> View: ...
    async def search_output(self, caller: Caller, request: SearchOutput) -> View: ...
    async def cancel_task(self, caller: Caller, request: CancelTask) -> View: ...
    async def clear_task(self, caller: Caller, request: ClearTask) -> View: ...
    async def send_input(self, caller: Caller, request: SendInput) -> View: ...
    async def wait_tasks(self, caller: Caller, request: WaitTasks) -> View: ...
    async def run_plan(self, caller: Caller, request: RunPlan) -> View: ...
    async def plan_progress(self, caller: Caller, request: PlanProgress) -> View: ...
    async def list_plans(self, caller: Caller, limit: int) -> View: ...
    async def session_info(self, caller: Caller, request: SessionInfo) -> View: ...
    async def update_session(self, caller: Caller, request: UpdateSession) -> View: ...
    async def list_sessions(self, caller: Caller, request: ListSessions) -> View: ...
    async def all_sessions(self, caller: Caller) -> View: ...
    async def end_session(self, caller: Caller, request: EndSession) -> View: ...
    async def delete_session(self, caller: Caller, *, force: bool) -> View: ...
    async def project_context(self, caller: Caller, request: ProjectContext) -> View: ...
    async def add_message(self, caller: Caller, request: AddMessage) -> View: ...
    async def read_journal(self, caller: Caller, request: ReadJournal) -> View: ...
    async def search_journal(self, caller: Caller, request: SearchJournal) -> View: ...
    async def import_journal(self, caller: Caller, document: bytes) -> View: ...
    async def prune_journal(self, caller: Caller, keep: int | None) -> View: ...
    async def journal_stats(self, caller: Caller) -> View: ...

    async def resolve_prefix(self, caller: Caller, prefix: str) -> str:
        """The one task whose id begins with `prefix`. Raises TaskNotFound, InvalidArgument."""
        ...

    async def resolve_plan_prefix(self, caller: Caller, prefix: str) -> str:
        """The one plan whose id begins with `prefix`. Raises PlanNotFound, InvalidArgument."""
        ...

    def export_pieces(self, caller: Caller, kind: str) -> AsyncIterator[str]:
        """The export of a session (`json`, `markdown`) as a whole, piece by piece."""
        ...

    async def reached(
        self, caller: Caller, task_id: str, beyond: Cursor | None = None
    ) -> tuple[Cursor, bool]:
        """How far the output of a task reaches, in its newest run, and whether the task is final.

        What a final task has written is all there. With `beyond` it is waited for until there is more than
        that, or the task ends, or a while is over.
        """
        ...

    async def captured(self, caller: Caller, task_id: str, run: int) -> Captured:
        """The output of one run of a task."""
        ...

    async def warm_project(self, caller: Caller, folder: str) -> bool:
        """Look at a project in advance; whether that was needed.

        Raises:
            InvalidArgument: It is no folder.
        """
        ...

    async def project_figures(self, caller: Caller) -> dict[str, int]:
        """How often an answer about projects was known already."""
        ...

    async def clear_projects(self, caller: Caller) -> int:
        """Forget all looks at projects, and the figures; how many looks that were."""
        ...


class LocalBackend:
    """The service in this process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.run_command = service.run_command
        self.poll_task = service.poll_task
        self.get_result = service.get_result
        self.list_tasks = service.list_tasks
        self.search_output = service.search_output
        self.cancel_task = service.cancel_task
        self.clear_task = service.clear_task
        self.send_input = service.send_input
        self.wait_tasks = service.wait_tasks
        self.run_plan = service.run_plan
        self.plan_progress = service.plan_progress
        self.list_plans = service.list_plans
        self.session_info = service.session_info
        self.update_session = service.update_session
        self.list_sessions = service.list_sessions
        self.all_sessions = service.all_sessions
        self.end_session = service.end_session
        self.delete_session = service.delete_session
        self.project_context = service.project_context
        self.add_message = service.add_message
        self.read_journal = service.read_journal
        self.search_journal = service.search_journal
        self.import_journal = service.import_journal
        self.prune_journal = service.prune_journal
        self.journal_stats = service.journal_stats

    async def resolve_prefix(self, caller: Caller, prefix: str) -> str:
        """See `Backend`."""
        return self._service.resolve_prefix(caller, prefix)

    async def resolve_plan_prefix(self, caller: Caller, prefix: str) -> str:
        """See `Backend`."""
        return self._service.resolve_plan_prefix(caller, prefix)

    async def export_pieces(self, caller: Caller, kind: str) -> AsyncIterator[str]:
        """See `Backend`."""
        from anyio import to_thread

        pieces = self._service.export_pieces(caller, kind)
        while (piece := await to_thread.run_sync(next, pieces, None)) is not None:
            yield piece

    async def reached(
        self, caller: Caller, task_id: str, beyond: Cursor | None = None
    ) -> tuple[Cursor, bool]:
        """See `Backend`."""
        if beyond is not None:
            from mcp_tasks.requests import PollTask

            request = PollTask(
                task_id=task_id, cursor=beyond.encode(), until="output", wait_ms=CHUNK_MS, show="none"
            )
            await self._service.poll_task(caller, request)
        # The state is read first: what a final task has written is there when it is read now.
        task, output = self._service.output_of(caller, task_id)
        return Cursor(task.begun, output.size("stdout"), output.size("stderr")), task.is_final

    async def captured(self, caller: Caller, task_id: str, run: int) -> Captured:
        """See `Backend`."""
        return _Files(self._service.output_of(caller, task_id)[1].of_run(run))

    async def warm_project(self, caller: Caller, folder: str) -> bool:  # noqa: ARG002 - a server asks who it is
        """See `Backend`."""
        from anyio import to_thread

        if not await to_thread.run_sync(os.path.isdir, folder):
            raise InvalidArgument(f"{folder} is not a directory", "name a folder")
        return await self._service.projects.warm(folder)

    async def project_figures(self, caller: Caller) -> dict[str, int]:  # noqa: ARG002 - as above
        """See `Backend`."""
        return self._service.projects.figures()

    async def clear_projects(self, caller: Caller) -> int:  # noqa: ARG002 - as above
        """See `Backend`."""
        return self._service.projects.clear()


class _Files:
    """The files of a run."""

    def __init__(self, output: RunOutput) -> None:
        self._output = output

    async def read(self, stream: Stream, start: int, limit: int) -> tuple[int, bytes]:
        return self._output.read(stream, start, limit)

    def in_order(self) -> Iterator[tuple[Stream, int]]:
        ends: dict[Stream, int] = {"stdout": 0, "stderr": 0}
        try:
            with open(self._output.folder / "chunks", "rb") as index:
                while records := index.read(_RECORDS * _RECORD.size):
                    whole = len(records) - len(records) % _RECORD.size
                    for _, number, length in _RECORD.iter_unpack(records[:whole]):
                        stream: Stream = "stdout" if number == 1 else "stderr"
                        ends[stream] += length
                        yield stream, ends[stream]
        except FileNotFoundError:
            return
