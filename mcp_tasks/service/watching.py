"""Being told of what happens to tasks, for as long as somebody listens, whichever server runs them."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

import anyio
import anyio.abc

from mcp_tasks.errors import TaskNotFound, TasksError
from mcp_tasks.models import SessionKey, StateName, Task, TaskKey
from mcp_tasks.output import STREAMS, Cursor, Stream
from mcp_tasks.reconcile import Sight
from mcp_tasks.service.desk import Caller, Desk, View
from mcp_tasks.service.look_outs import Bell, LookOut, LookOuts
from mcp_tasks.waiting import Condition

__all__ = ["Piece", "Tally", "Watching"]

_WAIT_MS: Final = 3_600_000
"""One wait; who watches for longer waits again."""

_SHARE_MS: Final = 5_000
"""How long output may be waited for before it is asked again whether the caller may still see it."""

_PAUSE_MS: Final = 1_000
"""Growth of output is told of so often."""

_PIECE_BYTES: Final = 65_536
_TROUBLE_S: Final = 1.0
_LIST_S: Final = 0.5
_LIST_SHARE: Final = 20
"""Looking at a list takes at most one part in so many of the time, however long the list is."""

log = logging.getLogger(__name__)

_Mark: TypeAlias = tuple[StateName, int]
_Extent: TypeAlias = tuple[Cursor, bool]
"""Where the output of the newest run ends, and whether that is the last of it."""


class Piece(NamedTuple):
    """Some output of a task.

    Attributes:
        offset: Of the first byte, in the stream of that run. Where it is not the byte after the last piece,
            those in between are gone (`on_output_limit: keep_tail`).
        run: Number of the run that wrote it; with the next run the positions begin at 0 again.
    """

    stream: Stream
    offset: int
    data: bytes
    run: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What the tasks of a session are, in so few words that two lists can be told apart.

    Attributes:
        newest: Id of the task that was registered last.
        counts: How many there are in each state, as recorded.
    """

    newest: str | None
    counts: Mapping[StateName, int]

    @property
    def members(self) -> tuple[str | None, int]:
        """Changes when a task comes or goes, and not with what they do."""
        return self.newest, sum(self.counts.values())


