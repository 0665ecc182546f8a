"""The entries that a journal gets by itself: of each tool call, and of the end of each task."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_tasks.models import Draft, Finished, SessionKey, Task
from mcp_tasks.redaction import redact_arguments, redact_text, values_of_arguments

__all__ = ["ToolCall", "call_entry", "end_entry"]

_LONGEST_SHOWN = 2_000
_MOST_SHOWN = 16_000
_MOST_READ = 64_000
_MOST_PARTS = 500
_LONGEST_TITLE = 200
_LONGEST_ID = 64
_LONGEST_TOKEN = 512
_LARGEST = 2**63
_CUT = re.compile(r"… \((\d{1,18}) characters more\)\Z", re.ASCII)
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
        arguments: As the client meant them, under their own names.
        answer: The view, or of an error code, message and hint.
        marked: Values that the call itself says are secret; `brief` finds them.
    """

    tool: str
    at: int
    duration_ms: int
    arguments: Mapping[str, Any] = field(repr=False)
    answer: Mapping[str, Any] = field(repr=False)
    marked: tuple[str, ...] = field(default=(), repr=False)

    def brief(self) -> ToolCall:
        """The same without what no entry tells, which may be large."""
        arguments = {name: value for name, value in self.arguments.items() if name not in _NEVER}
        told = ("task_id", "session", "code", "message", *_RESULT)
        read, shown = _Room(_MOST_READ), _Room(_MOST_SHOWN)
        answer = {
            name: _taken(self.answer[name], _LONGEST_SHOWN, shown) for name in told if name in self.answer
        }
        return ToolCall(
            self.tool,
            self.at,
            self.duration_ms,
            {name: _taken(value, _MOST_READ, read) for name, value in arguments.items()},
            answer,
            values_of_arguments(arguments),  # of the whole, or half a value would show
        )


def call_entry(session: SessionKey, call: ToolCall, by: str, secrets: Collection[str]) -> Draft:
    """The entry of a call that is brief.

    Args:
        session: Into whose journal it goes.
        call: What was called.
        by: Who called.
        secrets: Values that must not be seen, beside those that look like it.
    """
    values = (*call.marked, *secrets)
    arguments = _without_halves(redact_arguments(call.arguments, values), max(map(len, values), default=0))
    answer, data = call.answer, {"tool": call.tool, "by": by, "duration_ms": call.duration_ms}
    data["arguments"] = _taken(arguments, _LONGEST_SHOWN, _Room(_MOST_SHOWN))
    if "code" in answer:
        message = redact_text(str(answer.get("message", "")), values)
        data["error"] = {"code": answer["code"], "message": message}
        came = f"{answer['code']}: {message}"
    else:
        data["result"] = {name: answer[name] for name in _RESULT if name in answer}
        came = _came(answer)
    task_id = answer.get("task_id") or arguments.get("task_id")
    what = str(arguments.get("command") or arguments.get("pattern") or "")
    title = f"{call.tool} {' '.join(what[: 4 * _LONGEST_TITLE].split())[:_LONGEST_TITLE]}".strip()
    return Draft(
        session,
        "tool",
        f"{title}: {came} ({call.duration_ms} ms)",
        call.at,
        task_id=task_id if isinstance(task_id, str) and len(task_id) <= _LONGEST_ID else None,
        data=data,
    )


def end_entry(task: Task) -> Draft:
    """The entry of a task that is final, at the moment of its end, whenever that was noticed."""
    reason = task.history[-1].reason if task.history else task.state_name
    data: dict[str, Any] = {"event": "task_ended", "state": task.state_name, "run": task.run}
    at = task.created_at
    if isinstance(task.state, Finished):
        end = task.state
        at = end.ended_at
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


@dataclass(slots=True)
class _Room:
    """How much more is taken of something."""

    characters: int
    parts: int = _MOST_PARTS


def _taken(value: Any, longest: int, room: _Room) -> Any:
    """A value as far as there is room for it, with its long texts shortened."""
    # Each call of a tool comes through here, so what is most frequent is looked at first.
    room.parts -= 1
    if isinstance(value, str):
        room.characters -= len(value)
        return value if len(value) <= longest and room.characters >= 0 else _shortened(value, longest, room)
    if isinstance(value, int):
        return value if -_LARGEST < value < _LARGEST else "a large number"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {
            str(_taken(name, longest, room)): _taken(part, longest, room)
            for name, part in value.items()
            if room.parts > 0
        }
    if isinstance(value, list | tuple):
        return [_taken(part, longest, room) for part in value if room.parts > 0]
    return value


def _shortened(text: str, longest: int, room: _Room) -> str:
    """As much of a text as there is room for, and how much that leaves out."""
    room.characters += len(text)
    length = max(0, min(longest, room.characters))
    room.characters -= length
    cut = _CUT.search(text)
    more = (cut.start() + int(cut[1]) if cut else len(text)) - length
    return f"{text[:length]}… ({more} characters more)"


def _without_halves(value: Any, longest: int) -> Any:
    """A redacted value whose texts do not end in half a secret, where they were cut before."""
    match value:
        case str() if cut := _CUT.search(value):
            return value[: max(0, cut.start() - longest - _LONGEST_TOKEN)] + cut[0]
        case list():
            return [_without_halves(part, longest) for part in value]
        case dict():
            return {name: _without_halves(part, longest) for name, part in value.items()}
        case _:
            return value
