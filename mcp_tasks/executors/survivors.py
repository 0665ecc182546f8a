"""The processes that live under a run, for people to read. By name, so never what anything is decided by."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

__all__ = ["below", "marked"]


def below(supervisor: int) -> list[str]:
    """The living descendants of a supervisor, as `pid name`."""
    import psutil

    try:
        alive = psutil.Process(supervisor).children(recursive=True)
    except (psutil.Error, ValueError):
        return []
    return [named for process in alive if (named := _named(process))]


def marked(task_id: str) -> list[str]:
    """The living processes that carry the mark of a task in their environment, as `pid name`."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("MCP_TASKS_TASK") == task_id and (named := _named(process)):
                found.append(named)
    return found


def _named(process: psutil.Process) -> str:
    import psutil

    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.pid} {process.name()}"
    except psutil.Error:
        return ""
