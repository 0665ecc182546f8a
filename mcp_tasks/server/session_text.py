"""The text content of the answers about sessions, plans, journals and projects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from mcp_tasks.server.phrases import MAX_TEXT, clipped, count, duration, fitting, line, several

__all__ = ["TOOLS", "render"]

_View = Mapping[str, Any]

_LONGEST = 8_000  # of one message among several, in characters of JSON
_DETAIL = 2_000  # of what belongs to a thing and is no text for people


def render(tool: str, view: _View) -> str:
    """Tell the answer of one of `TOOLS` in words."""
    return _RENDERERS[tool](view)


def _session(view: _View) -> str:
    parts = [f"{view.get('state', 'open')}: session {view.get('session')}"]
    if "title" in view:
        parts.append(_short(view["title"], 500))
    parts += [
        f"{word} {view[name]}"
        for name, word in (("revision", "revision"), ("created_at", "created"), ("active_at", "active"))
        if name in view
    ]
    if "idle_ms" in view:
        parts.append(f"idle {duration(view['idle_ms'])}")
    if "expires_at" in view:
        parts.append(f"expires {view['expires_at']}")
    return fitting(
        [", ".join(parts)], _of_session(view), _next(view), "lines; the structured content has them"
    )


def _of_session(view: _View) -> Iterator[str]:
    if "closed_at" in view:
        yield f"closed {view['closed_at']}: {_short(view.get('reason', ''), 500)}"
    if workspace := view.get("workspace"):
        yield f"workspace: {'; '.join(_workspace(workspace))}"
    if "tasks" in view:
        yield f"tasks: {_numbers(view['tasks']) or 'none'}"
    if journal := view.get("journal"):
        yield f"journal: {', '.join(f'{name} {value}' for name, value in journal.items())}"
    if in_memory := view.get("in_memory"):
        held = ", ".join(f"{name} {value}" for name, value in in_memory.items())
        yield f"in memory, of all sessions, until this server ends: {held}"
    if share := view.get("share"):
        yield f"new {_share(share)}, token {share.get('token')} (told this once)"
    if cancelled := view.get("cancelled"):
        yield f"cancelled: {several(cancelled)}"
    if "archive" in view:
        yield f"archive: {view['archive']}"
    if warning := view.get("warning"):
        yield f"warning: {line(warning)}"
    yield from (f"recently: $ {_short(command, 200)}" for command in view.get("recent_commands", ()))
    yield from (_plan_entry(plan) for plan in view.get("plans", ()))
    yield from (_connection(connection) for connection in view.get("connections", ()))
    yield from (_share(share) for share in view.get("shares", ()))
    yield from (
        f"hook: {hook.get('kind')} on {several(hook.get('on', ()))}" for hook in view.get("hooks", ())
    )


def _workspace(workspace: _View) -> Iterator[str]:
    for name in ("cwd", "shell"):
        if name in workspace:
            yield f"{name} {line(workspace[name])}"
    if env := workspace.get("env"):
        yield f"env {several(env)}"
    if preferences := workspace.get("preferences"):
        yield f"preferences {_json(preferences)}"


def _plan_entry(plan: _View) -> str:
    return "  ".join([f"plan {plan.get('plan_id')}", *_said(plan, "created_at"), *_named(plan)])


def _connection(connection: _View) -> str:
    who = " ".join(_said(connection, "client", "version")) or "a client"
    began, seen, ended = (connection.get(name) for name in ("began_at", "seen_at", "ended_at"))
    parts = [f"connection: {line(who)} over {connection.get('transport', 'stdio')}", f"since {began}"]
    parts.append(f"{connection.get('ended', 'ended')} {ended}" if ended else f"last seen {seen}")
    return ", ".join(parts)


def _share(share: _View) -> str:
    until = f", until {share['expires_at']}" if "expires_at" in share else ""
    return f"share {share.get('share_id')}: {share.get('role')}{until}"


def _sessions(view: _View) -> str:
    sessions = view.get("sessions", [])
    numbers = _numbers(view.get("counts", {}))
    status = f"{count(sessions, 'session')} shown; in all {numbers}" if numbers else "no sessions"
    closing = [*_reading_on(view), *_next(view)]
    return fitting([status], map(_session_entry, sessions), closing, "sessions; give a smaller limit")


def _session_entry(session: _View) -> str:
    parts = [str(session.get("session")), str(session.get("state")), *_said(session, "active_at")]
    if numbers := _numbers(session.get("tasks", {})):
        parts.append(f"tasks: {numbers}")
    if "title" in session:
        parts.append(f"[{_short(session['title'], 200)}]")
    return "  ".join(parts)


def _plan(view: _View) -> str:
    parts = [f"{view.get('state')}: plan {view.get('plan_id')}", *_named(view)]
    parts += [f"session {view['session']}"] if "session" in view else []
    numbers = _numbers(view.get("counts", {}))
    parts.append(f"{view.get('done', 0)} of {view.get('total', 0)} done{f' ({numbers})' if numbers else ''}")
    if "elapsed_ms" in view:
        parts.append(duration(view["elapsed_ms"]))
    parts += ["reused"] if view.get("reused") else []
    parts += [f"created {view['created_at']}"] if "created_at" in view else []
    if "max_wait_ms" in view:
        parts.append(f"a wait is {duration(view['max_wait_ms'])} at most")
    if view.get("more"):
        parts.append("more steps than these")
    opening = [", ".join(parts)]
    if warning := view.get("warning"):
        opening.append(f"warning: {line(warning)}")
    rest = "steps; list_tasks finds each"
    return fitting(opening, _steps(view), _next(view), rest)


def _steps(view: _View) -> Iterator[str]:
    for number, task in enumerate(view.get("tasks", ()), 1):
        yield f"{number}. {_step(task)}"
    for task in view.get("failed", ()):
        yield f"failed: {_step(task)}"
    for task in view.get("current", ()):
        yield f"now: {_step(task)}"


def _step(task: _View) -> str:
    state = str(task.get("outcome") or task.get("state") or "")
    if "exit_code" in task:
        state += f" (exit code {task['exit_code']})"
    parts = [str(task.get("task_id")), state.strip()]
    if label := task.get("label") or task.get("name"):
        parts.append(f"[{_short(label, 200)}]")
    if after := task.get("after"):
        parts.append(f"after {several([str(one) for one in after])}")
    if "command" in task:
        parts.append(f"$ {_short(task['command'], 200)}")
    return "  ".join(part for part in parts if part)


def _added(view: _View) -> str:
    message = view.get("message", {})
    done = "edited" if "edited_at" in message else "added"
    return fitting([f"{done}, session {view.get('session')}"], [_message(message, _LONGEST)], _next(view), "")


def _messages(view: _View) -> str:
    messages = view.get("messages", [])
    status = f"{count(messages, 'message')}, session {view.get('session')}"
    room = max(_LONGEST, (MAX_TEXT - 2_000) // max(1, len(messages)))
    entries = (_message(message, room) for message in messages)
    return fitting(
        [status], entries, [*_reading_on(view), *_next(view)], "messages of this page; give a smaller limit"
    )


def _message(message: _View, room: int) -> str:
    head = (
        f"#{message.get('seq', '?')} {message.get('role')} {message.get('at')} id {message.get('message_id')}"
    )
    for name, word in (("task_id", "task"), ("parent", "answers"), ("edited_at", "edited")):
        if message.get(name):
            head += f", {word} {message[name]}"
    text, left_out = clipped(str(message.get("text", "")), room)
    left_out += message.get("omitted_characters", 0)
    if left_out:
        text += f"… ({left_out} characters more; export_session has all)"
    data = message.get("data")
    return "\n".join([f"{head}:", text, *([f"data: {_json(data)}"] if data else [])])


def _export(view: _View) -> str:
    offset = int(view.get("offset", 0))
    whole = str(view.get("text", ""))
    text, left_out = clipped(whole, MAX_TEXT - 1_000)
    end = offset + len(text.encode("utf-8", "surrogatepass"))
    status = (
        f"{view.get('format')} export of session {view.get('session')}:"
        f" bytes {offset} to {end} of {view.get('total_bytes', end)}"
    )
    closing = [f"more: give offset {end}"] if left_out or view.get("more") else []
    return "\n".join([status, text, *closing])


def _project(view: _View) -> str:
    parts = [f"project {line(view.get('root'))}"]
    if view.get("cwd") not in (None, view.get("root")):
        parts.append(f"cwd {line(view['cwd'])}")
    parts.append(f"checked {view.get('checked_at')}{' (cached)' if view.get('cached') else ''}")
    return fitting(
        [", ".join(parts)], _of_project(view), _next(view), "lines; the structured content has them"
    )


def _of_project(view: _View) -> Iterator[str]:
    if vcs := view.get("vcs"):
        said = [f"{name} {line(value)}" for name, value in vcs.items() if name != "kind"]
        yield f"{vcs.get('kind')}: {', '.join(said)}" if said else str(vcs.get("kind"))
    if languages := view.get("languages"):
        yield f"languages: {_numbered(languages)}"
    for what in ("build", "test"):
        for each in view.get(what, ()):
            place = f", in {line(each['cwd'])}" if "cwd" in each else ""
            yield f"{what}: {_short(each['command'], 500)}  (from {line(each.get('from'))}{place})"
    if manifests := view.get("manifests"):
        yield f"manifests: {several(manifests)}"
    if given := view.get("set"):
        yield f"set: {_json(given)}"
    yield from (f"changed: {line(change)}" for change in view.get("changes", ()))
    if "since" in view:
        yield f"last look {view['since']}"
    yield from (f"problem: {line(problem)}" for problem in view.get("problems", ()))
    if cache := view.get("cache"):
        yield f"cache: {', '.join(f'{name} {value}' for name, value in cache.items())}"


def _numbered(languages: Sequence[_View]) -> str:
    return ", ".join(f"{each['name']} ({count(range(each['files']), 'file')})" for each in languages)


def _named(view: _View) -> list[str]:
    return [f"[{_short(view['name'], 200)}]"] if view.get("name") else []


def _said(view: _View, *names: str) -> list[str]:
    return [str(view[name]) for name in names if view.get(name)]


def _numbers(counts: _View) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number)


def _next(view: _View) -> list[str]:
    return [f"next: {line(view['next'])}"] if view.get("next") else []


def _reading_on(view: _View) -> list[str]:
    return [f"next_cursor {view['next_cursor']}"] if view.get("next_cursor") else []


def _json(value: Any) -> str:
    return _short(json.dumps(value, ensure_ascii=False), _DETAIL)


def _short(value: object, room: int) -> str:
    text, left_out = clipped(line(value), room)
    return f"{text}…" if left_out else text


_RENDERERS: Final[Mapping[str, Callable[[_View], str]]] = {
    "session_info": _session,
    "update_session": _session,
    "list_sessions": _sessions,
    "end_session": _session,
    "run_plan": _plan,
    "plan_progress": _plan,
    "add_message": _added,
    "read_journal": _messages,
    "search_journal": _messages,
    "export_session": _export,
    "project_context": _project,
}

TOOLS: Final[Sequence[str]] = tuple(_RENDERERS)
"""The tools whose answers are told here."""
