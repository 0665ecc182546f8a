"""The sets of tools that a server can offer: what `tools/list` answers, and what `tools/call` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

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
from mcp_tasks.server.schemas import Tool
from mcp_tasks.server.session_tools import SESSION_TOOLS

__all__ = ["CORE", "FULL", "STANDARD", "ToolSet", "tool_set"]

ToolSet = Literal["core", "standard", "full"]

_TASK = ("task_id", "session", "state", "elapsed_ms", "stdout_bytes", "stderr_bytes", "next_cursor")
_READS = (True, False, True, False)

CORE: Final = (
    Tool(
        RunCommand,
        "Run command",
        "Start a command that outlives this call, the client and the server. For anything that may take more"
        " than seconds: builds, tests, servers. Answers after wait_ms with the task as it is; come back with"
        " poll_task or get_result, from any conversation. Kept, with output and exit code, until clear_task.",
        _TASK,
        (False, True, False, True),
    ),
    Tool(
        PollTask,
        "Poll task",
        "State and output of a task; can wait for its end, output, silence or a pattern. With cursor, only"
        " what is new.",
        _TASK,
        _READS,
    ),
    Tool(
        GetResult,
        "Get result",
        "Full record of a task (exit code, times, history) and any range of its output; without a range, head"
        " and tail. Use when it has ended, or to read long output.",
        _TASK,
        _READS,
    ),
    Tool(
        CancelTask,
        "Cancel task",
        "End a task and every process it started; record and output stay.",
        _TASK,
        (False, True, True, False),
    ),
    Tool(
        ClearTask,
        "Clear task",
        "Delete finished tasks and their output for good: one by task_id, or many.",
        ("cleared", "freed_bytes"),
        (False, True, True, False),
    ),
    Tool(
        ListTasks,
        "List tasks",
        "The session's tasks, newest first; finds a task whose id is lost.",
        ("tasks", "counts"),
        _READS,
    ),
)

STANDARD: Final = (
    *CORE,
    Tool(
        SendInput,
        "Send input",
        "Type into an interactive task, or signal any task, and see what comes of it.",
        _TASK,
        (False, True, False, True),
    ),
    Tool(
        WaitTasks,
        "Wait for tasks",
        "Wait for the end of any or all of several tasks, instead of polling each.",
        ("done", "open", "wait_result", "waited_ms"),
        _READS,
    ),
    Tool(
        SearchOutput,
        "Search output",
        "Find lines in the output of a task, or of all tasks, without reading it.",
        ("matches", "scanned_bytes"),
        _READS,
    ),
)

FULL: Final = (*STANDARD, *SESSION_TOOLS)

_SETS: Final[Mapping[ToolSet, tuple[Tool, ...]]] = {"core": CORE, "standard": STANDARD, "full": FULL}


def tool_set(name: ToolSet) -> Mapping[str, Tool]:
    """The tools of a set, by name, in the order of their listing."""
    return {tool.name: tool for tool in _SETS[name]}
