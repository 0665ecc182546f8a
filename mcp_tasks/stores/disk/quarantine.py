"""What was set aside as broken: each thing in `quarantine/`, and beside it a note of what it was and why."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.stores.disk import durable

__all__ = ["QUARANTINE", "SetAside", "explain", "set_aside_in"]

QUARANTINE = "quarantine"
_NOTE = ".why"
_MOST_NOTE = 10_000
# What SQLite keeps beside a database is told of with it.
_BESIDE = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class SetAside:
    """One thing that lies there.

    Attributes:
        name: Of the file in `quarantine/`.
        original: Where it was, as a path below the state directory; None where no note is left.
        why: What was wrong with it.
    """

    name: str
    original: str | None = None
    why: str = ""

    def sentence(self) -> str:
        """What was set aside and why, for people."""
        if self.original is None:
            return f"{QUARANTINE}/{self.name} was set aside, and no reason is left"
        return f"{self.original} was set aside as {QUARANTINE}/{self.name}: {self.why}"


def explain(path: str, original: str, why: str) -> None:
    """Note beside what was set aside what it was and why; a convenience, so it never raises."""
    with suppress(StoreUnavailable):
        durable.write_durably(f"{path}{_NOTE}", f"{original}\n{why}\n".encode("utf-8", "replace"))


def set_aside_in(root: str | os.PathLike[str]) -> list[SetAside]:
    """Everything that lies in the quarantine of a state directory, oldest first. Raises StoreUnavailable."""
    folder = os.path.join(root, QUARANTINE)
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise durable.unavailable("reading the quarantine", error) from error
    there = frozenset(names)
    return [
        _described(folder, name)
        for name in names
        if not name.startswith(".") and not name.endswith(_NOTE) and not _is_beside(name, there)
    ]


def _is_beside(name: str, there: frozenset[str]) -> bool:
    return any(name.endswith(suffix) and name.removesuffix(suffix) in there for suffix in _BESIDE)


def _described(folder: str, name: str) -> SetAside:
    try:
        note = durable.read_private(f"{folder}/{name}{_NOTE}", _MOST_NOTE).decode("utf-8", "replace")
    except (OSError, StoreUnavailable, ValueError):
        return SetAside(name)
    original, _, why = note.strip().partition("\n")
    return SetAside(name, original, why)
