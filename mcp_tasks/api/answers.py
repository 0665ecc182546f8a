"""What is in the answers of the HTTP API: the fields that are always there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["ALWAYS_THERE"]

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_LIST: Final[Schema] = {"type": "array"}

_TASK: Final[Mapping[str, Schema]] = {
    "task_id": _TEXT,
    "session": _TEXT,
    "state": {"enum": ["pending", "running", "completed", "failed", "cancelled", "lost"]},
    "elapsed_ms": _COUNT,
    "stdout_bytes": _COUNT,
    "stderr_bytes": _COUNT,
    "next_cursor": _TEXT,
}
_PLAN: Final[Mapping[str, Schema]] = {
    "plan_id": _TEXT,
    "session": _TEXT,
    "state": _TEXT,
    "total": _COUNT,
    "done": _COUNT,
    "elapsed_ms": _COUNT,
}
_SESSION: Final[Mapping[str, Schema]] = {"session": _TEXT, "state": _TEXT}
_CLEARED: Final[Mapping[str, Schema]] = {"cleared": _LIST, "freed_bytes": _COUNT}
_MESSAGE: Final[Mapping[str, Schema]] = {"session": _TEXT, "message": {"type": "object"}}
_MESSAGES: Final[Mapping[str, Schema]] = {"session": _TEXT, "messages": _LIST}
_FOLDED: Final[Mapping[str, Schema]] = {"session": _TEXT, "folded": _COUNT, "live": _COUNT}

ALWAYS_THERE: Final[Mapping[str, Mapping[str, Schema]]] = {
    "run_command": _TASK,
    "poll_task": _TASK,
    "get_result": _TASK,
    "send_input": _TASK,
    "cancel_task": _TASK,
    "list_tasks": {"tasks": _LIST, "counts": {"type": "object"}},
    "search_output": {"matches": _LIST, "more": {"type": "boolean"}, "scanned_bytes": _COUNT},
    "wait_tasks": {"done": _LIST, "open": _LIST, "wait_result": _TEXT},
    "delete_task": _CLEARED,
    "clear_task": _CLEARED,
    "run_plan": _PLAN,
    "plan_progress": _PLAN,
    "list_plans": {"plans": _LIST},
    "list_sessions": {"sessions": _LIST},
    "all_sessions": {"sessions": _LIST},
    "create_session": _SESSION,
    "session_info": _SESSION,
    "update_session": _SESSION,
    "extend_session": _SESSION,
    "end_session": _SESSION,
    "delete_session": {"deleted": _TEXT, "freed_bytes": _COUNT},
    "read_journal": _MESSAGES,
    "search_journal": _MESSAGES,
    "add_message": _MESSAGE,
    "get_message": _MESSAGE,
    "prune_journal": _FOLDED,
    "clear_history": _FOLDED,
    "import_journal": {"session": _TEXT, "imported": _COUNT, "skipped": _COUNT},
    "export_session": {"session": _TEXT, "text": _TEXT, "offset": _COUNT, "total_bytes": _COUNT},
    "server_info": {"version": _TEXT, "now": _TEXT, "owner": _TEXT, "role": _TEXT},
    "warm_projects": {"warmed": _LIST, "failed": _LIST},
    "clear_projects": {"cleared": _COUNT},
}
"""By operation, each with its schema. Answers are open: they may have more."""
