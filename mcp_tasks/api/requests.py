"""What can be asked over the HTTP API alone, beside what the tools take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mcp_tasks.parameters import Cwd, Environment, Ms, SessionName, WorkspaceCwd, WorkspaceShell
from mcp_tasks.requests import Request

__all__ = [
    "AllSessions",
    "ClearContext",
    "ClearHistory",
    "ClearProjects",
    "CreateSession",
    "DeleteSession",
    "DeleteTask",
    "ExportWhole",
    "ExtendSession",
    "FollowTask",
    "GetMessage",
    "ImportJournal",
    "JournalStats",
    "ListPlans",
    "ProjectFigures",
    "PruneJournal",
    "ReadStream",
    "RefreshContext",
    "ReplaceContext",
    "ResolvePrefix",
    "ServerInfo",
    "WarmProjects",
    "WatchSession",
]

_Position = Annotated[int, Field(ge=0, le=2**62)]
_Keep = Annotated[int, Field(ge=0, le=10_000_000)]


class DeleteTask(Request):
    """Remove one finished task for good.

    Attributes:
        cancel: End it first where it is not final.
    """

    tool = "delete_task"

    task_id: str
    cancel: bool = False


class ReadStream(Request):
    """The captured bytes of one stream of the newest run, as they are."""

    tool = "read_stream"

    task_id: str


class FollowTask(Request):
    """What a task writes and how its state changes, as it happens, until it has ended.

    Attributes:
        stdout: Bytes of standard output that the caller has already; the same for `stderr`.
        encoding: `text` as the tools show it, or `base64` of the exact bytes.
    """

    tool = "follow_task"

    task_id: str
    stdout: _Position = 0
    stderr: _Position = 0
    encoding: Literal["text", "base64"] = "text"


class WatchSession(Request):
    """How the tasks of a session change, as it happens."""

    tool = "watch_session"


class ResolvePrefix(Request):
    """The one task, or plan, whose id begins like this."""

    tool = "resolve_prefix"

    prefix: Annotated[str, Field(min_length=1, max_length=128)]
    kind: Literal["task", "plan"] = "task"


class ListPlans(Request):
    """The plans of a session, newest first."""

    tool = "list_plans"

    limit: Annotated[int, Field(ge=1, le=1_000)] = 100


class CreateSession(Request):
    """Make a session that is not there yet.

    Attributes:
        expires_in_ms: From now; 0 means never.
    """

    tool = "create_session"

    session: SessionName
    title: Annotated[str, Field(max_length=500)] | None = None
    cwd: WorkspaceCwd | None = None
    shell: WorkspaceShell | None = None
    env: Environment = Field(default={}, repr=False)
    preferences: dict[str, Any] = Field(default={})
    expires_in_ms: Ms | None = None
    journal_limit: _Keep | None = None
    seal_journal: bool | None = None


class ExtendSession(Request):
    """Let a session live for longer.

    Attributes:
        expires_in_ms: From now; 0 means for ever.
    """

    tool = "extend_session"

    expires_in_ms: Ms


class DeleteSession(Request):
    """Remove a session for good, with tasks and journal.

    Attributes:
        force: Cancel what still runs, instead of refusing.
    """

    tool = "delete_session"

    force: bool = False


class AllSessions(Request):
    """The sessions of every owner, for the user who runs the server."""

    tool = "all_sessions"


class GetMessage(Request):
    """One live message of a journal."""

    tool = "get_message"

    message_id: str


class ClearHistory(Request):
    """Fold every message of a journal; reading with `folded` and exports still have them."""

    tool = "clear_history"


class PruneJournal(Request):
    """Fold the oldest messages of a journal.

    Attributes:
        keep: How many stay live; None means the limit of the session.
    """

    tool = "prune_journal"

    keep: _Keep | None = None


class JournalStats(Request):
    """How large and how old a journal is."""

    tool = "journal_stats"


class ExportWhole(Request):
    """The journal of a session with the records of its tasks, in one piece."""

    tool = "export_whole"

    format: Literal["json", "markdown"] = "markdown"


class ImportJournal(Request):
    """Take the messages of a JSON export, which is the body, into the journal."""

    tool = "import_journal"


class RefreshContext(Request):
    """Look at the project again."""

    tool = "refresh_context"

    cwd: Cwd | None = None


class ReplaceContext(Request):
    """Set what is told of the project on top of what was found, in place of what was set before.

    Attributes:
        project: `build` and `test` replace the commands that were found; whatever else is shown under `set`.
    """

    tool = "replace_context"

    project: dict[str, Any]


class ClearContext(Request):
    """Forget what was set of the project."""

    tool = "clear_context"


class ProjectFigures(Request):
    """How often what is known of projects was known already."""

    tool = "project_figures"


class WarmProjects(Request):
    """Look at folders in advance."""

    tool = "warm_projects"

    folders: Annotated[list[Cwd], Field(min_length=1, max_length=100)]


class ClearProjects(Request):
    """Forget all looks at projects, and the figures."""

    tool = "clear_projects"


class ServerInfo(Request):
    """Which server this is, what time it has, and as what it knows the caller."""

    tool = "server_info"
