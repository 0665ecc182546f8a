"""When the last cleanup was, and what it and all before it did: `cleanup.json` of the state directory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mcp_tasks.stores.disk import durable

__all__ = ["CleanupRecord", "Counts", "read_record", "write_record"]

_FILE = "cleanup.json"
_MOST_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Counts:
    """What was done: sessions archived, journals folded, archives removed, half-done work finished."""

    archived: int = 0
    folded: int = 0
    removed: int = 0
    freed_bytes: int = 0
    recovered: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


@dataclass(frozen=True, slots=True)
class CleanupRecord:
    """Of all cleanups of a state directory. `last_at` is in ms since the epoch."""

    last_at: int
    took_ms: int = 0
    runs: int = 0
    last: Counts = Counts()
    total: Counts = Counts()

    def view(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)


def read_record(root: Path) -> CleanupRecord | None:
    """What is known of earlier cleanups; None where there was none, or nobody can tell."""
    try:
        data = json.loads(durable.read_private(root / _FILE, _MOST_BYTES))
        return CleanupRecord(
            last_at=int(data["last_at"]),
            took_ms=int(data["took_ms"]),
            runs=int(data["runs"]),
            last=Counts(**data["last"]),
            total=Counts(**data["total"]),
        )
    except (FileNotFoundError, durable.UnsafeFile, ValueError, KeyError, TypeError):
        return None


def write_record(root: Path, record: CleanupRecord) -> None:
    """Remember a cleanup durably. Raises StoreUnavailable."""
    durable.write_durably(root / _FILE, json.dumps(record.view()).encode())
