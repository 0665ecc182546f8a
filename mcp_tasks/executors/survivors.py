"""The processes that live under a run, for people to read. By name, so never what anything is decided by."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

__all__ = ["below", "end", "marked", "marks"]

_PAUSE_S = 0.02


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


def marks() -> frozenset[str]:
    """The ids of all tasks of which any process lives, from one look at all processes."""
    import psutil

    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if (task_id := process.environ().get("MCP_TASKS_TASK")) and _named(process):
                found.add(task_id)
    return frozenset(found)


def end(task_id: str, seconds: float) -> list[str]:
    """Kill the processes that carry the mark of a task; returns those that are left after `seconds`."""
    import psutil

    deadline = time.monotonic() + seconds
    while True:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("MCP_TASKS_TASK") == task_id:
                    # psutil looks once more whether it is still the same process.
                    process.kill()
        if not (left := marked(task_id)) or time.monotonic() >= deadline:
            return left
        time.sleep(_PAUSE_S)


def _named(process: psutil.Process) -> str:
    import psutil

    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.pid} {process.name()}"
    except psutil.Error:
        return ""
