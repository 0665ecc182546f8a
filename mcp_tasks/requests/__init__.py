"""What can be asked of the service: one frozen model per tool, the same for MCP, CLI and library.

The models are strict: an integer is an integer. What models of language type loosely on the wire
is put right by `mcp_tasks.server.arguments` before it comes here. A request that is not well formed
raises InvalidArgument, which names the parameter and what would be right and never repeats a value.

Times are milliseconds. A default that depends on other fields or on the configuration is None here
and resolved by the service.
"""

from __future__ import annotations

from mcp_tasks.requests.hooks import TaskHook
from mcp_tasks.requests.request import Request
from mcp_tasks.requests.sessions import (
    AddMessage,
    EndSession,
    ExportSession,
    ListSessions,
    PlanProgress,
    PlanStep,
    ProjectContext,
    ReadJournal,
    RunPlan,
    SearchJournal,
    SessionInfo,
    UpdateSession,
)
from mcp_tasks.requests.tasks import (
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

__all__ = [
    "AddMessage",
    "CancelTask",
    "ClearTask",
    "EndSession",
    "ExportSession",
    "GetResult",
    "ListSessions",
    "ListTasks",
    "PlanProgress",
    "PlanStep",
    "PollTask",
    "ProjectContext",
    "ReadJournal",
    "Request",
    "RunCommand",
    "RunPlan",
    "SearchJournal",
    "SearchOutput",
    "SendInput",
    "SessionInfo",
    "TaskHook",
    "UpdateSession",
    "WaitTasks",
]
