"""What `tools/list` answers: every tool with its title, when to use it, its schemas and annotations.

An agent pays for this in every conversation, so the schemas are cut to what it needs to fill them
in. They are derived from the request models, which check everything that is left out here. Extra
properties are not forbidden: a client that validates would refuse the aliases that the server takes.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import mcp_types as types

from mcp_tasks.requests import (
    CancelTask,
    ClearTask,
    GetResult,
    ListTasks,
    PollTask,
    Request,
    RunCommand,
    SearchOutput,
    SendInput,
    WaitTasks,
)
from mcp_tasks.server.arguments import shape_of

__all__ = ["CORE", "STANDARD", "Tool", "ToolSet", "tool_set"]

ToolSet = Literal["core", "standard", "full"]

_TASK = ("task_id", "session", "state", "elapsed_ms", "stdout_bytes", "stderr_bytes", "next_cursor")


@dataclass(frozen=True)
class Tool:
    """One tool: the request that it carries and what its listing says.

    Attributes:
        answers: The fields that are always in the structured content.
        hints: readOnlyHint, destructiveHint, idempotentHint, openWorldHint.
    """

    request: type[Request]
    title: str
    description: str
    answers: tuple[str, ...]
    hints: tuple[bool, bool, bool, bool]

    @property
    def name(self) -> str:
        """The name that a call gives."""
        return self.request.tool

    def listing(self) -> types.Tool:
        """The tool as `tools/list` shows it."""
        read_only, destructive, idempotent, open_world = self.hints
        return types.Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=input_schema(self.request),
            output_schema=output_schema(self.answers),
            annotations=types.ToolAnnotations(
                read_only_hint=read_only,
                destructive_hint=destructive,
                idempotent_hint=idempotent,
                open_world_hint=open_world,
            ),
        )


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


def tool_set(name: ToolSet) -> Mapping[str, Tool]:
    """The tools of a set, by name, in the order of their listing."""
    return {tool.name: tool for tool in (CORE if name == "core" else STANDARD)}


def output_schema(answers: tuple[str, ...]) -> dict[str, Any]:
    """An open object that names what is always there and, for errors, code, message and hint.

    Nothing is `required`: clients of the TypeScript SDK v1 throw on an error result without it.
    """
    names = (*answers, "code", "message", "hint")
    return {"type": "object", "properties": {name: {} for name in names}}


def input_schema(request: type[Request]) -> dict[str, Any]:
    """The parameters of a tool: type, choices and, where the name does not say enough, a few words."""
    properties = {}
    fields = request.model_fields
    # What must be given comes first, what matters least last; the sort keeps the rest as it is.
    for name in sorted(fields, key=lambda name: (not fields[name].is_required(), name == "session")):
        field = fields[name]
        schema = _property(name, field.annotation)
        words = _WORDS.get(f"{request.tool}.{name}", _WORDS.get(name))
        if words:
            schema["description"] = words
        properties[name] = schema
    schema = {"type": "object", "properties": properties}
    required = [name for name, field in fields.items() if field.is_required()]
    if required:
        schema["required"] = required
    return schema


def _property(name: str, annotation: Any) -> dict[str, Any]:
    match shape_of(annotation, name):
        case "command":
            # A list of types would be shorter, but some clients take no `type: [..]`.
            return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
        case "list":
            return {"type": "array", "items": {"type": "string"}}
        case "map":
            return {"type": "object"}
        case "integer" | "number" | "boolean" as plain:
            return {"type": plain}
        case _:
            choices = _choices(annotation)
            return {"type": "string", "enum": choices} if choices else {"type": "string"}


def _choices(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is Literal:
        return list(typing.get_args(annotation))
    return [choice for part in typing.get_args(annotation) for choice in _choices(part)]


_WORDS: Final[Mapping[str, str]] = {
    "all_finished": "narrowed by label, cwd",
    "cancel_task.grace_ms": "before SIGKILL; default 5000",
    "clear_task.cancel": "end it first",
    "clear_task.label": "only those with it",
    "cursor": "next_cursor, to read on",
    "enter": "add a newline",
    "get_result.limit": "bytes, up to 262144",
    "get_result.offset": "bytes",
    "idle_ms": "wait for silence",
    "label": "name to find it by",
    "list_tasks.label": "only those with it",
    "list_tasks.limit": "default 20",
    "list_tasks.state": "active: pending, running",
    "max_bytes": "default 8192",
    "pattern": "RE2 regex",
    "poll_task.pattern": "RE2 regex to wait for",
    "poll_task.show": "default: new with cursor, else tail",
    "poll_task.wait_ms": "longest wait; default 0",
    "run_command.after": "task ids to complete first",
    "run_command.clear_finished": "clear finished tasks first",
    "run_command.command": "string: run by the shell; list: without",
    "run_command.env": "added to the server's; null unsets",
    "run_command.interactive": "keep stdin open for send_input",
    "run_command.key": "idempotency: same key, same task",
    "run_command.max_output_bytes": "0: no limit",
    "run_command.pattern": "RE2 regex to wait for",
    "run_command.session": "work area; default 'default'",
    "run_command.stdin": "whole input",
    "run_command.timeout_ms": "kills; default never",
    "run_command.wait_ms": "longest wait; default 1000; never kills",
    "search_output.limit": "default 50",
    "search_output.task_id": "default: the whole session",
    "secret": "keep text unrecorded",
    "send_input.pattern": "RE2 regex to wait for",
    "send_input.wait_ms": "default: until idle 300 ms, at most 5000",
    "wait_tasks.label": "all tasks with it, instead of task_ids",
    "wait_tasks.mode": "default any",
    "wait_tasks.wait_ms": "default: the longest wait allowed",
}
"""What a parameter's name and type do not say, by `tool.parameter` or for every tool that has it."""
