"""The tools of the full set for sessions, plans, journals and projects."""

from __future__ import annotations

from typing import Final

from mcp_tasks.requests import (
    AddMessage,
    EndSession,
    ExportSession,
    ListSessions,
    PlanProgress,
    ProjectContext,
    ReadJournal,
    RunPlan,
    SearchJournal,
    SessionInfo,
    UpdateSession,
)
from mcp_tasks.server.schemas import Tool

__all__ = ["SESSION_TOOLS"]

_SESSION = ("session", "state", "created_at", "active_at", "idle_ms", "revision")
_PLAN = ("plan_id", "session", "state", "total", "done", "counts")
_READS = (True, False, True, False)

SESSION_TOOLS: Final = (
    Tool(
        SessionInfo,
        "Session info",
        "State, figures, workspace, plans and connections of a session. Use on coming back to work that was"
        " begun earlier.",
        _SESSION,
        _READS,
    ),
    Tool(
        UpdateSession,
        "Update session",
        "Set what commands of the session are given by default (cwd, env, shell), its title, preferences or"
        " expiry; share it by a token, or end a share. Makes the session where it is new. What is not named"
        " stays as it is.",
        _SESSION,
        (False, True, False, False),
    ),
    Tool(
        ListSessions,
        "List sessions",
        "The sessions there are, the one used last first. Use to find the one to come back to.",
        ("sessions", "counts"),
        _READS,
    ),
    Tool(
        EndSession,
        "End session",
        "Close a session whose work is over: waits for what runs, or cancels it with force. Tasks and journal"
        " stay readable; archive puts them away, compressed.",
        _SESSION,
        (False, True, True, False),
    ),
    Tool(
        RunPlan,
        "Run plan",
        "Start several commands at once, one after the other or as their `after` says, with retries. Use"
        " instead of several run_command calls that wait for each other: the plan goes on without the client,"
        " and after a crash. Come back with plan_progress.",
        (*_PLAN, "tasks"),
        (False, True, False, True),
    ),
    Tool(
        PlanProgress,
        "Plan progress",
        "How far a plan is: what is done, running and failed. Can wait for its end.",
        (*_PLAN, "created_at", "elapsed_ms"),
        _READS,
    ),
    Tool(
        AddMessage,
        "Add message",
        "Write a decision, finding or next step into the session's journal, for whoever comes back to it;"
        " or correct one (the old text is kept).",
        ("session", "message"),
        (False, False, False, False),
    ),
    Tool(
        ReadJournal,
        "Read journal",
        "What was said and done in the session: messages, tool calls, ends of tasks. Use to find back into"
        " work after a break or a compacted conversation.",
        ("session", "messages"),
        _READS,
    ),
    Tool(
        SearchJournal,
        "Search journal",
        "Find messages of the session's journal that have all given words, newest first.",
        ("session", "messages"),
        _READS,
    ),
    Tool(
        ExportSession,
        "Export session",
        "The whole journal and the records of the tasks as one text, by page. Use to hand the session over"
        " or to report on it.",
        ("session", "format", "text", "offset", "total_bytes"),
        _READS,
    ),
    Tool(
        ProjectContext,
        "Project context",
        "What is known of the project in the working folder: version control, languages, build and test"
        " commands. Use before building or testing something unfamiliar. Runs nothing.",
        ("cwd", "root", "checked_at", "cache"),
        _READS,
    ),
)