class Watching:
    """Tells of changes. Reads, writes nothing; see `Service.watch`, `follow`, `growth` and `changes`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._group: anyio.abc.TaskGroup | None = None
        self._attended = anyio.Event()
        self._tasks = LookOuts(self._look_at_task)
        self._outputs = LookOuts(self._look_at_output)
        self._lists = LookOuts(self._look_at_list)

    def looking(self) -> int:
        """How many tasks, outputs and sessions are looked at for those who listen."""
        return len(self._tasks) + len(self._outputs) + len(self._lists)

    async def attend(self) -> None:
        """Look out for those who listen, until cancelled."""
        async with anyio.create_task_group() as group:
            self._group = group
            self._attended.set()
            await anyio.sleep_forever()

    async def post(self, work: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
        """Have something told to somebody who does not wait for it himself; `scope` ends it."""

        async def told() -> None:
            with scope:
                try:
                    await work()
                except Exception:
                    log.exception("what somebody listens to cannot be told any more")

        (await self._posts()).start_soon(told)

    async def watch(self, caller: Caller, task_ids: Collection[str]) -> AsyncGenerator[View, None]:
        """The view of each task, without output, now and at each change of its state, until all are final.

        Also the beginning of another run is a change. Of what follows fast upon each other only the last
        is told. A task that is cleared meanwhile is told of no more. Close it where it is not read to the
        end (`contextlib.aclosing`).

        Raises:
            TaskNotFound: There is no such task for the caller.
            TasksError: The caller may not see them, any more; the store cannot be read.
        """
        desk = self._desk
        admitted = await desk.access.admit(caller, "read")
        keys = [desk.find(admitted, task_id) for task_id in dict.fromkeys(task_ids)]
        group = await self._posts()
        bell: Bell[TaskKey, Sight | None] = Bell()
        told = dict[TaskKey, _Mark | None].fromkeys(keys)
        try:
            for key in keys:
                self._served(caller, key.session_key)
                self._tasks.join(group, key, bell)
            while told:
                for key, sight in (await bell.wait()).items():
                    if sight is None:
                        told.pop(key, None)
                    elif key in told and told[key] != _mark(sight.task):
                        told[key] = _mark(sight.task)
                        await desk.access.admit(caller, "read")
                        yield self._view(sight, caller)
                        if sight.task.is_final:
                            del told[key]
        finally:
            for key in keys:
                self._tasks.leave(key, bell)

    async def follow(
        self, caller: Caller, task_id: str, stdout: int = 0, stderr: int = 0, run: int | None = None
    ) -> AsyncGenerator[Piece, None]:
        """The output of a task, as it comes, until the task is final and everything has been told.

        Args:
            caller: Who reads.
            task_id: The task.
            stdout: Position of the first byte that is wanted of this stream.
            stderr: The same of the other.
            run: The run that the positions are of; None for the newest that has begun. What later runs
                write follows.

        Raises:
            TaskNotFound: There is no such task for the caller, or it was cleared meanwhile.
            TasksError: The caller may not see it, any more; the store cannot be read.
        """
        desk = self._desk
        key = desk.find(await desk.access.admit(caller, "read"), task_id)
        self._served(caller, key.session_key)
        task = (await desk.blocking(desk.reconciler.look, key)).task
        at = Cursor(min(max(run or task.begun, 1), task.begun), stdout, stderr)
        while True:
            # The state is read first: what a final task has written is there when it is read now.
            task = (await desk.blocking(desk.reconciler.look, key)).task
            pieces, seen = await desk.blocking(self._pieces, task, at)
            await desk.access.admit(caller, "read")
            for piece in pieces:
                end = piece.offset + len(piece.data)
                at = replace(at, stdout=end) if piece.stream == "stdout" else replace(at, stderr=end)
                yield piece
            if pieces:
                continue
            if at.run < task.begun:
                at = Cursor(at.run + 1)
            elif task.is_final:
                return
            else:
                await desk.waiting.until(key, Condition("output", since=seen), _SHARE_MS)

    async def growth(self, caller: Caller, task_id: str) -> AsyncGenerator[Cursor, None]:
        """Where the output of a task ends, now and when it has grown; over when the task is final.

        Told at most once a second, and for any number of listeners the output is looked at once. Who joins
        others may be told first of an end that is a second old.

        Raises:
            TaskNotFound: There is no such task for the caller, or it was cleared meanwhile.
            TasksError: The caller may not see it, any more.
        """
        desk = self._desk
        key = desk.find(await desk.access.admit(caller, "read"), task_id)
        group = await self._posts()
        self._served(caller, key.session_key)
        bell: Bell[TaskKey, _Extent | None] = Bell()
        try:
            self._outputs.join(group, key, bell)
            while True:
                extent = (await bell.wait())[key]
                if extent is None:
                    raise TaskNotFound(task_id)
                await desk.access.admit(caller, "read")
                end, is_final = extent
                if is_final:
                    return
                yield end
        finally:
            self._outputs.leave(key, bell)

    def _end(self, task: Task) -> Cursor:
        """Where the output of the newest run ends. Blocking."""
        output = self._desk.presenter.output(task)
        return Cursor(task.begun, output.size("stdout"), output.size("stderr"))

    def _pieces(self, task: Task, at: Cursor) -> tuple[list[Piece], Cursor]:
        """The next output of one run, at most a piece of each stream, and how much there was. Blocking."""
        output = self._desk.presenter.output(task).of_run(at.run)
        # What was asked for may begin after all that there is, so that waiting goes by what there is.
        seen = Cursor(at.run, output.size("stdout"), output.size("stderr"))
        found = ((stream, *output.read(stream, at.of(stream), _PIECE_BYTES)) for stream in STREAMS)
        return [Piece(stream, offset, data, at.run) for stream, offset, data in found if data], seen

    async def changes(self, caller: Caller) -> AsyncGenerator[Tally, None]:
        """What the tasks of the caller's session are now, and again each time that they are others.

        Told within about half a second, for tasks of any server; what changes in between is told as one.

        Raises:
            TasksError: The caller may not see them, any more.
        """
        desk = self._desk
        key = (await desk.access.admit(caller, "read")).session_key
        group = await self._posts()
        self._served(caller, key)
        bell: Bell[SessionKey, Tally] = Bell()
        told: Tally | None = None
        try:
            self._lists.join(group, key, bell)
            while True:
                tally = (await bell.wait())[key]
                if tally != told:
                    told = tally
                    await desk.access.admit(caller, "read")
                    yield tally
        finally:
            self._lists.leave(key, bell)

    def _tally(self, key: SessionKey) -> Tally:
        newest = next((task.key.task_id for task in self._desk.store.tasks(key)), None)
        return Tally(newest, dict(self._desk.store.counts(key)))

    def _view(self, sight: Sight, caller: Caller) -> View:
        presenter = self._desk.presenter
        excerpt = presenter.excerpt(sight, "none", None, 0, "strip")
        return presenter.view(sight, excerpt, record=True, max_wait_ms=caller.max_wait_ms)

    def _served(self, caller: Caller, key: SessionKey) -> None:
        self._desk.records.used(key)
        if caller.served_in is not None:
            caller.served_in(key)

    async def _posts(self) -> anyio.abc.TaskGroup:
        """Where look-outs stand; they outlive those who have them posted."""
        while self._group is None:
            await self._attended.wait()
        return self._group

    async def _look_at_task(self, look_out: LookOut[TaskKey, Sight | None]) -> None:
        key, known = look_out.key, None
        while True:
            try:
                sight, _ = await self._desk.waiting.until(key, Condition("state", known=known), _WAIT_MS)
            except TaskNotFound:
                look_out.tell(None)
                return
            except TasksError as error:
                log.warning("a task cannot be watched now: %s", error)
                await anyio.sleep(_TROUBLE_S)
                continue
            known = _mark(sight.task)
            look_out.tell(sight)
            if sight.task.is_final:
                return

    async def _look_at_output(self, look_out: LookOut[TaskKey, _Extent | None]) -> None:
        key, end, until = look_out.key, None, self._desk.waiting.until
        while True:
            try:
                sight, _ = await until(key, Condition("output", since=end), 0 if end is None else _WAIT_MS)
                is_first, end = end is None, await self._desk.blocking(self._end, sight.task)
                look_out.tell((end, sight.task.is_final))
                if sight.task.is_final:
                    return
                if not is_first:
                    await until(key, Condition("exit"), _PAUSE_MS)
            except TaskNotFound:
                look_out.tell(None)
                return
            except TasksError as error:
                log.warning("output cannot be watched now: %s", error)
                await anyio.sleep(_TROUBLE_S)

    async def _look_at_list(self, look_out: LookOut[SessionKey, Tally]) -> None:
        while True:
            began, pause = time.monotonic(), _TROUBLE_S
            try:
                tally = await self._desk.blocking(self._tally, look_out.key)
            except TasksError as error:
                log.warning("a session cannot be watched now: %s", error)
            else:
                pause = max(_LIST_S, _LIST_SHARE * (time.monotonic() - began))
                if look_out.seen != [tally]:
                    look_out.tell(tally)
            await anyio.sleep(pause)


def _mark(task: Task) -> _Mark:
    return task.state_name, task.run
