"""What is told, in which words, and what it means that it could not be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import to_json

from mcp_tasks.clock import rfc3339
from mcp_tasks.hooks.armed import Notice
from mcp_tasks.models import HookEvent

__all__ = ["NotTold", "Telling"]

_HAPPENED: Final[Mapping[HookEvent, str]] = {
    "end": "has ended",
    "idle": "has printed nothing for a while",
    "deadline": "is near its time-out",
}


class NotTold(Exception):
    """One attempt failed.

    Attributes:
        reason: A few words without URL or command.
        final: Whether there is no point in trying again.
        patient: Whether it was not even tried, so that it may be tried as often as it takes.
        after_s: How long to wait at least, where the other side has said so.
    """

    def __init__(
        self, reason: str, *, final: bool = False, patient: bool = False, after_s: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final
        self.patient = patient
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Telling:
    """One thing to be told.

    Attributes:
        at: When it happened, in ms since the epoch.
        data: The view of the task, without its output.
    """

    message_id: str
    event: HookEvent
    at: int
    data: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, notice: Notice) -> Telling:
        """What a notice tells."""
        return cls(notice.notice_id, notice.event, notice.at, notice.data)

    @property
    def body(self) -> bytes:
        """As JSON; of one message always the same bytes."""
        return to_json({"type": f"task.{self.event}", "timestamp": rfc3339(self.at), "data": dict(self.data)})

    @property
    def title(self) -> str:
        """One short line for people."""
        name = str(self.data.get("label") or self.data.get("command") or "a task")
        state = str(self.data.get("state", "")) if self.event == "end" else _HAPPENED[self.event]
        return f"{' '.join(name.split())[:80]} {state or _HAPPENED[self.event]}"

    @property
    def detail(self) -> str:
        """One more line for people."""
        end = [
            f"{name.replace('_', ' ')} {self.data[name]}"
            for name in ("exit_code", "signal")
            if name in self.data
        ]
        return ", ".join([*end, f"task {self.data.get('task_id', '')}"])

    @property
    def variables(self) -> dict[str, str]:
        """The same for the environment of a command; what is not known is empty."""
        told = {name: self.data.get(name) for name in ("session", "label", "state", "outcome", "exit_code")}
        return {
            "MCP_TASK_EVENT": self.event,
            "MCP_TASK_ID": str(self.data.get("task_id", "")),
            "MCP_TASK_MESSAGE_ID": self.message_id,
            **{
                f"MCP_TASK_{name.upper()}": "" if value is None else str(value)
                for name, value in told.items()
            },
        }
