"""What the service says in the words of its tools, said in those of the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mcp_tasks.errors import TasksError

__all__ = ["explained", "in_own_words", "told"]

_OWN_WORDS = {
    "cancel: true": "--cancel",
    "interactive: true": "--interactive",
    "on_output_limit: keep_tail": "--keep-tail",
    "force: true": "--force",
    "cancel_task": "`mcp-tasks cancel`",
    "clear_task": "`mcp-tasks clear`",
    "end_session": "`mcp-tasks sessions end`",
    "add_message": "`mcp-tasks journal add`",
    "export_session": "`mcp-tasks journal export`",
    "read_journal": "`mcp-tasks journal read`",
    "search_journal": "`mcp-tasks journal search`",
    "get_result": "`mcp-tasks result`",
    "list_sessions": "`mcp-tasks sessions list`",
    "list_tasks": "`mcp-tasks ps`",
    "poll_task": "`mcp-tasks poll`",
    "plan_progress": "`mcp-tasks plan progress`",
    "run_command": "`mcp-tasks run`",
    "run_plan": "`mcp-tasks plan run`",
    "search_output": "`mcp-tasks search`",
    "send_input": "`mcp-tasks input`",
    "session_info": "`mcp-tasks sessions show`",
    "update_session": "`mcp-tasks sessions update`",
    "wait_tasks": "`mcp-tasks wait`",
    "give text, enter, eof or signal": "give TEXT, --eof or --signal",
    "all_finished": "--finished",
    "older_than_days": "--older-than",
    "grace_ms": "--grace",
    "idle_ms": "--idle",
    "delay_ms": "--delay",
    "task_id": "ID",
    "task_ids": "IDs",
    "timeout_ms": "--timeout",
    "wait_ms": "--wait",
}
"""Tools and parameters, as hints and warnings name them."""

_FLAGS = {
    **{
        name: f"--{name}"
        for name in ("after", "cancel", "cursor", "cwd", "env", "key", "label", "retries", "state", "until")
    },
    **{name: own for name, own in _OWN_WORDS.items() if own.startswith("--")},
    "hooks": "--hook",
    "limit": "--limit",
    "max_bytes": "--max-bytes",
    "max_output_bytes": "--max-output",
}
"""Parameters with the flags that they come from. Some are plain words, so only refusals begin with them."""

_HOOK = re.compile(r"hooks\[(\d+)\](?=:? )")
_NAMED = re.compile(rf"\b(?:{'|'.join(sorted(_OWN_WORDS, key=len, reverse=True))})\b")
_REFUSED = re.compile(rf"({'|'.join(_FLAGS)})(?= (?:is|has|must|does not go|goes) )")


def in_own_words(text: str) -> str:
    """A hint or a warning with the commands and flags that stand here for tools and parameters."""
    return _NAMED.sub(lambda name: _OWN_WORDS[name[0]], text)


def explained(error: TasksError) -> str:
    """An error on one line, with what would be right."""
    message = _HOOK.sub(r"--hook number \1", error.message, count=1)
    if message.startswith("--hook number "):
        # What a hook takes are the keys of a map, which are the same here.
        return f"{message} ({error.hint})" if error.hint else message
    # Other messages quote what somebody gave, and that is not to be reworded.
    if error.code == "invalid_argument" and (refused := _REFUSED.match(message)):
        message = _FLAGS[refused[1]] + in_own_words(message[refused.end() :])
    return f"{message} ({in_own_words(error.hint)})" if error.hint else message


def told(view: Mapping[str, Any]) -> dict[str, Any]:
    """The view of a task as it is shown to a person: without what an agent would call next."""
    shown = {name: value for name, value in view.items() if name != "next"}
    if warning := view.get("warning"):
        shown["warning"] = in_own_words(warning)
    if error := view.get("error"):
        shown["error"] = {**error, "hint": in_own_words(error.get("hint", ""))}
    return shown
