"""The text content beside the structured content: one status line, then the output.

Some clients feed the model only the text, some only the structure, so the text says everything that
an agent needs to go on: ids, state, how it ended, what was left out, and where to read on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["MAX_BASE64", "render"]

MAX_BASE64: Final = 16_384
"""Longer base64 is in the structured content only; no model reads it."""

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
        case _ if "tasks" in view:
            return "\n".join(_task(task, base64=False) for task in view["tasks"]) or "no tasks"
        case _:
            return _task(view, base64=base64)


def _task(view: Mapping[str, Any], *, base64: bool) -> str:
    lines = [*_remarks(view), *_record(view), *_output(view, base64=base64)]
    status = _status(view)
    following = view.get("next")
    if following and not lines:
        return f"{status}; next: {_line(following)}"
    if following:
        lines.append(f"next: {_line(following)}")
    return "\n".join([status, *lines])


def _status(view: Mapping[str, Any]) -> str:
    parts = [f"{_state(view)}: task {view.get('task_id', '?')}", *_identity(view)]
    if "elapsed_ms" in view:
        parts.append(_duration(view["elapsed_ms"]))
    parts += [f"{stream} {view[f'{stream}_bytes']} B" for stream in _STREAMS if f"{stream}_bytes" in view]
    if "idle_ms" in view:
        parts.append(f"idle {_duration(view['idle_ms'])}")
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
        parts.append(f"label {_line(label)}")
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
    return (
        f"{said}, waiting for {_line(waiting if isinstance(waiting, str) else ' '.join(map(str, waiting)))}"
    )


def _wait(view: Mapping[str, Any]) -> list[str]:
    result = view.get("wait_result")
    if result in (None, "none"):
        return []
    said = f"wait ended by {result}"
    if "waited_ms" in view:
        said += f" after {_duration(view['waited_ms'])}"
    if view.get("max_wait_ms"):
        said += f" (a wait is {_duration(view['max_wait_ms'])} at most)"
    return [said]


def _remarks(view: Mapping[str, Any]) -> list[str]:
    lines = []
    if error := view.get("error"):
        lines.append(_error(error))
    if warning := view.get("warning"):
        lines.append(f"warning: {_line(warning)}")
    if found := view.get("match"):
        place = f"match: {found.get('stream')} line {found.get('line')}, byte {found.get('offset')}"
        lines.append(f"{place}: {_line(found['text'])}" if found.get("text") else place)
    for stream, (start, end) in (view.get("gap") or {}).items():
        lines.append(f"gap: {stream} bytes {start} to {end} are left out")
    return lines


def _error(error: Mapping[str, Any]) -> str:
    said = f"error: {error.get('code')}: {_line(error.get('message', ''))}"
    return f"{said}. {_line(error['hint'])}" if error.get("hint") else said


def _record(view: Mapping[str, Any]) -> list[str]:
    lines = []
    if "command" in view:
        lines.append(f"command: {_line(view['command'])}")
    if "cwd" in view:
        lines.append(f"cwd: {_line(view['cwd'])}")
    moments = [
        f"{name.removesuffix('_at').replace('_', ' ')} {view[name]}"
        for name in ("created_at", "started_at", "ended_at", "last_output_at")
        if view.get(name)
    ]
    if moments:
        lines.append(", ".join(moments))
    if history := view.get("history"):
        changes = (f"{change['state']} {change['at']} ({_line(change['reason'])})" for change in history)
        lines.append(f"history: {'; '.join(changes)}")
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
                lines.append(f"{head}: {len(content)} characters, in the structured content only")
                continue
        lines += [head, content.removesuffix("\n")]
    return lines


def _listing(view: Mapping[str, Any]) -> str:
    tasks = view.get("tasks", [])
    counts = ", ".join(f"{number} {state}" for state, number in view.get("counts", {}).items() if number)
    lines = [f"{_count(tasks, 'task')} shown; in all {counts}" if counts else "no tasks"]
    lines += [_entry(task) for task in tasks]
    return "\n".join(lines + _reading_on(view))


def _entry(task: Mapping[str, Any]) -> str:
    parts = [str(task.get("task_id")), _state(task)]
    if "elapsed_ms" in task:
        parts.append(_duration(task["elapsed_ms"]))
    if created := task.get("created_at"):
        parts.append(str(created))
    if label := task.get("label"):
        parts.append(f"[{_line(label)}]")
    if "command" in task:
        parts.append(f"$ {_line(task['command'])[:200]}")
    return "  ".join(parts)


def _cleared(view: Mapping[str, Any]) -> str:
    cleared = view.get("cleared", [])
    status = f"cleared {_count(cleared, 'task')}, freed {view.get('freed_bytes', 0)} B"
    lines = [f"{status}: {' '.join(cleared)}" if cleared else status]
    if warning := view.get("warning"):
        lines.append(f"warning: {_line(warning)}")
    return "\n".join(lines)


def _waited(view: Mapping[str, Any]) -> str:
    done, waiting = view.get("done", []), view.get("open", [])
    lines = [", ".join([f"{len(done)} done", f"{len(waiting)} open", *_wait(view)])]
    lines += [_task(task, base64=False) for task in done]
    if waiting:
        lines.append(f"open: {' '.join(waiting)}")
    if following := view.get("next"):
        lines.append(f"next: {_line(following)}")
    return "\n".join(lines)


def _found(view: Mapping[str, Any]) -> str:
    matches = view.get("matches", [])
    status = f"{_count(matches, 'match', 'matches')} in {view.get('scanned_bytes', 0)} B"
    if view.get("more"):
        status += ", more to search"
    lines = [status]
    named = None
    for found in matches:
        if found.get("task_id") != named:
            named = found.get("task_id")
            lines.append(f"task {named}")
        place = f"{found.get('stream')}:{found.get('line')} (byte {found.get('offset')})"
        lines += _around(found.get("before", ()))
        lines.append(f"{place}: {found.get('text', '')}")
        lines += _around(found.get("after", ()))
    if warning := view.get("warning"):
        lines.append(f"warning: {_line(warning)}")
    return "\n".join(lines + _reading_on(view))


def _around(context: Iterable[Any]) -> list[str]:
    return [f"    {line.get('text', '') if isinstance(line, Mapping) else line}" for line in context]


def _reading_on(view: Mapping[str, Any]) -> list[str]:
    cursor = view.get("next_cursor")
    return [f"next_cursor {cursor}"] if cursor else []


def _count(things: list[Any], one: str, many: str = "") -> str:
    return f"{len(things)} {one if len(things) == 1 else many or f'{one}s'}"


def _line(value: object) -> str:
    """Any text as one line."""
    return " ".join(str(value).split())


def _duration(ms: int) -> str:
    if ms < 1_000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms / 1_000:.1f} s"
    minutes, seconds = divmod(ms // 1_000, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"
