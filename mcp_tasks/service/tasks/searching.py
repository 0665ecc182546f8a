"""Searching the output of several tasks, page by page, one after another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.models import TASK_ID, Task
from mcp_tasks.output import RunOutput
from mcp_tasks.output.search import BUDGET, Hit, Position, compile_pattern, search_run
from mcp_tasks.ports import Store
from mcp_tasks.requests import SearchOutput

__all__ = ["search_tasks"]

_SEPARATOR = "~"


def search_tasks(
    store: Store, tasks: Sequence[Task], request: SearchOutput, seconds: float
) -> dict[str, Any]:
    """Answer search_output over `tasks`, in their order, within `seconds`. Blocking.

    The cursor names the task where the search goes on, and the position in its output.
    """
    pattern = compile_pattern(request.pattern, request.ignore_case)
    deadline = time.monotonic() + seconds
    first, position = _parse(request.cursor)
    if first is not None:
        tasks = _from(tasks, first, request.order)
    matches: list[dict[str, Any]] = []
    scanned = length = 0
    for index, task in enumerate(tasks):
        if len(matches) >= request.limit or (index and time.monotonic() >= deadline):
            return _answer(matches, scanned, task.key.task_id + _SEPARATOR)
        page = search_run(
            RunOutput(store.run_folder(task.key, task.begun)),
            pattern,
            stream=None if request.stream == "both" else request.stream,
            order=request.order,
            context=request.context,
            limit=request.limit - len(matches),
            start=position if task.key.task_id == first else None,
            budget=BUDGET - length,
            deadline=deadline,
        )
        scanned += page.scanned_bytes
        length += page.length
        matches += [_fields(task, hit) for hit in page.matches]
        if page.next is not None:
            return _answer(matches, scanned, f"{task.key.task_id}{_SEPARATOR}{page.next.encode()}")
    return _answer(matches, scanned, None)


def _from(tasks: Sequence[Task], first: str, order: str) -> list[Task]:
    """What is left to search; the task that the cursor names may have been cleared meanwhile."""
    if order == "newest":
        return [task for task in tasks if task.key.task_id <= first]
    return [task for task in tasks if task.key.task_id >= first]


def _parse(cursor: str | None) -> tuple[str | None, Position | None]:
    if cursor is None:
        return None, None
    task_id, separator, position = cursor.partition(_SEPARATOR)
    if not separator or not TASK_ID.fullmatch(task_id):
        raise InvalidArgument(
            "cursor is not one that search_output gave", "give next_cursor exactly as it was"
        )
    return task_id, Position.parse(position) if position else None


def _answer(matches: list[dict[str, Any]], scanned: int, cursor: str | None) -> dict[str, Any]:
    answer: dict[str, Any] = {"matches": matches, "more": cursor is not None, "scanned_bytes": scanned}
    return answer if cursor is None else {**answer, "next_cursor": cursor}


def _fields(task: Task, hit: Hit) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "task_id": task.key.task_id,
        "stream": hit.stream,
        **({} if hit.line is None else {"line": hit.line}),
        "offset": hit.offset,
        "text": hit.text,
    }
    if hit.before or hit.after:
        fields |= {"before": list(hit.before), "after": list(hit.after)}
    return fields
