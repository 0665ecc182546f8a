"""Old messages made small: many become one compressed body and one message that sums them up."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from mcp_tasks.clock import rfc3339
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import Message
from mcp_tasks.stores.journal.schema import Row

__all__ = ["AtRest", "Summary", "pack", "unpack"]

_MOST_TASKS = 50
_MOST_BEGINNINGS = 12
_BEGINNING = 80
_SPOKEN = ("user", "assistant", "system")


@dataclass(frozen=True, slots=True)
class AtRest:
    """A message as its row has it, sealed or not, with the texts before its edits: moment and text."""

    row: Row
    versions: tuple[tuple[int, str], ...] = ()


def pack(messages: Iterable[AtRest]) -> bytes:
    """Make one body of many messages."""
    return zlib.compress(to_json([[*message.row, message.versions] for message in messages]), 6)


def unpack(body: bytes) -> list[AtRest]:
    """Get the messages back. Raises StoreUnavailable where the body is damaged."""
    try:
        rows = from_json(zlib.decompress(body))
        return [AtRest(tuple(row), tuple((at, text) for at, text in versions)) for *row, versions in rows]
    except (zlib.error, ValueError, TypeError) as error:
        raise StoreUnavailable("folded messages of this journal are damaged", "see `doctor`") from error


@dataclass(frozen=True, slots=True)
class Summary:
    """What is told of folded messages.

    Attributes:
        tasks: The first ones that are named, and in `more_tasks` how many others may be.
        beginnings: First words of what was said, from the oldest on.
    """

    roles: Mapping[str, int]
    since: int
    until: int
    tasks: tuple[str, ...] = ()
    more_tasks: int = 0
    beginnings: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Summary:
        """Sum up some messages, at least one."""
        tasks = list(dict.fromkeys(message.task_id for message in messages if message.task_id))
        said = [_beginning(message.text) for message in messages if message.role in _SPOKEN]
        return cls(
            dict(Counter(message.role for message in messages)),
            min(message.at for message in messages),
            max(message.at for message in messages),
            tuple(tasks[:_MOST_TASKS]),
            len(tasks[_MOST_TASKS:]),
            tuple(said[:_MOST_BEGINNINGS]),
        )

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Summary:
        """The summary that a message of the role `summary` has as its data."""
        return cls(
            dict(data["roles"]),
            data["since"],
            data["until"],
            tuple(data.get("tasks", ())),
            data.get("more_tasks", 0),
            tuple(data.get("beginnings", ())),
        )

    def merged(self, later: Summary) -> Summary:
        """One summary for this one and the one after it."""
        tasks = list(dict.fromkeys((*self.tasks, *later.tasks)))
        said = (*self.beginnings, *later.beginnings)
        if len(said) > _MOST_BEGINNINGS:  # something of each time, not the oldest alone
            said = tuple(said[at * len(said) // _MOST_BEGINNINGS] for at in range(_MOST_BEGINNINGS))
        return Summary(
            dict(Counter(self.roles) + Counter(later.roles)),
            min(self.since, later.since),
            max(self.until, later.until),
            tuple(tasks[:_MOST_TASKS]),
            self.more_tasks + later.more_tasks + len(tasks[_MOST_TASKS:]),
            said,
        )

    @property
    def data(self) -> dict[str, Any]:
        """For the message; `read` takes it back."""
        return {
            "folded": sum(self.roles.values()),
            "roles": dict(self.roles),
            "since": self.since,
            "until": self.until,
            "tasks": list(self.tasks),
            "more_tasks": self.more_tasks,
            "beginnings": list(self.beginnings),
        }

    @property
    def text(self) -> str:
        """The same for people and models."""
        counts = ", ".join(f"{count} {role}" for role, count in sorted(self.roles.items()))
        lines = [
            f"{sum(self.roles.values())} older messages ({counts}), folded:",
            f"from {rfc3339(self.since)} to {rfc3339(self.until)}.",
        ]
        if self.tasks:
            more = f" and {self.more_tasks} more" if self.more_tasks else ""
            lines.append(f"Tasks: {', '.join(self.tasks)}{more}.")
        lines += [f"- {beginning}" for beginning in self.beginnings]
        return "\n".join(lines)


def _beginning(text: str) -> str:
    line = " ".join(text[: 4 * _BEGINNING].split())
    return line if len(line) <= _BEGINNING else f"{line[: _BEGINNING - 1]}…"
