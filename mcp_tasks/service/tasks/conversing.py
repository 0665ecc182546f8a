"""Giving input and signals to a running command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mcp_tasks.errors import InvalidArgument, LimitReached
from mcp_tasks.models import Pending
from mcp_tasks.output import Cursor
from mcp_tasks.requests import SendInput
from mcp_tasks.service.desk import Caller, Desk, View, signal_number, waits_for_more

__all__ = ["Conversing"]

_IDLE_MS = 300
_WAIT_MS = 5_000


class Conversing:
    """send_input."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def send_input(self, caller: Caller, request: SendInput) -> View:
        """Give a running command text, end of file or a signal, and show what came of it."""
        key = self._desk.find(caller, request.task_id)
        sight = self._desk.reconciler.look(key)
        if sight.task.is_final:
            raise InvalidArgument(
                f"task {request.task_id} is over", "it takes no input any more; start it again"
            )
        if isinstance(sight.task.state, Pending):
            raise InvalidArgument(
                f"task {request.task_id} is pending and takes no input yet", "poll_task waits until it runs"
            )
        folder = self._desk.folder(sight.task)
        output = self._desk.presenter.output(sight.task)
        before = Cursor(sight.task.run, output.size("stdout"), output.size("stderr"))
        condition = self._desk.conditions(request)(before)
        wait_ms = request.wait_ms
        if not waits_for_more(request):
            condition = replace(condition, until="idle", idle_ms=_IDLE_MS)
            wait_ms = _WAIT_MS if wait_ms is None else wait_ms
        text = (request.text or "") + ("\n" if request.enter else "")
        await self._desk.blocking(self._deliver, folder, text, request)
        sight, wait = await self._desk.wait(
            caller, key, condition, caller.max_wait_ms if wait_ms is None else wait_ms
        )
        excerpt = self._desk.presenter.excerpt(sight, "new", before, request.max_bytes, request.ansi)
        return self._desk.presenter.view(sight, excerpt, wait=wait, max_wait_ms=caller.max_wait_ms)

    def _deliver(self, folder: Path, text: str, request: SendInput) -> None:
        if text:
            data = text.encode("utf-8", "surrogatepass")
            taken = self._desk.executor.write_input(folder, data, _WAIT_MS)
            if taken < len(data):
                raise LimitReached(
                    f"the command does not read its input: it took only {taken} of {len(data)} bytes",
                    "send the rest when it reads again",
                )
        if request.eof:
            self._desk.executor.close_input(folder)
        if request.signal is not None and not self._desk.executor.signal(
            folder, signal_number(request.signal)
        ):
            raise InvalidArgument("the command is not there to be signalled", "poll_task tells its state")
