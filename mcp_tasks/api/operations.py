"""What can be done over the HTTP API: one row an operation, by which server, client and OpenAPI go.

A request's fields that are named in the path come from there; the others from the query string of GET and
DELETE, and from the JSON object in the body of the rest. The requests of tools are methods of `Service`
by the names of the rows; what the others do is in `mcp_tasks.http.api`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from mcp_tasks.api.requests import (
    AllSessions,
    ClearContext,
    ClearHistory,
    ClearProjects,
    CreateSession,
    DeleteSession,
    DeleteTask,
    ExportWhole,
    ExtendSession,
    FollowTask,
    GetMessage,
    ImportJournal,
    JournalStats,
    ListPlans,
    ProjectFigures,
    PruneJournal,
    ReadStream,
    RefreshContext,
    ReplaceContext,
    ResolvePrefix,
    ServerInfo,
    WarmProjects,
    WatchSession,
)
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

__all__ = ["OPERATIONS", "Answer", "Method", "Operation", "operation"]

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

Answer = Literal["view", "bytes", "text", "events"]
"""A JSON object; bytes, of which a range can be asked for; a text in one piece; server-sent events."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        name: Its operationId.
        path: Below `/api`, with the fields that come from it in braces.
        request: What is asked for.
        status: Of an answer that is no problem.
        answer: What kind of answer that is.
        takes_document: The body is no JSON object of the request's fields but a document of its own.
        place: Where what it has made is found, with the fields of the answer that name it in braces.
    """

    name: str
    method: Method
    path: str
    request: type[Request]
    summary: str
    status: int = 200
    answer: Answer = "view"
    takes_document: bool = False
    place: str = ""

    @property
    def path_fields(self) -> tuple[str, ...]:
        """The fields of the request that the path names."""
        return tuple(re.findall(r"{(\w+)}", self.path))


OPERATIONS: Final = (
    Operation("list_tasks", "GET", "/tasks", ListTasks, "Tasks of a session, newest first"),
    Operation(
        "run_command",
        "POST",
        "/tasks",
        RunCommand,
        "Start a command as a durable task",
        201,
        place="/tasks/{task_id}",
    ),
    Operation("clear_task", "POST", "/tasks/clear", ClearTask, "Remove finished tasks for good"),
    Operation("wait_tasks", "POST", "/tasks/wait", WaitTasks, "Wait for several tasks"),
    Operation("cancel_tasks", "POST", "/tasks/cancel", CancelTask, "End several tasks"),
    Operation("poll_task", "GET", "/tasks/{task_id}", PollTask, "Look at a task, or wait a while"),
    Operation("delete_task", "DELETE", "/tasks/{task_id}", DeleteTask, "Remove a finished task for good"),
    Operation("get_result", "GET", "/tasks/{task_id}/result", GetResult, "Record and output of a task"),
    Operation("cancel_task", "POST", "/tasks/{task_id}/cancel", CancelTask, "End a task"),
    Operation("send_input", "POST", "/tasks/{task_id}/input", SendInput, "Type into a task, or signal it"),
    Operation(
        "read_stdout", "GET", "/tasks/{task_id}/stdout", ReadStream, "Standard output, raw", answer="bytes"
    ),
    Operation(
        "read_stderr", "GET", "/tasks/{task_id}/stderr", ReadStream, "Standard error, raw", answer="bytes"
    ),
    Operation(
        "follow_task", "GET", "/tasks/{task_id}/events", FollowTask, "Output and state, live", answer="events"
    ),
    Operation("watch_session", "GET", "/events", WatchSession, "Changes of tasks, live", answer="events"),
    Operation("search_output", "GET", "/search", SearchOutput, "Find lines in the output of tasks"),
    Operation("resolve_prefix", "GET", "/ids/{prefix}", ResolvePrefix, "The id that begins like this"),
    Operation("list_plans", "GET", "/plans", ListPlans, "Plans of a session, newest first"),
    Operation(
        "run_plan",
        "POST",
        "/plans",
        RunPlan,
        "Register several commands at once",
        201,
        place="/plans/{plan_id}",
    ),
    Operation("plan_progress", "GET", "/plans/{plan_id}", PlanProgress, "How far a plan has come"),
    Operation("list_sessions", "GET", "/sessions", ListSessions, "Sessions, the one used last first"),
    Operation(
        "create_session",
        "POST",
        "/sessions",
        CreateSession,
        "Make a session",
        201,
        place="/sessions/{session}",
    ),
    Operation("session_info", "GET", "/sessions/{session}", SessionInfo, "Everything about a session"),
    Operation(
        "update_session", "PATCH", "/sessions/{session}", UpdateSession, "Change a session, or make it"
    ),
    Operation("delete_session", "DELETE", "/sessions/{session}", DeleteSession, "Remove a session for good"),
    Operation(
        "extend_session", "POST", "/sessions/{session}/extend", ExtendSession, "Let it live for longer"
    ),
    Operation("end_session", "POST", "/sessions/{session}/end", EndSession, "Close a session"),
    Operation("read_journal", "GET", "/sessions/{session}/history", ReadJournal, "The journal, by page"),
    Operation("add_message", "POST", "/sessions/{session}/history", AddMessage, "Write into it", 201),
    Operation("clear_history", "DELETE", "/sessions/{session}/history", ClearHistory, "Fold all of it"),
    Operation(
        "search_journal", "GET", "/sessions/{session}/history/search", SearchJournal, "Find messages by words"
    ),
    Operation(
        "journal_stats",
        "GET",
        "/sessions/{session}/history/stats",
        JournalStats,
        "How large and how old it is",
    ),
    Operation(
        "prune_journal", "POST", "/sessions/{session}/history/prune", PruneJournal, "Fold the oldest messages"
    ),
    Operation("get_message", "GET", "/sessions/{session}/history/{message_id}", GetMessage, "One message"),
    Operation(
        "export_session", "GET", "/sessions/{session}/export", ExportSession, "All of it as text, by page"
    ),
    Operation(
        "export_whole", "GET", "/sessions/{session}/export/whole", ExportWhole, "All at once", answer="text"
    ),
    Operation(
        "import_journal",
        "POST",
        "/sessions/{session}/import",
        ImportJournal,
        "Take the messages of a JSON export over",
        takes_document=True,
    ),
    Operation(
        "project_context",
        "GET",
        "/sessions/{session}/context",
        ProjectContext,
        "What is known of the project",
    ),
    Operation(
        "replace_context", "PUT", "/sessions/{session}/context", ReplaceContext, "Set what is told of it"
    ),
    Operation(
        "clear_context", "DELETE", "/sessions/{session}/context", ClearContext, "Forget what was set of it"
    ),
    Operation(
        "refresh_context", "POST", "/sessions/{session}/context/refresh", RefreshContext, "Look at it again"
    ),
    Operation("server_info", "GET", "/server", ServerInfo, "Which server this is, and who is asking"),
    Operation("all_sessions", "GET", "/server/sessions", AllSessions, "Sessions of every owner"),
    Operation("project_figures", "GET", "/server/projects", ProjectFigures, "How often projects were known"),
    Operation("warm_projects", "POST", "/server/projects", WarmProjects, "Look at folders in advance"),
    Operation("clear_projects", "DELETE", "/server/projects", ClearProjects, "Forget all looks at projects"),
)


def operation(name: str) -> Operation:
    """The operation of a name."""
    return next(row for row in OPERATIONS if row.name == name)
