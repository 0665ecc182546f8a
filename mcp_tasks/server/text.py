"""The text content beside the structured content: one status line, then the output.

Some clients feed the model only the text, some only the structure, so the text says everything that
an agent needs to go on: ids, state, how it ended, what was left out, and where to read on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from mcp_tasks.server import session_text
from mcp_tasks.server.phrases import count, duration, fitting, line, several

__all__ = ["MAX_BASE64", "render"]

MAX_BASE64: Final = 16_384
"""Longer base64 is in the structured content only; no model reads it."""
_ENCODED: Final = 12_000  # bytes whose base64 is short enough
_CHANGES: Final = 20  # of a task's history

_STREAMS: Final = ("stdout", "stderr")


def render(tool: str, view: Mapping[str, Any], *, base64: bool = False) -> str:
    """Tell an answer in words.

    Args:
        tool: Name of the tool that answers.
        view: Its structured content.
        base64: Whether `stdout` and `stderr` of the view are base64.
    """
    match tool:
        case "list_tasks":
            return _listing(view)
        case "clear_task":
            return _cleared(view)
        case "wait_tasks":
            return _waited(view)
        case "search_output":
            return _found(view)
        case _ if tool in session_text.TOOLS:
            return session_text.render(tool, view)
        case _ if "tasks" in view:
            tasks = map(_whole, view["tasks"])
            return fitting([], tasks, [], "tasks; poll_task tells of each") or "no tasks"
        case _:
            return _task(view, base64=base64)


def _task(view: Mapping[str, Any], *, base64: bool) -> str:
    lines = [*_remarks(view), *_record(view), *_output(view, base64=base64)]
    status = _status(view)
    following = view.get("next")
    if following and not lines:
        return f"{status}; next: {line(following)}"
    if following:
        lines.append(f"next: {line(following)}")
    return "\n".join([status, *lines])


def _status(view: Mapping[str, Any]) -> str:
    parts = [f"{_state(view)}: task {view.get('task_id', '?')}", *_identity(view)]
    if "elapsed_ms" in view:
        parts.append(duration(view["elapsed_ms"]))
    parts += [f"{stream} {view[f'{stream}_bytes']} B" for stream in _STREAMS if f"{stream}_bytes" in view]
    if "idle_ms" in view:
        parts.append(f"idle {duration(view['idle_ms'])}")
    if queue := view.get("queue"):
        parts.append(_queue(queue))
    parts += _wait(view)
    if view.get("truncated"):
        parts.append(f"{view.get('omitted_bytes', 0)} B before this left out")
    if view.get("more"):
        parts.append("more output is there")
    parts += _cursor(view)
    return ", ".join(parts)


def _cursor(view: Mapping[str, Any]) -> list[str]:
    """Where to read on, unless there is nothing, or `next` says it."""
    cursor = view.get("next_cursor")
    goes_on = view.get("more") or view.get("state") in ("pending", "running")
    return [f"next_cursor {cursor}"] if cursor and goes_on and cursor not in view.get("next", "") else []


def _identity(view: Mapping[str, Any]) -> list[str]:
    parts = [f"session {view['session']}"] if view.get("session") else []
    if label := view.get("label"):
        parts.append(f"label {line(label)}")
    if view.get("run", 1) != 1:
        parts.append(f"run {view['run']}")
    if view.get("reused"):
        parts.append("reused")
    return parts


def _state(view: Mapping[str, Any]) -> str:
    state = str(view.get("state", "unknown"))
    how = [view["outcome"]] if view.get("outcome") not in (None, state) else []
    if view.get("exit_code") is not None:
        how.append(f"exit code {view['exit_code']}")
    if view.get("signal"):
        how.append(str(view["signal"]))
    return f"{state} ({', '.join(how)})" if how else state


def _queue(queue: Mapping[str, Any]) -> str:
    said = f"position {queue['position']} in the queue" if "position" in queue else "queued"
    waiting = queue.get("waiting_for")
    if not waiting:
        return said
    return f"{said}, waiting for {line(waiting if isinstance(waiting, str) else ' '.join(map(str, waiting)))}"


def _wait(view: Mapping[str, Any]) -> list[str]:
    result = view.get("wait_result")
    if result in (None, "none"):
        return []
    said = f"wait ended by {result}"
    if "waited_ms" in view:
        said += f" after {duration(view['waited_ms'])}"
    if view.get("max_wait_ms"):
        said += f" (a wait is {duration(view['max_wait_ms'])} at most)"
    return [said]


def _remarks(view: Mapping[str, Any]) -> list[str]:
    lines = []
    if error := view.get("error"):
        lines.append(_error(error))
    if warning := view.get("warning"):
        lines.append(f"warning: {line(warning)}")
    if found := view.get("match"):
        number = "" if found.get("line") is None else f" line {found['line']},"
        place = f"match: {found.get('stream')}{number} byte {found.get('offset')}"
        lines.append(f"{place}: {line(found['text'])}" if found.get("text") else place)
    for stream, (start, end) in (view.get("gap") or {}).items():
        lines.append(f"gap: {stream} bytes {start} to {end} are left out")
    return lines


def _error(error: Mapping[str, Any]) -> str:
    said = f"error: {error.get('code')}: {line(error.get('message', ''))}"
    return f"{said}. {line(error['hint'])}" if error.get("hint") else said


def _record(view: Mapping[str, Any]) -> list[str]:
    lines = []
    if "command" in view:
        lines.append(f"command: {line(view['command'])}")
    if "cwd" in view:
        lines.append(f"cwd: {line(view['cwd'])}")
    moments = [
        f"{name.removesuffix('_at').replace('_', ' ')} {view[name]}"
        for name in ("created_at", "started_at", "ended_at", "last_output_at")
        if view.get(name)
    ]
    if moments:
        lines.append(", ".join(moments))
    if history := view.get("history"):
        earlier = [f"{len(history) - _CHANGES} earlier changes"] if len(history) > _CHANGES else []
        changes = [f"{each['state']} {each['at']} ({line(each['reason'])})" for each in history[-_CHANGES:]]
        lines.append(f"history: {'; '.join([*earlier, *changes])}")
    return lines


def _output(view: Mapping[str, Any], *, base64: bool) -> list[str]:
    lines = []
    for stream in _STREAMS:
        content = view.get(stream)
        if not content:
            continue
        start, end = (view.get("shown") or {}).get(stream) or (None, None)
        head = f"--- {stream}" if start is None else f"--- {stream} {start}-{end}"
        if base64:
            head += " base64"
            if len(content) > MAX_BASE64:
                lines.append(
                    f"{head}: {len(content)} characters, in the structured content only; "
                    f"give limit: {_ENCODED} to have it in the text"
                )
                continue
        lines += [head, content.removesuffix("\n")]
    return lines


def _listing(view: Mapping[str, Any]) -> str:
    tasks = view.get("tasks", [])
    counts = ", ".join(f"{number} {state}" for state, number in view.get("counts", {}).items() if number)
    status = f"{count(tasks, 'task')} shown; in all {counts}" if counts else "no tasks"
    return fitting(
        [status], map(_entry, tasks), _reading_on(view), "tasks of this page; give a smaller limit"
    )


def _entry(task: Mapping[str, Any]) -> str:
    parts = [str(task.get("task_id")), _state(task)]
    if "elapsed_ms" in task:
        parts.append(duration(task["elapsed_ms"]))
    if created := task.get("created_at"):
        parts.append(str(created))
    if label := task.get("label"):
        parts.append(f"[{line(label)}]")
    if "command" in task:
        parts.append(f"$ {line(task['command'])[:200]}")
    return "  ".join(parts)


def _cleared(view: Mapping[str, Any]) -> str:
    cleared = view.get("cleared", [])
    status = f"cleared {count(cleared, 'task')}, freed {view.get('freed_bytes', 0)} B"
    lines = [f"{status}: {several(cleared)}" if cleared else status]
    if warning := view.get("warning"):
        lines.append(f"warning: {line(warning)}")
    return "\n".join(lines)


def _waited(view: Mapping[str, Any]) -> str:
    done, waiting = view.get("done", []), view.get("open", [])
    status = ", ".join([f"{len(done)} done", f"{len(waiting)} open", *_wait(view)])
    closing = [f"open: {several(waiting)}"] if waiting else []
    if following := view.get("next"):
        closing.append(f"next: {line(following)}")
    return fitting([status], map(_whole, done), closing, "done tasks; poll_task tells of each")


def _found(view: Mapping[str, Any]) -> str:
    matches = view.get("matches", [])
    status = f"{count(matches, 'match', 'matches')} in {view.get('scanned_bytes', 0)} B"
    if view.get("more"):
        status += ", more to search"
    closing = [f"warning: {line(view['warning'])}"] if view.get("warning") else []
    closing += _reading_on(view)
    return fitting(
        [status], _matches(matches), closing, "matches of this page; give a smaller limit or context"
    )


def _matches(matches: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    named = None
    for found in matches:
        lines = []
        if found.get("task_id") != named:
            named = found.get("task_id")
            lines.append(f"task {named}")
        number = "" if found.get("line") is None else f":{found['line']}"
        lines += _around(found.get("before", ()))
        lines.append(f"{found.get('stream')}{number} (byte {found.get('offset')}): {found.get('text', '')}")
        lines += _around(found.get("after", ()))
        yield "\n".join(lines)


def _around(context: Iterable[Any]) -> list[str]:
    return [f"    {line.get('text', '') if isinstance(line, Mapping) else line}" for line in context]


def _reading_on(view: Mapping[str, Any]) -> list[str]:
    cursor = view.get("next_cursor")
    return [f"next_cursor {cursor}"] if cursor else []


def _whole(task: Mapping[str, Any]) -> str:
    return _task(task, base64=False)
