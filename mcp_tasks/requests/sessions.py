"""The requests of the tools for sessions, plans, journals and projects: what `--tools full` adds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic import model_validator as _model_validator

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.parameters import (
    Command,
    Cwd,
    Environment,
    Ms,
    Name,
    Names,
    PositiveMs,
    Shell,
    TaskIds,
    WorkspaceCwd,
    WorkspaceShell,
    check_marked,
)
from mcp_tasks.requests.hooks import HookList
from mcp_tasks.requests.request import Request

__all__ = [
    "AddMessage",
    "EndSession",
    "ExportSession",
    "ListSessions",
    "PlanProgress",
    "PlanStep",
    "ProjectContext",
    "ReadJournal",
    "RunPlan",
    "SearchJournal",
    "SessionInfo",
    "UpdateSession",
]

_Text = Annotated[str, Field(max_length=4_000_000)]


class SessionInfo(Request):
    """Everything about one session: state, figures, workspace, connections, plans."""

    tool = "session_info"


class ListSessions(Request):
    """The caller's sessions, the one used last first."""

    tool = "list_sessions"

    state: Literal["open", "idle", "closed", "archived"] | None = None
    limit: Annotated[int, Field(ge=1, le=1_000)] = 20
    cursor: str | None = None


class UpdateSession(Request):
    """Change a session, or make it: what is not named stays as it is.

    Attributes:
        cwd: Empty means that the session works nowhere in particular any more.
        shell: Empty means the usual one again.
        env: Merged name by name; None forgets a variable.
        preferences: Merged key by key; None forgets one.
        expires_in_ms: From now; 0 means never.
        share: Make a token that lets its holder in.
        share_expires_in_ms: How long the new token holds; None means until it is revoked.
        revoke: Id of the share that ends.
        hooks: What is done for each task started in it from now on; all of them, empty for none.
        revision: Refuse the change where the session has been changed since this revision.
    """

    tool = "update_session"

    title: Annotated[str, Field(max_length=500)] | None = None
    cwd: WorkspaceCwd | None = None
    shell: WorkspaceShell | None = None
    env: Environment = Field(default={}, repr=False)
    preferences: dict[str, Any] = Field(default={})
    expires_in_ms: Ms | None = None
    journal_limit: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    seal_journal: bool | None = None
    share: Literal["read", "write"] | None = None
    share_expires_in_ms: PositiveMs | None = None
    revoke: Name | None = None
    hooks: HookList | None = None
    revision: Annotated[int, Field(ge=0)] | None = None

    @_model_validator(mode="after")
    def _of_a_share(self) -> UpdateSession:
        if self.share_expires_in_ms is not None and self.share is None:
            raise InvalidArgument(
                "share_expires_in_ms goes with a new share", "give share, read or write, or leave it out"
            )
        return self


class EndSession(Request):
    """Close a session; what is there stays readable.

    Attributes:
        force: Cancel what still runs, instead of waiting for it and refusing in the end.
        archive: Put the session away, compressed, once it is closed.
        wait_ms: How long to wait for what still runs; None means the longest wait.
    """

    tool = "end_session"

    reason: Annotated[str, Field(max_length=1_000)] | None = None
    force: bool = False
    archive: bool = False
    wait_ms: Ms | None = None


class PlanStep(Request):
    """One command of a plan.

    Attributes:
        name: By which other steps of the plan name this one in `after`; also the task's label.
        after: Names of steps of the plan, or their numbers from 1, or ids of tasks.
    """

    tool = "run_plan.commands"

    command: Command
    name: Name | None = None
    cwd: Cwd | None = None
    env: Environment = Field(default={}, repr=False)
    secrets: Names = ()
    shell: Shell | None = None
    stdin: str | None = Field(default=None, repr=False)
    timeout_ms: PositiveMs | None = None
    grace_ms: Ms = 5_000
    retries: Annotated[int, Field(ge=0, le=1_000)] = 0
    delay_ms: Ms = 0
    after: TaskIds | None = None

    @_model_validator(mode="after")
    def _of_its_plan(self) -> PlanStep:
        if self.session is not None:
            raise InvalidArgument(
                "session does not go with a step", "give session beside commands: a plan runs in one session"
            )
        check_marked(self.secrets, self.env)
        return self


