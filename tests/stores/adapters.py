"""The adapters whose records outlive a process, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mcp_tasks.ports import Store
from mcp_tasks.stores.json.store import JsonFileStore
from mcp_tasks.stores.sqlite.store import SqliteStore

LASTING: Mapping[str, Callable[[Path], Store]] = {"json": JsonFileStore, "sqlite": SqliteStore}
