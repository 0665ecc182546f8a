"""The entries that a journal gets by itself: of each tool call, and of the end of each task."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_tasks.models import Draft, Finished, SessionKey, Task
from mcp_tasks.redaction import redact_arguments, redact_text, redact_value

__all__ = ["ToolCall", "call_entry", "end_entry"]

_LONGEST_SHOWN = 2_000
_LONGEST_READ = 64_000
_LONGEST_TITLE = 200
_NEVER = frozenset(("stdin", "text"))
"""Arguments that are in no entry: what was typed, and what stands in the journal already."""

_RESULT = (
    *("state", "outcome", "exit_code", "signal", "wait_result", "reused", "warning"),
    *("plan_id", "name", "total", "done", "counts", "cleared", "freed_bytes"),
)
"""What of an answer is told; outputs are not."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool, as its edge saw it.

    Attributes:
        arguments: As the client sent them.
        answer: The view, or of an error code, message and hint.
    """

    tool: str
    at: int
    duration_ms: int
    arguments: Mapping[str, Any] = field(repr=False)
    answer: Mapping[str, Any] = field(repr=False)

    def brief(self) -> ToolCall:
        """The same without what no entry tells, which may be large."""
        arguments = {
            name: _cut(value, _LONGEST_READ) for name, value in self.arguments.items() if name not in _NEVER
        }
        told = ("task_id", "session", "code", "message", *_RESULT)
        answer = {name: self.answer[name] for name in told if name in self.answer}
        return ToolCall(self.tool, self.at, self.duration_ms, arguments, answer)


def call_entry(session: SessionKey, call: ToolCall, by: str, secrets: Collection[str]) -> Draft:
    """The entry of a call.

    Args:
        session: Into whose journal it goes.
        call: What was called.
        by: Who called.
        secrets: Values that must not be seen, beside those that look like it.
    """
    arguments = redact_value(redact_arguments(call.arguments), secrets)
    answer, data = call.answer, {"tool": call.tool, "by": by, "duration_ms": call.duration_ms}
    data["arguments"] = {name: _cut(value, _LONGEST_SHOWN) for name, value in arguments.items()}
    if "code" in answer:
        message = redact_text(str(answer.get("message", "")), secrets)
        data["error"] = {"code": answer["code"], "message": message}
        came = f"{answer['code']}: {message}"
    else:
        data["result"] = {name: answer[name] for name in _RESULT if name in answer}
        came = _came(answer)
    task_id = answer.get("task_id") or arguments.get("task_id")
    what = str(arguments.get("command") or arguments.get("pattern") or "")
    title = f"{call.tool} {' '.join(what.split())[:_LONGEST_TITLE]}".strip()
    return Draft(
        session,
        "tool",
        f"{title}: {came} ({call.duration_ms} ms)",
        call.at,
        task_id=task_id if isinstance(task_id, str) else None,
        data=data,
    )


def end_entry(task: Task, at: int) -> Draft:
    """The entry of a task that is final."""
    reason = task.history[-1].reason if task.history else task.state_name
    data: dict[str, Any] = {"event": "task_ended", "state": task.state_name, "run": task.run}
    if isinstance(task.state, Finished):
        end = task.state
        data |= {"outcome": end.outcome.kind, "elapsed_ms": end.elapsed_ms}
        for name in ("exit_code", "signal"):
            if (value := getattr(end.outcome, name, None)) is not None:
                data[name] = value
    data["command"] = task.spec.command[:_LONGEST_SHOWN]
    if task.spec.label is not None:
        data["label"] = task.spec.label
    if task.spec.plan is not None:
        data["plan_id"] = task.spec.plan
    name = task.spec.label or task.spec.command[:_LONGEST_TITLE]
    return Draft(
        task.key.session_key,
        "event",
        f"task {name} {task.state_name}: {reason}",
        at,
        task_id=task.key.task_id,
        data=data,
    )


def _came(answer: Mapping[str, Any]) -> str:
    if "state" not in answer:
        return "done"
    end = answer.get("signal") or (f"exit {answer['exit_code']}" if "exit_code" in answer else "")
    return f"{answer['state']}{end and ', '}{end}"


def _cut(value: Any, length: int) -> Any:
    """A value with its long texts shortened, as deep as arguments go."""
    if isinstance(value, str) and len(value) > length:
        return f"{value[:length]}… ({len(value) - length} characters more)"
    if isinstance(value, list | tuple):
        return [_cut(part, length) for part in value[:1_000]]
    if isinstance(value, Mapping):
        return {name: _cut(part, length) for name, part in value.items()}
    return value
