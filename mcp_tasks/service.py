"""The use cases: what an agent, a person or a program can ask for. One method per tool.

Blocking work runs in a bounded pool of threads; waits are asynchronous. Cancelling a call never
cancels a task.
"""

from __future__ import annotations

import functools
import logging
import signal as signals
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio
import anyio.to_thread

from mcp_tasks.admission import Admission
from mcp_tasks.clock import Clock, new_task_id
from mcp_tasks.errors import (
    InvalidArgument,
    KeyConflict,
    LimitReached,
    StoreUnavailable,
    TaskNotFinished,
    TaskNotFound,
)
from mcp_tasks.keeping import Keeping
from mcp_tasks.launches import Defaults, launch_of, same_request, spec_of
from mcp_tasks.lifecycle import submitted
from mcp_tasks.models import FINAL_STATES, TASK_ID, Pending, SessionKey, Task, TaskKey
from mcp_tasks.output import (
    Cursor,
    OutputView,
    RunOutput,
    view_head_tail,
    view_lines,
    view_new,
    view_range,
)
from mcp_tasks.ports import Executor, Store
from mcp_tasks.presenting import Presenter, Show
from mcp_tasks.reconcile import Reconciler, Sight
from mcp_tasks.requests import (
    CancelTask,
    ClearTask,
    GetResult,
    ListTasks,
    PollTask,
    RunCommand,
    SearchOutput,
    SendInput,
    WaitTasks,
)
from mcp_tasks.search import PatternWatch, compile_pattern
from mcp_tasks.searching import search_tasks
from mcp_tasks.views import Wait
from mcp_tasks.waiting import Condition, Progress, Waiting

__all__ = ["Caller", "Service"]

log = logging.getLogger(__name__)

T = TypeVar("T")
View = dict[str, Any]

