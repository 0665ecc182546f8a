"""How a request that is not well formed is refused, in words that never repeat a value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from mcp_tasks.errors import InvalidArgument

__all__ = ["kind_of", "refusal", "unknown_parameter"]

_TYPES = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "dict_type": "a map of names to strings",
    "tuple_type": "a list of strings",
    "list_type": "a list of strings",
}

_IDS = 'give task ids as run_command answered them, in a list of strings: ["...", "..."]'
_RIGHT = {
    "after": _IDS,
    "command": 'give the command to run, like "make test" or ["make", "test"]',
    "commands": 'give a list of commands, each a string, a list of strings or a map: [{"command": "make"}]',
    "cursor": "give next_cursor of an earlier answer exactly as it was, or leave cursor out",
    "cwd": "give the path of an existing directory, or leave cwd out",
    "env": 'give names with their values, like {"CI": "1"}; null unsets a name',
    "hooks": 'give a list of maps, like [{"webhook": "https://example.org/told"}]',
    "key": 'give a text that stands for this one start, like "build-42", or leave key out',
    "label": 'give a name to find it by, like "nightly build", or leave label out',
    "on": 'give "end", "idle" or "deadline", or a list of them',
    "pattern": 'give a regular expression, like "error|warning"',
    "preferences": 'give a map, like {"project": {"test": "make check"}}; null forgets a key',
    "session": 'give the name of a session, like "my-project", or leave session out',
    "shell": 'give the path of a shell, like "/bin/bash", or leave shell out',
    "signal": "give a name like SIGTERM, SIGINT or SIGKILL",
    "stdin": r'give the whole input as one string, like "yes\n"',
    "task_id": "give one task id as run_command answered it; list_tasks finds it",
    "task_ids": _IDS,
    "text": 'give the text as one string, like "yes"',
    "webhook": 'give an absolute URL, like "https://example.org/told"',
}
"""What would be right, by parameter; of the others, their type tells it."""

_EXAMPLES = {"bytes": ("bytes", "8192"), "days": ("days", "7"), "ms": ("milliseconds", "5000")}
_UNITS = {"bytes": " bytes", "days": " days", "ms": " ms"}
_NEAR = 0.7
"""Likeness from which a name is taken for a slip: `task` is one of `task_id`, `ansi` is not."""


def kind_of(value: object) -> str:
    """Say what a value is without saying the value."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "a list"
        case dict():
            return "a map"
        case _:
            return f"a {type(value).__name__}"


def unknown_parameter(
    name: str,
    tool: str,
    parameters: Iterable[str],
    aliases: Iterable[str] = (),
    habits: Mapping[str, str] | None = None,
) -> InvalidArgument:
    """Refuse a name that a tool does not know, with the nearest one that it does, or with all of them.

    Args:
        name: As it was given.
        tool: Whose parameters they are.
        parameters: Those that it has.
        aliases: Names that are taken as well.
        habits: Names that are not taken, with the parameters that they stand for elsewhere.
    """
    own = list(parameters)
    others = habits or {}
    nearest = difflib.get_close_matches(name[:64].lower(), [*own, *aliases, *others], n=1, cutoff=_NEAR)
    if nearest:
        hint = f"did you mean {others.get(nearest[0], nearest[0])!r}?"
    else:
        hint = f"{tool} takes {', '.join(own)}"
    return InvalidArgument(f"unknown parameter {name[:64]!r}", hint)


def refusal(
    error: ErrorDetails, tool: str, parameters: Iterable[str], habits: Mapping[str, str] | None = None
) -> InvalidArgument:
    """Turn the first thing that pydantic found wrong into our words; only its type reaches them."""
    location = [part for part in error["loc"] if part not in ("str", "[key]")]
    name = (
        "".join(f"[{part!r}]" if position else str(part) for position, part in enumerate(location))
        or "request"
    )
    parameter = str(location[0]) if location else ""
    limits = error.get("ctx", {})
    right = _right(parameter, error["type"], tool)
    match error["type"]:
        case "missing":
            return InvalidArgument(f"{name} is missing", right)
        case "extra_forbidden":
            return unknown_parameter(name, tool, parameters, habits=habits)
        case "literal_error":
            return InvalidArgument(
                f"{name} has a value that it cannot have", f"give one of {limits['expected']}"
            )
        case kind if kind in _TYPES:
            return InvalidArgument(f"{name} must be {_TYPES[kind]}, not {kind_of(error['input'])}", right)
        case "string_too_short" | "too_short":
            return InvalidArgument(f"{name} is empty", right)
        case "string_unicode":
            return InvalidArgument(f"{name} is not valid Unicode text", "leave out lone surrogates")
        case "greater_than_equal" | "less_than_equal" | "string_too_long" | "too_long":
            return _beyond(name, error["type"], limits)
        case _:
            return InvalidArgument(f"{name} is not valid", right)


def _right(parameter: str, kind: str, tool: str) -> str:
    """What would be right for a parameter that was left out, or given as something else."""
    if parameter in _RIGHT:
        return _RIGHT[parameter]
    unit, example = _EXAMPLES.get(parameter.rpartition("_")[2], ("", "10"))
    of_unit = f" of {unit}" if unit else ""
    match kind:
        case "int_type" | "int_from_float":
            return f"give a whole number{of_unit}, like {parameter}: {example}"
        case "float_type" | "finite_number":
            return f"give a number{of_unit}, like {parameter}: {example}"
        case "bool_type":
            return f"give {parameter}: true, or leave it out"
        case _:
            return f"{tool}'s description tells what it takes"


def _beyond(name: str, kind: str, limits: Mapping[str, Any]) -> InvalidArgument:
    """Refuse a value that is outside of its limits."""
    unit = _UNITS.get(name.rpartition("_")[2], "")
    match kind:
        case "greater_than_equal":
            return InvalidArgument(f"{name} is too small", f"give at least {int(limits['ge'])}{unit}")
        case "less_than_equal":
            return InvalidArgument(f"{name} is too large", f"give at most {int(limits['le'])}{unit}")
        case _:
            what = "characters" if kind == "string_too_long" else "of them"
            return InvalidArgument(f"{name} is too long", f"give at most {limits['max_length']} {what}")
