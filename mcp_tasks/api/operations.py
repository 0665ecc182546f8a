"""What can be done over the HTTP API: one row an operation, by which server, client and OpenAPI go.

A request's fields that are named in the path come from there; the others from the query string of GET and
DELETE, and from the JSON object in the body of the rest. The methods of `Service` have the names of the rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

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

__all__ = ["OPERATIONS", "Method", "Operation", "operation"]

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        name: Its operationId, and the method of `Service` that carries it out.
        path: Below `/api`, with the fields that come from it in braces.
        request: What is asked for.
        status: Of an answer that is no problem.
    """

    name: str
    method: Method
    path: str
    request: type[Request]
    summary: str
    status: int = 200

    @property
    def path_fields(self) -> tuple[str, ...]:
        """The fields of the request that the path names."""
        return tuple(re.findall(r"{(\w+)}", self.path))


OPERATIONS: Final = (
    Operation("list_tasks", "GET", "/tasks", ListTasks, "Tasks of a session, newest first"),
    Operation("run_command", "POST", "/tasks", RunCommand, "Start a command as a durable task", 201),
    Operation("poll_task", "GET", "/tasks/{task_id}", PollTask, "Look at a task, or wait a while"),
    Operation("get_result", "GET", "/tasks/{task_id}/result", GetResult, "Record and output of a task"),
    Operation("cancel_task", "POST", "/tasks/{task_id}/cancel", CancelTask, "End a task"),
    Operation("send_input", "POST", "/tasks/{task_id}/input", SendInput, "Type into a task, or signal it"),
    Operation("clear_task", "POST", "/tasks/clear", ClearTask, "Remove finished tasks for good"),
    Operation("wait_tasks", "POST", "/tasks/wait", WaitTasks, "Wait for several tasks"),
    Operation("search_output", "GET", "/search", SearchOutput, "Find lines in the output of tasks"),
    Operation("run_plan", "POST", "/plans", RunPlan, "Register several commands at once", 201),
    Operation("plan_progress", "GET", "/plans/{plan_id}", PlanProgress, "How far a plan has come"),
    Operation("list_sessions", "GET", "/sessions", ListSessions, "Sessions, the one used last first"),
    Operation("session_info", "GET", "/sessions/{session}", SessionInfo, "Everything about a session"),
    Operation(
        "update_session", "PATCH", "/sessions/{session}", UpdateSession, "Change a session, or make it"
    ),
    Operation("end_session", "POST", "/sessions/{session}/end", EndSession, "Close a session"),
    Operation("read_journal", "GET", "/sessions/{session}/history", ReadJournal, "The journal, by page"),
    Operation("add_message", "POST", "/sessions/{session}/history", AddMessage, "Write into it", 201),
    Operation(
        "search_journal", "GET", "/sessions/{session}/history/search", SearchJournal, "Find messages by words"
    ),
    Operation(
        "export_session", "GET", "/sessions/{session}/export", ExportSession, "All of it as text, by page"
    ),
    Operation(
        "project_context",
        "GET",
        "/sessions/{session}/context",
        ProjectContext,
        "What is known of the project",
    ),
)


def operation(name: str) -> Operation:
    """The operation of a name."""
    return next(row for row in OPERATIONS if row.name == name)