_DIGEST_BYTES = 16_384
_PAGE_BYTES = 32_768
_SHORT_BYTES = 2_048
_INPUT_IDLE_MS = 300
_INPUT_WAIT_MS = 5_000
_RUN_WAIT_MS = 1_000
_IDLE_MS = 1_000
_GRACE_MS = 5_000
_SEARCH_S = 5.0
_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call is made.

    Attributes:
        named: Somebody named the session. Otherwise a task id is found in any session of the owner.
        max_wait_ms: No wait of this caller is longer.
    """

    owner: str
    session: str
    named: bool
    max_wait_ms: int = 25_000
    progress: Progress | None = None

    @property
    def session_key(self) -> SessionKey:
        """The session that the caller works in."""
        return SessionKey(self.owner, self.session)


class Service:
    """Everything that can be done with tasks, whoever asks.

    Every method takes a Caller and a request, and returns a JSON-ready dict as INTERFACE section 1
    describes it. Raises TasksError; then nothing has changed.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        clock: Clock,
        admission: Admission,
        keeping: Keeping,
        presenter: Presenter,
        defaults: Defaults,
        threads: anyio.CapacityLimiter,
        divert: Callable[[TaskKey], Path],
    ) -> None:
        self._store = store
        self._executor = executor
        self._clock = clock
        self._admission = admission
        self._keeping = keeping
        self._present = presenter
        self._defaults = defaults
        self._threads = threads
        self._divert = divert
        self._reconciler = Reconciler(store, executor, clock)
        self._waiting = Waiting(store, executor, self._reconciler)

    async def _blocking(self, function: Callable[..., T], *args: Any) -> T:
        return await anyio.to_thread.run_sync(functools.partial(function, *args), limiter=self._threads)

    # -- start, look, read -------------------------------------------------------------------------

    async def run_command(self, caller: Caller, request: RunCommand) -> View:
        """Start a command as a durable task and answer with its view."""
        condition_of = self._condition_factory(request)
        task, reused = await self._blocking(self._start, caller, request)
        if not reused:
            if isinstance(task.state, Pending):
                self._keeping.queue_changed()
            else:
                self._keeping.keep(task)
        wait_ms = request.wait_ms
        if wait_ms is None:
            wait_ms = caller.max_wait_ms if _waits_for_more(request) else _RUN_WAIT_MS
        sight, wait = await self._wait(caller, task.key, condition_of(task, None), wait_ms)
        show = request.show or "tail"
        excerpt = self._present.excerpt(sight, show, None, request.max_bytes, request.ansi)
        view = self._present.view(sight, excerpt, wait=wait, reused=reused)
        if request.clear_finished and not reused:
            cleared = await self._blocking(self._clear_many, caller, None, None, None, task.key.task_id)
            view["cleared"] = cleared["cleared"]
        return view

    def _start(self, caller: Caller, request: RunCommand) -> tuple[Task, bool]:
        spec = spec_of(request, self._defaults)
        if (held := self._holder(caller, request)) is not None:
            return held, True
        now = self._clock.now_ms()
        task_id = new_task_id(now)
        task = submitted(TaskKey(caller.owner, caller.session, task_id), spec, now)
        launch = launch_of(request, spec, task_id, self._defaults)
        try:
            return self._admission.admit(task, launch), False
        except KeyConflict:
            # The same key was used by somebody else in this moment.
            held = self._holder(caller, request)
            if held is None:
                raise
            return held, True
        except StoreUnavailable as error:
            # Nothing ran, and nothing durable can be promised. The command still runs, supervised, for
            # as long as this server lives, and every view of it says so.
            log.warning("a task is kept in memory only: %s", error)
            slots = self._divert(task.key)
            return self._admission.admit_now(task, replace(launch, lifeline=True), slots), False

    def _holder(self, caller: Caller, request: RunCommand) -> Task | None:
        """The task that was already started with this key and these arguments."""
        if request.key is None:
            return None
        held = self._store.find_key(caller.session_key, request.key)
        if held is not None and not same_request(held.spec, request):
            raise KeyConflict(
                f"key {request.key!r} belongs to task {held.key.task_id}, started with other arguments",
                "use another key, or clear that task",
            )
        return held

    async def poll_task(self, caller: Caller, request: PollTask) -> View:
        """Look at a task, and wait a while if asked to."""
        key = self._find(caller, request.task_id)
        cursor = _cursor(request.cursor)
        condition = self._condition_factory(request)(self._store.load(key), cursor)
        wait_ms = request.wait_ms
        if wait_ms is None:
            wait_ms = caller.max_wait_ms if _waits_for_more(request) else 0
        sight, wait = await self._wait(caller, key, condition, wait_ms)
        show = request.show or ("new" if cursor is not None else "tail")
        if wait.result == "exited" and wait.waited_ms and request.show is None:
            show = "tail"
        excerpt = self._present.excerpt(sight, show, cursor, request.max_bytes, request.ansi)
        return self._present.view(sight, excerpt, wait=wait)

    async def get_result(self, caller: Caller, request: GetResult) -> View:
        """Show the record of a task and a part of its output."""
        key = self._find(caller, request.task_id)
        return await self._blocking(self._result, key, request)

    def _result(self, key: TaskKey, request: GetResult) -> View:
        sight = self._reconciler.look(key)
        return self._present.view(sight, self._range(sight, request), record=True, history=True)

    def _range(self, sight: Sight, request: GetResult) -> OutputView:
        task, output = sight.task, self._present.output(sight.task)
        final, ansi, encoding = task.is_final, request.ansi, request.encoding
        streams = _streams(request.stream)
        limit = request.limit or _PAGE_BYTES
        if request.cursor is not None:
            cursor = Cursor.parse(request.cursor)
            return view_new(output, cursor, limit, final=final, ansi=ansi, encoding=encoding, streams=streams)
        if request.head_lines is not None or request.tail_lines is not None:
            if encoding == "base64":
                raise InvalidArgument(
                    "encoding base64 does not go with lines", "give offset and limit instead"
                )
            return view_lines(
                output,
                task.run,
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
            return view_range(
                output, task.run, streams, offset, limit, encoding=encoding, final=final, ansi=ansi
            )
        return view_head_tail(output, task.run, _DIGEST_BYTES, final=final, ansi=ansi)

    async def list_tasks(self, caller: Caller, request: ListTasks) -> View:
        """List the tasks of a session, newest first, with how many there are in each state."""
        return await self._blocking(self._list, caller, request)

    def _list(self, caller: Caller, request: ListTasks) -> View:
        before = request.cursor
        if before is not None and not TASK_ID.fullmatch(before):
            raise InvalidArgument(
                "cursor is not one of list_tasks", "give the next_cursor of the last answer"
            )
        shown: list[View] = []
        counts: dict[str, int] = {}
        more = False
        for sight in self._matching(caller, request.label, request.cwd):
            counts[sight.task.state_name] = counts.get(sight.task.state_name, 0) + 1
            if not _in_state(sight.task, request.state) or (before and sight.task.key.task_id >= before):
                continue
            if len(shown) < request.limit:
                shown.append(self._present.summary(sight))
            else:
                more = True
        answer: View = {"tasks": shown, "counts": counts}
        if more:
            answer["next_cursor"] = shown[-1]["task_id"]
        return answer

    def _matching(self, caller: Caller, label: str | None, cwd: str | None) -> Iterator[Sight]:
        for task in self._store.tasks(caller.session_key):
            if label is not None and task.spec.label != label:
                continue
            if cwd is not None and task.spec.cwd != cwd:
                continue
            yield self._reconciler.look_at(task)

    # -- end, remove -------------------------------------------------------------------------------

    async def cancel_task(self, caller: Caller, request: CancelTask) -> View:
        """End one task or several with all their processes; answer when it is over."""
        if request.task_id is not None:
            return await self._cancel(caller, self._find(caller, request.task_id), request)
        keys = [self._find(caller, task_id) for task_id in dict.fromkeys(request.task_ids or ())]
        views: dict[TaskKey, View] = {}

        async def cancel_one(key: TaskKey) -> None:
            views[key] = await self._cancel(caller, key, request)

        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(cancel_one, key)
        return {"tasks": [views[key] for key in keys]}

    async def _cancel(self, caller: Caller, key: TaskKey, request: CancelTask) -> View:
        sight = await self._end(caller, key, request.grace_ms, request.signal)
        warnings: tuple[str, ...] = ()
        if not sight.task.is_final:
            alive = await self._blocking(self._executor.background, self._folder(sight.task))
            warnings = (f"it has not ended yet; still alive: {', '.join(alive) or 'its supervisor'}",)
        excerpt = self._present.excerpt(sight, "tail", None, _SHORT_BYTES, "strip")
        return self._present.view(sight, excerpt, warnings=warnings)

    async def _end(self, caller: Caller, key: TaskKey, grace_ms: int, signal: str) -> Sight:
        """Ask for the end of a task and of what it left behind, and wait for it as long as allowed."""
        deadline = time.monotonic() + caller.max_wait_ms / 1000
        asked = False
        while True:
            sight = await self._blocking(self._reconciler.look, key)
            task = sight.task
            if isinstance(task.state, Pending):
                await self._blocking(self._admission.withdraw, task, "cancelled before it started")
                self._keeping.queue_changed()
                continue
            folder = self._folder(task)
            if task.is_final and not self._executor.lingers(folder):
                return sight
            if not asked:
                # A run that is just being started has no control pipe yet: ask again until it has one.
                asked = self._executor.cancel(folder, grace_ms, _number(signal))
            left_ms = int((deadline - time.monotonic()) * 1000)
            if left_ms <= 0:
                return sight
            if asked and not task.is_final:
                await self._waiting.until(key, Condition(), left_ms, caller.progress)
            else:
                await anyio.sleep(_LOOK_S)

    async def clear_task(self, caller: Caller, request: ClearTask) -> View:
        """Remove finished tasks for good."""
        if request.task_id is None:
            days = request.older_than_days
            return await self._blocking(self._clear_many, caller, request.label, request.cwd, days, None)
        key = self._find(caller, request.task_id)
        if request.cancel:
            sight = await self._end(caller, key, _GRACE_MS, "SIGTERM")
            if not sight.task.is_final:
                raise TaskNotFinished(f"task {request.task_id} has not ended yet", "try again in a while")
        return await self._blocking(self._clear_one, key)

    def _clear_one(self, key: TaskKey) -> View:
        task = self._reconciler.look(key).task
        hint = "cancel: true ends it first"
        if not task.is_final:
            raise TaskNotFinished(f"task {key.task_id} is {task.state_name}", hint)
        if self._executor.lingers(self._folder(task)):
            raise TaskNotFinished(f"task {key.task_id} has processes running in the background", hint)
        return {"cleared": [key.task_id], "freed_bytes": self._store.delete(key)}

    def _clear_many(
        self, caller: Caller, label: str | None, cwd: str | None, days: float | None, but: str | None
    ) -> View:
        oldest = None if days is None else self._clock.now_ms() - days * 86_400_000
        cleared, freed = [], 0
        for sight in self._matching(caller, label, cwd):
            task = sight.task
            if task.key.task_id == but or not task.is_final or self._executor.lingers(self._folder(task)):
                continue
            if oldest is not None and task.history[-1].at > oldest:
                continue
            try:
                freed += self._store.delete(task.key)
            except TaskNotFound:
                continue
            cleared.append(task.key.task_id)
        return {"cleared": cleared, "freed_bytes": freed}

    # -- input, several, search --------------------------------------------------------------------

    async def send_input(self, caller: Caller, request: SendInput) -> View:
        """Give a running command text, end of file or a signal, and show what came of it."""
        key = self._find(caller, request.task_id)
        sight = self._reconciler.look(key)
        if sight.task.is_final:
            raise InvalidArgument(
                f"task {request.task_id} is over", "it takes no input any more; start it again"
            )
        folder = self._folder(sight.task)
        output = self._present.output(sight.task)
        before = Cursor(sight.task.run, output.size("stdout"), output.size("stderr"))
        condition = self._condition_factory(request)(sight.task, before)
        wait_ms = request.wait_ms
        if not _waits_for_more(request):
            condition = replace(condition, until="idle", idle_ms=_INPUT_IDLE_MS)
            wait_ms = _INPUT_WAIT_MS if wait_ms is None else wait_ms
        text = (request.text or "") + ("\n" if request.enter else "")
        await self._blocking(self._deliver, folder, text, request)
        sight, wait = await self._wait(
            caller, key, condition, caller.max_wait_ms if wait_ms is None else wait_ms
        )
        excerpt = self._present.excerpt(sight, "new", before, request.max_bytes, request.ansi)
        return self._present.view(sight, excerpt, wait=wait)

    def _deliver(self, folder: Path, text: str, request: SendInput) -> None:
        if text:
            data = text.encode("utf-8", "surrogatepass")
            taken = self._executor.write_input(folder, data, _INPUT_WAIT_MS)
            if taken < len(data):
                raise LimitReached(
                    f"the command does not read its input: only the first {taken} of {len(data)} bytes were taken",
                    "send the rest when it reads again",
                )
        if request.eof:
            self._executor.close_input(folder)
        if request.signal is not None and not self._executor.signal(folder, _number(request.signal)):
            raise InvalidArgument("the command is not there to be signalled", "poll_task tells its state")

    async def wait_tasks(self, caller: Caller, request: WaitTasks) -> View:
        """Wait for the first, all, or the first failure of several tasks."""
        if request.task_ids is not None:
            keys = [self._find(caller, task_id) for task_id in dict.fromkeys(request.task_ids)]
        else:
            labelled = await self._blocking(lambda: list(self._matching(caller, request.label, None)))
            keys = [sight.task.key for sight in labelled]
        began = time.monotonic()
        wait_ms, clamped = _clamp(caller, caller.max_wait_ms if request.wait_ms is None else request.wait_ms)
        done: dict[TaskKey, Sight] = {}

        def enough() -> bool:
            if request.mode == "any":
                return bool(done)
            failed = any(s.task.state_name != "completed" for s in done.values())
            return len(done) == len(keys) or (request.mode == "first_failure" and failed)

        async with anyio.create_task_group() as group:

            async def see(key: TaskKey, progress: Progress | None) -> None:
                sight, _ = await self._waiting.until(key, Condition(), wait_ms, progress)
                if sight.task.is_final:
                    done[key] = sight
                    if enough():
                        group.cancel_scope.cancel()

            for index, key in enumerate(keys):
                group.start_soon(see, key, caller.progress if index == 0 else None)
        # Those that ended in the same moment count too.
        for key in keys:
            if key not in done and (sight := self._reconciler.look(key)).task.is_final:
                done[key] = sight
        result = "exited" if enough() or not keys else "deadline"
        answer: View = {
            "done": [self._short(done[key]) for key in keys if key in done],
            "open": [key.task_id for key in keys if key not in done],
            "wait_result": result,
            "waited_ms": int((time.monotonic() - began) * 1000),
        }
        return answer | ({"max_wait_ms": clamped} if clamped is not None else {})

    def _short(self, sight: Sight) -> View:
        show: Show = "none" if sight.task.state_name == "completed" else "tail"
        excerpt = self._present.excerpt(sight, show, None, _SHORT_BYTES, "strip")
        return self._present.view(sight, excerpt)

    async def search_output(self, caller: Caller, request: SearchOutput) -> View:
        """Find lines in the output of one task or of the whole session."""
        if request.task_id is not None:
            tasks = [self._store.load(self._find(caller, request.task_id))]
            return await self._blocking(search_tasks, self._store, tasks, request, _SEARCH_S)
        return await self._blocking(self._search_session, caller, request)

    def _search_session(self, caller: Caller, request: SearchOutput) -> View:
        tasks = list(self._store.tasks(caller.session_key))
        if request.order == "oldest":
            tasks.reverse()
        return search_tasks(self._store, tasks, request, _SEARCH_S)

    # -- for the edges -----------------------------------------------------------------------------

    def resolve_prefix(self, caller: Caller, prefix: str) -> str:
        """The one task whose id begins with `prefix`. Raises TaskNotFound, InvalidArgument."""
        if TASK_ID.fullmatch(prefix):
            return prefix
        sessions = [caller.session_key]
        if not caller.named:
            sessions = [session.key for session in self._store.sessions(caller.owner)]
        found = [
            task.key.task_id
            for session in sessions
            for task in self._store.tasks(session)
            if prefix and task.key.task_id.startswith(prefix)
        ]
        if not found:
            raise TaskNotFound(prefix)
        if len(found) > 1:
            raise InvalidArgument(f"{prefix!r} fits {len(found)} tasks", "give more characters of the id")
        return found[0]

    def output_of(self, caller: Caller, task_id: str) -> tuple[Task, RunOutput]:
        """A task as it is, and its captured output, for those who copy bytes."""
        task = self._reconciler.look(self._find(caller, task_id)).task
        return task, self._present.output(task)

    def startup_report(self) -> str:
        """How many sessions and tasks there are, and what was found broken."""
        sessions, tasks = len(self._store.sessions()), self._store.count_tasks()
        unfinished = len(self._store.unfinished())
        report = f"{sessions} sessions and {tasks} tasks, {unfinished} of them not finished"
        return "; ".join([report, *self._store.problems()])

    def has_pending(self) -> bool:
        """Whether any task of the store waits for its turn."""
        return bool(self._store.pending())

    def problems(self) -> list[str]:
        """What is broken in the store, one sentence each."""
        return self._store.problems()

    # -- shared ------------------------------------------------------------------------------------

    def _find(self, caller: Caller, task_id: str) -> TaskKey:
        """The one place that decides which tasks a caller may see."""
        if not TASK_ID.fullmatch(task_id):
            raise TaskNotFound(task_id)
        key = TaskKey(caller.owner, caller.session, task_id)
        try:
            return self._store.load(key).key
        except TaskNotFound:
            if caller.named:
                raise
        return self._store.locate(caller.owner, task_id)

    async def _wait(
        self, caller: Caller, key: TaskKey, condition: Condition, wait_ms: int
    ) -> tuple[Sight, Wait]:
        allowed, clamped = _clamp(caller, wait_ms)
        sight, wait = await self._waiting.until(key, condition, allowed, caller.progress)
        return sight, replace(wait, clamped_to=clamped)

    def _condition_factory(
        self, request: RunCommand | PollTask | SendInput
    ) -> Callable[[Task, Cursor | None], Condition]:
        """Check what a wait is to end on before anything is started; tie it to a task afterwards."""
        pattern = compile_pattern(request.pattern) if request.pattern is not None else None

        def condition(task: Task, since: Cursor | None) -> Condition:
            if pattern is not None:
                watch = PatternWatch(self._present.output(task), pattern, since or Cursor(task.run))
                return Condition("pattern", watch=watch)
            if request.idle_ms is not None or request.until == "idle":
                return Condition("idle", idle_ms=request.idle_ms or _IDLE_MS)
            return Condition("output" if request.until == "output" else "exit", since=since)

        return condition

    def _folder(self, task: Task) -> Path:
        return self._store.run_folder(task.key, task.run)


def _waits_for_more(request: RunCommand | PollTask | SendInput) -> bool:
    return request.until is not None or request.pattern is not None or request.idle_ms is not None


def _clamp(caller: Caller, wait_ms: int) -> tuple[int, int | None]:
    """The wait that is allowed, and the limit where that is less than what was asked for."""
    if wait_ms > caller.max_wait_ms:
        return caller.max_wait_ms, caller.max_wait_ms
    return wait_ms, None


def _cursor(text: str | None) -> Cursor | None:
    return None if text is None else Cursor.parse(text)


def _streams(stream: str) -> tuple[Literal["stdout", "stderr"], ...]:
    if stream == "both":
        return ("stdout", "stderr")
    return ("stdout",) if stream == "stdout" else ("stderr",)


def _in_state(task: Task, state: str | None) -> bool:
    if state is None:
        return True
    return task.state_name not in FINAL_STATES if state == "active" else task.state_name == state


def _number(signal: str) -> int:
    return signals.Signals[signal].value
