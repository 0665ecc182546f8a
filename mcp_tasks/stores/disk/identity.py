"""Which adapter a state directory belongs to: as `store.json` says, and where that is lost, its records."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["MARKS", "adapter_by_records", "read_identity"]

MARKS = {"json": "active", "sqlite": "records.db"}
"""What only a directory of the adapter has."""


def read_identity(data: bytes) -> dict[str, Any]:
    """What `store.json` says. Raises ValueError."""
    identity = json.loads(data)
    if not isinstance(identity, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 (as broken JSON does)
    schema = identity.get("schema")
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise ValueError("schema: not a positive integer")
    if not isinstance(identity.get("adapter"), str):
        raise ValueError("adapter: not a string")  # noqa: TRY004 (as broken JSON does)
    return identity


def adapter_by_records(root: str | os.PathLike[str]) -> str | None:
    """The adapter whose records lie in a directory without `store.json`; None where none is clearly ours."""
    sessions = Path(root, "sessions")
    if not sessions.is_dir() or sessions.is_symlink():
        return None
    marked = [adapter for adapter, mark in MARKS.items() if os.path.lexists(Path(root, mark))]
    if marked == ["json"]:
        return "json" if next(_records(sessions), None) is not None else None
    return "sqlite" if marked == ["sqlite"] else None


def _records(sessions: Path) -> Iterator[Path]:
    yield from sessions.glob("*/*/session.json")
    yield from sessions.glob("*/*/tasks/*.json")
