"""Looking at tasks: one, its output, all of a session, a line in any of them. Changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from typing import Literal, NamedTuple, cast

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.models import FINAL_STATES, TASK_ID, SessionKey, StateName, Task, TaskKey
from mcp_tasks.output import Cursor, OutputView, Stream, view_head_tail, view_lines, view_range
from mcp_tasks.reconcile import Sight
from mcp_tasks.requests import GetResult, ListTasks, PollTask, SearchOutput
from mcp_tasks.service.desk import Caller, Desk, View, waits_for_more
from mcp_tasks.service.tasks.searching import search_tasks
from mcp_tasks.views import fitting

__all__ = ["Excerpt", "Reading"]

_DIGEST_BYTES = 16_384
_PAGE_BYTES = 32_768
_SEARCH_S = 5.0
_MOST_COUNTS = 5
_RUNNING: tuple[StateName, ...] = ("running",)


class Excerpt(NamedTuple):
    """Some bytes of what a task has written, exactly as it wrote them.

    Attributes:
        offset: Of the first byte, after the one asked for where that is gone.
        size: How many bytes the stream has so far.
        run: Number of the run that wrote it: the newest that has written anything.
    """

    offset: int
    data: bytes
    size: int
    run: int
    is_complete: bool


class Reading:
    """poll_task, get_result, list_tasks, search_output."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def poll_task(self, caller: Caller, request: PollTask) -> View:
        """Look at a task, and wait a while if asked to."""
        key = self._desk.find(caller, request.task_id)
        cursor = _cursor(request.cursor)
        condition = self._desk.conditions(request)(cursor)
        wait_ms = request.wait_ms
        if wait_ms is None:
            wait_ms = caller.max_wait_ms if waits_for_more(request) else 0
        sight, wait = await self._desk.wait(caller, key, condition, wait_ms)
        show = request.show or ("new" if cursor is not None else "tail")
        if wait.result == "exited" and wait.waited_ms and request.show is None:
            show = "tail"
        excerpt = self._desk.presenter.excerpt(sight, show, cursor, request.max_bytes, request.ansi)
        return self._desk.presenter.view(sight, excerpt, wait=wait, max_wait_ms=caller.max_wait_ms)

    async def get_result(self, caller: Caller, request: GetResult) -> View:
        """Show the record of a task and a part of its output."""
        key = self._desk.find(caller, request.task_id)
        return await self._desk.blocking(self._result, key, request)

    def _result(self, key: TaskKey, request: GetResult) -> View:
        sight = self._desk.reconciler.look(key)
        excerpt = self._range(sight, request)
        return self._desk.presenter.view(sight, excerpt, record=True, history=True, read_on=_read_on(request))

    def _range(self, sight: Sight, request: GetResult) -> OutputView:
        task = sight.task
        output, run = self._desk.presenter.newest_output(task)
        final, ansi, encoding = task.is_final or run < task.run, request.ansi, request.encoding
        streams = _streams(request.stream)
        limit = request.limit or _PAGE_BYTES
        if request.cursor is not None:
            cursor = Cursor.parse(request.cursor)
            return self._desk.presenter.new(
                task, cursor, limit, ansi=ansi, encoding=encoding, streams=streams
            )
        if request.head_lines is not None or request.tail_lines is not None:
            if encoding == "base64":
                raise InvalidArgument(
                    "encoding base64 does not go with lines", "give offset and limit instead"
                )
            return view_lines(
                output,
                run,
                streams,
                head_lines=request.head_lines,
                tail_lines=request.tail_lines,
                max_bytes=limit,
                final=final,
                ansi=ansi,
            )
        if (
            request.offset is not None
            or request.limit is not None
            or encoding == "base64"
            or request.stream != "both"
        ):
            offset = request.offset or 0
            return view_range(output, run, streams, offset, limit, encoding=encoding, final=final, ansi=ansi)
        return view_head_tail(output, run, _DIGEST_BYTES, final=final, ansi=ansi)

    async def read_output(
        self, caller: Caller, task_id: str, stream: Stream, offset: int, limit: int
    ) -> Excerpt:
        """Bytes of one stream, at most `limit` from `offset` on; fewer before a hole, and at the end."""
        key = self._desk.find(caller, task_id)
        return await self._desk.blocking(self._excerpt, key, stream, offset, limit)

    def _excerpt(self, key: TaskKey, stream: Stream, offset: int, limit: int) -> Excerpt:
        # The state is read first: what a final task has written is there when it is read now.
        task = self._desk.reconciler.look(key).task
        output, run = self._desk.presenter.newest_output(task)
        start, data = output.read(stream, offset, limit)
        size = max(output.size(stream), start + len(data))
        return Excerpt(start, data, size, run, is_complete=task.is_final or run < task.run)

    async def list_tasks(self, caller: Caller, request: ListTasks) -> View:
        """List the tasks of a session, newest first, with how many there are in each state."""
        return await self._desk.blocking(self._list, caller, request)

    def _list(self, caller: Caller, request: ListTasks) -> View:
        before = request.cursor
        if before is not None and not TASK_ID.fullmatch(before):
            raise InvalidArgument(
                "cursor is not one of list_tasks", "give the next_cursor of the last answer"
            )
        if request.label is None and request.cwd is None:
            shown, counts = self._page(caller.session_key, request), self._counts(caller.session_key)
        else:
            shown, counts = self._filtered(caller, request)
        more = len(shown) > request.limit
        del shown[request.limit :]
        views = self._desk.presenter.summaries(shown)
        fit = fitting(views)
        answer: View = {"tasks": views[:fit], "counts": counts}
        if more or fit < len(views):
            answer["next_cursor"] = shown[fit - 1].task.key.task_id
        if problems := [*self._desk.store.problems(), *self._desk.journal.problems()]:
            answer["warning"] = (
                f"{len(problems)} problems were found in the store: mcp-tasks doctor names them"
            )
        return answer

    def _page(self, session: SessionKey, request: ListTasks) -> list[Sight]:
        """One task more than a page; no other is read, however many there are."""
        recorded = _recorded_as(request.state)
        found: list[Sight] = []
        for task in self._desk.store.tasks(session, before=request.cursor, states=recorded):
            sight = self._desk.look_at(task)
            if _in_state(sight.task, request.state):
                found.append(sight)
                if len(found) > request.limit:
                    break
        return found

    def _counts(self, session: SessionKey) -> dict[str, int]:
        recorded = self._desk.store.counts(session)
        counted: Counter[str] = Counter()
        for _ in range(_MOST_COUNTS):
            counted = Counter(recorded)
            # Of what is recorded as running, some has ended by now.
            for task in self._desk.store.tasks(session, states=_RUNNING):
                counted["running"] -= 1
                counted[self._desk.look_at(task).task.state_name] += 1
            # An end that was recorded between the two would be told as a task that runs.
            before, recorded = recorded, self._desk.store.counts(session)
            if recorded == before:
                break
        return {state: number for state, number in counted.items() if number > 0}

    def _filtered(self, caller: Caller, request: ListTasks) -> tuple[list[Sight], dict[str, int]]:
        """The same of the tasks with a label or a folder, which only the records tell."""
        found: list[Sight] = []
        counted: Counter[str] = Counter()
        for sight in self._desk.matching(caller, request.label, request.cwd):
            counted[sight.task.state_name] += 1
            if len(found) > request.limit or not _in_state(sight.task, request.state):
                continue
            if request.cursor is None or sight.task.key.task_id < request.cursor:
                found.append(sight)
        return found, dict(counted)

    async def search_output(self, caller: Caller, request: SearchOutput) -> View:
        """Find lines in the output of one task or of the whole session."""
        if request.task_id is not None:
            tasks = [self._desk.store.load(self._desk.find(caller, request.task_id))]
            return await self._desk.blocking(search_tasks, self._desk.store, tasks, request, _SEARCH_S)
        return await self._desk.blocking(self._search_session, caller, request)

    def _search_session(self, caller: Caller, request: SearchOutput) -> View:
        tasks = list(self._desk.store.tasks(caller.session_key))
        if request.order == "oldest":
            tasks.reverse()
        return search_tasks(self._desk.store, tasks, request, _SEARCH_S)


def _read_on(request: GetResult) -> str:
    """What a page's arguments must repeat, so that the next page is of the same kind."""
    given = {
        "stream": request.stream,
        "encoding": request.encoding,
        "limit": request.limit,
        "ansi": request.ansi,
    }
    usual = {"stream": "both", "encoding": "text", "limit": None, "ansi": "strip"}
    return "".join(f", {name}={json.dumps(value)}" for name, value in given.items() if value != usual[name])


def _cursor(text: str | None) -> Cursor | None:
    return None if text is None else Cursor.parse(text)


def _streams(stream: str) -> tuple[Literal["stdout", "stderr"], ...]:
    if stream == "both":
        return ("stdout", "stderr")
    return ("stdout",) if stream == "stdout" else ("stderr",)


def _recorded_as(state: str | None) -> Collection[StateName] | None:
    """The states that tasks can be recorded in whose state is this one; None for any."""
    if state is None:
        return None
    if state == "active":
        return ("pending", "running")
    return cast("tuple[StateName, ...]", (state, "running"))


def _in_state(task: Task, state: str | None) -> bool:
    if state is None:
        return True
    return task.state_name not in FINAL_STATES if state == "active" else task.state_name == state
