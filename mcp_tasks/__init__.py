"""Commands that outlive the client, the call and the server that started them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_tasks.errors import TasksError
    from mcp_tasks.library import (
        BlockingTasks,
        RemoteTasks,
        Tasks,
        open_blocking_tasks,
        open_remote_tasks,
        open_tasks,
    )

__all__ = [
    "BlockingTasks",
    "RemoteTasks",
    "Tasks",
    "TasksError",
    "open_blocking_tasks",
    "open_remote_tasks",
    "open_tasks",
]


def __getattr__(name: str) -> Any:
    """Load the library when it is first used: the launcher imports this package and must stay small."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mcp_tasks import errors, library

    return getattr(errors if name == "TasksError" else library, name)
