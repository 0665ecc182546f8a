"""The requests of the tools for tasks: the core and the standard set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic import model_validator as _model_validator

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.parameters import (
    Ansi,
    Command,
    Cwd,
    Environment,
    Ms,
    Name,
    Names,
    Pattern,
    PositiveMs,
    Shell,
    Show,
    SignalName,
    Stream,
    TaskIds,
    Until,
    ViewBytes,
    check_marked,
)
from mcp_tasks.requests.hooks import HookList
from mcp_tasks.requests.request import Request

__all__ = [
    "CancelTask",
    "ClearTask",
    "GetResult",
    "ListTasks",
    "PollTask",
    "RunCommand",
    "SearchOutput",
    "SendInput",
    "WaitTasks",
]


class _Waiting(Request):
    """The fields that shape a wait, and the part of the output that its answer shows."""

    wait_ms: Ms | None = None
    until: Until | None = None
    pattern: Pattern | None = None
    idle_ms: PositiveMs | None = None
    max_bytes: ViewBytes = 8_192
    ansi: Ansi = "strip"

    @_model_validator(mode="after")
    def _one_condition(self) -> _Waiting:
        if self.until == "pattern" and self.pattern is None:
            raise InvalidArgument("until 'pattern' needs a pattern", "give pattern, a regular expression")
        if self.pattern is not None and self.until not in (None, "pattern"):
            raise InvalidArgument(
                f"pattern does not go with until {self.until!r}", "leave until out: pattern implies it"
            )
        if self.idle_ms is not None and self.until in ("exit", "output"):
            raise InvalidArgument(
                f"idle_ms does not go with until {self.until!r}", "leave until out: idle_ms implies it"
            )
        return self


class RunCommand(_Waiting):
    """Start a command.

    Attributes:
        command: A string for the shell, or program and arguments.
        env: On top of the server's environment; None unsets.
        shell: The program that runs a `command` string, instead of the default shell.
        stdin: Given at once, then end of file.
        wait_ms: None means 1,000, or the longest wait where `until`, `pattern` or `idle_ms` is given.
        max_output_bytes: None means the configured limit, 0 none.
        after: Ids of the tasks that must complete first.
        secrets: Names of the variables in `env` whose values must appear in no record.
        hooks: What is done when it ends, is silent for long, or its time-out is near.
    """

    tool = "run_command"

    command: Command
    cwd: Cwd | None = None
    env: Environment = Field(default={}, repr=False)
    shell: Shell | None = None
    stdin: str | None = Field(default=None, repr=False)
    interactive: bool = False
    pty: bool = False
    timeout_ms: PositiveMs | None = None
    grace_ms: Ms = 5_000
    label: Name | None = None
    key: Name | None = None
    max_output_bytes: Annotated[int, Field(ge=0, le=2**62)] | None = None
    on_output_limit: Literal["kill", "keep_tail"] = "kill"
    clear_finished: bool = False
    show: Show | None = None
    after: TaskIds = ()
    retries: Annotated[int, Field(ge=0, le=1_000)] = 0
    delay_ms: Ms = 0
    secrets: Names = ()
    hooks: HookList = ()

    @_model_validator(mode="after")
    def _consistent(self) -> RunCommand:
        check_marked(self.secrets, self.env)
        if self.timeout_ms is None and any("deadline" in hook.events for hook in self.hooks):
            raise InvalidArgument("a hook for the deadline needs timeout_ms", "give timeout_ms, which kills")
        if self.shell is not None and not isinstance(self.command, str):
            raise InvalidArgument(
                "shell does not go with a list", "give command as a string, or leave shell out"
            )
        if self.stdin is not None and (self.interactive or self.pty):
            raise InvalidArgument(
                f"stdin does not go with {'pty' if self.pty else 'interactive'}",
                "stdin ends with the text; give the first input with send_input instead",
            )
        return self


class PollTask(_Waiting):
    """Look at a task, and wait a little for what is to come.

    Attributes:
        wait_ms: None means 0, or the longest wait where `until`, `pattern` or `idle_ms` is given.
        show: None means `new` with a cursor and `tail` without.
    """

    tool = "poll_task"

    task_id: str
    cursor: str | None = None
    show: Show | None = None


class GetResult(Request):
    """Read a task's record and output.

    Attributes:
        limit: Raw bytes. None means 32,768 where a range is asked for, and a digest without one.
    """

    tool = "get_result"

    task_id: str
    cursor: str | None = None
    stream: Stream = "both"
    offset: Annotated[int, Field(ge=0, le=2**62)] | None = None
    limit: ViewBytes | None = None
    tail_lines: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    head_lines: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    encoding: Literal["text", "base64"] = "text"
    ansi: Ansi = "strip"

    @_model_validator(mode="after")
    def _one_range(self) -> GetResult:
        given = [
            name
            for name in ("cursor", "offset", "tail_lines", "head_lines")
            if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise InvalidArgument(
                f"{given[0]} does not go with {given[1]}",
                "give one of cursor, offset, tail_lines, head_lines",
            )
        return self


class CancelTask(Request):
    """End one task or several, with everything that they started."""

    tool = "cancel_task"

    task_id: str | None = None
    task_ids: TaskIds | None = None
    grace_ms: Ms = 5_000
    signal: SignalName = "SIGTERM"

    @_model_validator(mode="after")
    def _one_target(self) -> CancelTask:
        _exactly_one(self, "task_id", "task_ids")
        return self


class ClearTask(Request):
    """Remove finished tasks for good: record and output.

    Attributes:
        cancel: End the task first where it is not final.
    """

    tool = "clear_task"

    task_id: str | None = None
    all_finished: bool = False
    older_than_days: Annotated[float, Field(ge=0, le=36_500, allow_inf_nan=False)] | None = None
    label: Name | None = None
    cwd: Cwd | None = None
    cancel: bool = False

    @_model_validator(mode="after")
    def _one_target(self) -> ClearTask:
        many = self.all_finished or self.older_than_days is not None
        if self.task_id is None and not many:
            raise InvalidArgument(
                "task_id is missing", "give task_id, or all_finished: true, or older_than_days"
            )
        if self.task_id is not None and many:
            other = "all_finished" if self.all_finished else "older_than_days"
            raise InvalidArgument(f"task_id does not go with {other}", "give one of them")
        if self.task_id is not None and (self.label is not None or self.cwd is not None):
            raise InvalidArgument(
                f"{'label' if self.label is not None else 'cwd'} does not go with task_id",
                "label and cwd narrow all_finished",
            )
        if self.cancel and many:
            raise InvalidArgument("cancel goes with task_id only", "cancel_task ends several tasks at once")
        return self


class ListTasks(Request):
    """List the tasks of a session, newest first."""

    tool = "list_tasks"

    state: Literal["active", "pending", "running", "completed", "failed", "cancelled", "lost"] | None = None
    label: Name | None = None
    cwd: Cwd | None = None
    limit: Annotated[int, Field(ge=1, le=1_000)] = 20
    cursor: str | None = None


class SendInput(_Waiting):
    """Give input or a signal to a running task, and see what comes of it.

    Attributes:
        enter: Add a newline to the text.
        wait_ms: None means at most 5,000, until idle for 300 ms; with `pattern`, the longest wait.
    """

    tool = "send_input"

    task_id: str
    text: str | None = Field(default=None, repr=False)
    enter: bool = False
    eof: bool = False
    signal: SignalName | None = None
    secret: bool = False

    @_model_validator(mode="after")
    def _something(self) -> SendInput:
        if self.text is None and self.signal is None and not self.enter and not self.eof:
            raise InvalidArgument("text is missing", "give text, enter, eof or signal")
        return self


class WaitTasks(Request):
    """Wait for several tasks at once.

    Attributes:
        wait_ms: None means the longest wait.
    """

    tool = "wait_tasks"

    task_ids: TaskIds | None = None
    label: Name | None = None
    mode: Literal["any", "all", "first_failure"] = "any"
    wait_ms: Ms | None = None

    @_model_validator(mode="after")
    def _one_target(self) -> WaitTasks:
        _exactly_one(self, "task_ids", "label")
        return self


class SearchOutput(Request):
    """Find lines in the output of one task, or of every task of the session."""

    tool = "search_output"

    pattern: Pattern
    task_id: str | None = None
    ignore_case: bool = False
    stream: Stream = "both"
    context: Annotated[int, Field(ge=0, le=50)] = 0
    order: Literal["newest", "oldest"] = "newest"
    limit: Annotated[int, Field(ge=1, le=1_000)] = 50
    cursor: str | None = None


def _exactly_one(request: Request, first: str, second: str) -> None:
    given = [name for name in (first, second) if getattr(request, name) is not None]
    if not given:
        raise InvalidArgument(f"{first} is missing", f"give {first} or {second}")
    if len(given) == 2:
        raise InvalidArgument(f"{first} does not go with {second}", "give one of them")
    if getattr(request, given[0]) == ():
        raise InvalidArgument(f"{given[0]} is empty", "give at least one task id")
