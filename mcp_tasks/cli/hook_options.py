"""`--hook`: what is to be done when something happens to a task, as the command line says it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mcp_tasks.requests import TaskHook

__all__ = ["HookOptions", "hooks_of"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

HookOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--hook",
        metavar="HOOK",
        help="At its end: a URL to post to, desktop, or a command line; or a map as JSON. Repeatable.",
    ),
]


def hooks_of(given: Sequence[str]) -> tuple[TaskHook, ...]:
    """The hooks that the options name. Raises InvalidArgument."""
    from mcp_tasks.errors import InvalidArgument

    hooks: list[TaskHook] = []
    for number, text in enumerate(given, 1):
        try:
            hooks.append(_hook(text.strip()))
        except InvalidArgument as error:
            raise InvalidArgument(f"--hook number {number}: {error.message}", error.hint) from None
    return tuple(hooks)


def _hook(text: str) -> TaskHook:
    from mcp_tasks.errors import InvalidArgument
    from mcp_tasks.requests import TaskHook

    # No command begins like this, so what is not http or https is refused and not run.
    if _URL.match(text):
        return TaskHook(webhook=text)
    if text == "desktop":
        return TaskHook(desktop=True)
    # A group of the shell begins with a brace and a space, so it is no JSON.
    if not text.startswith('{"'):
        return TaskHook(command=text)
    try:
        fields = json.loads(text)
    except ValueError:
        raise InvalidArgument(
            "it begins like a map, and is no JSON", "quote it for the shell: '{…}'"
        ) from None
    return TaskHook(**fields)