def _steps(value: object) -> object:
    if not isinstance(value, (list, tuple)):
        return value
    steps: list[object] = []
    for number, step in enumerate(value, 1):
        if isinstance(step, PlanStep):
            steps.append(step)
            continue
        fields = step if isinstance(step, dict) else {"command": step}
        if isinstance(fields.get("after"), list):
            # The number of a step is as good as its digits.
            fields = {**fields, "after": [str(one) if type(one) is int else one for one in fields["after"]]}
        try:
            steps.append(PlanStep(**fields))
        except InvalidArgument as error:
            raise InvalidArgument(f"commands[{number}]: {error.message}", error.hint) from None
        except TypeError:
            raise InvalidArgument(
                f"commands[{number}] is no step", "give a command, or {command, name, after, …}"
            ) from None
    return tuple(steps)


class RunPlan(Request):
    """Start several commands at once, in order or as far as they depend on each other.

    Attributes:
        order: `sequence`: each after the one before; `parallel`: none waits, but for its `after`.
        on_failure: `stop`: what waits for a failed step does not run; `continue`: it runs all the same.
        key: Idempotency: same key and same plan in a session, the same plan again.
    """

    tool = "run_plan"

    commands: Annotated[tuple[PlanStep, ...], BeforeValidator(_steps), Field(min_length=1, max_length=1_000)]
    name: Name | None = None
    order: Literal["sequence", "parallel"] = "sequence"
    on_failure: Literal["stop", "continue"] = "stop"
    key: Name | None = None
    wait_ms: Ms | None = None


class PlanProgress(Request):
    """How a plan is getting on, or without one, the newest plan of the session."""

    tool = "plan_progress"

    plan_id: str | None = None
    wait_ms: Ms | None = None


class AddMessage(Request):
    """Write something into the journal, or give a message another text.

    Attributes:
        parent: Id of the message that it answers.
        replaces: Id of the message whose text this is from now on; the old one is kept as a version.
    """

    tool = "add_message"

    text: _Text
    role: Literal["user", "assistant", "system"] = "assistant"
    task_id: str | None = None
    parent: str | None = None
    replaces: str | None = None

    @_model_validator(mode="after")
    def _one_place(self) -> AddMessage:
        if self.replaces is not None and (self.parent is not None or self.task_id is not None):
            raise InvalidArgument("replaces goes with text only", "an edit changes the text and nothing else")
        return self


class ReadJournal(Request):
    """Read the journal of a session by page.

    Attributes:
        thread: Id of a message: the whole tree that it belongs to.
        branch: Id of a message: what led to it, from the first message down.
        versions: Id of a message: each text that it has had.
        folded: Also what was folded into summaries.
    """

    tool = "read_journal"

    order: Literal["newest", "oldest"] = "newest"
    role: Literal["user", "assistant", "system", "tool", "event", "summary"] | None = None
    task_id: str | None = None
    thread: str | None = None
    branch: str | None = None
    versions: str | None = None
    folded: bool = False
    limit: Annotated[int, Field(ge=1, le=1_000)] = 50
    cursor: str | None = None


class SearchJournal(Request):
    """Find messages that have all these words."""

    tool = "search_journal"

    text: Annotated[str, Field(min_length=1, max_length=10_000)]
    limit: Annotated[int, Field(ge=1, le=1_000)] = 20
    cursor: str | None = None


class ExportSession(Request):
    """The journal of a session with the records of its tasks, as one text, by page.

    Attributes:
        offset: Bytes of the whole text that were read already.
    """

    tool = "export_session"

    format: Literal["json", "markdown"] = "markdown"
    offset: Annotated[int, Field(ge=0, le=2**62)] = 0
    limit: Annotated[int, Field(ge=1, le=262_144)] = 32_768


class ProjectContext(Request):
    """What was found out about the folder that the session works in.

    Attributes:
        refresh: Look again, even if nothing seems to have changed.
        diff: Say what has changed since the last look.
    """

    tool = "project_context"

    cwd: Cwd | None = None
    refresh: bool = False
    diff: bool = False
