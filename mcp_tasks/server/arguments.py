"""From the arguments of a tool call, loosely typed as language models type them, to a strict request.

Digit strings become integers, "true" and "false" booleans, JSON text a list or a map, one string a
list of one, null is not given, and names that agents type by habit stand for ours. What a program
or a person will read (`command`, `stdin`, `text`, `pattern`) is taken as it is.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, Literal, TypeVar

from pydantic_core import from_json

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.refusals import kind_of, unknown_parameter
from mcp_tasks.requests import PlanStep, Request, TaskHook

__all__ = ["ALIASES", "Shape", "parse", "shape_of", "understood"]

R = TypeVar("R", bound=Request)

Shape = Literal[
    "command",
    "hooks",
    "integer",
    "number",
    "boolean",
    "list",
    "map",
    "object",
    "shell",
    "signal",
    "steps",
    "text",
]

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "cmd": ("command",),
    "workdir": ("cwd",),
    "working_directory": ("cwd",),
    "id": ("task_id",),
    "yield_time_ms": ("wait_ms",),
    "timeout": ("timeout_ms",),
    "background": ("wait_ms",),
    "run_in_background": ("wait_ms",),
    "is_background": ("wait_ms",),
    "query": ("pattern", "text"),
    "input": ("text",),
    "reply_to": ("parent",),
    "tail": ("tail_lines",),
    "lines": ("tail_lines",),
}
"""Alias to the parameter that it stands for: in every tool the first of these that the tool has."""

_BACKGROUND: Final = frozenset({"background", "run_in_background", "is_background"})
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,19}(\.[0-9]{1,19})?", re.ASCII)


def parse(request: type[R], arguments: Mapping[str, Any]) -> R:
    """Read the arguments of one tool call.

    Raises:
        InvalidArgument: Names the parameter, what was wrong with it and what would be right, and
            never the value that was given.
    """
    shapes = _shapes(request)
    given: dict[str, Any] = {}
    aliased: dict[str, str] = {}
    for name, value in arguments.items():
        own = name if name in shapes else _stands_for(name, shapes)
        if own is None:
            raise _unknown(name, request, shapes)
        if name in _BACKGROUND:
            value = _background(name, value)  # noqa: PLW2901 - the value in our own terms
        if value is None:
            continue
        if own in given:
            first, second = (aliased[own], name) if own in aliased else (own, name)
            raise InvalidArgument(f"{first} and {second} both stand for {own}", f"give {own} only")
        if own != name:
            aliased[own] = name
        given[own] = _COERCIONS[shapes[own]](value)
    if aliased.get("timeout_ms") == "timeout":
        _refuse_seconds(given["timeout_ms"])
    if "shell" in given:
        _resolve_shell(given, runs="command" in shapes)
    return request(**given)


def understood(request: type[Request], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call as they are meant, right or wrong, for whoever writes it down. Never raises.

    Texts are read as `parse` reads them, so that what is secret in them is found where it belongs. What
    the tool does not know is left out: nobody can say what is in it.
    """
    shapes = _shapes(request)
    meant: dict[str, Any] = {}
    for name, value in arguments.items():
        own = name if name in shapes else _stands_for(name, shapes)
        if own is None or own in meant:
            continue
        if name in _BACKGROUND:
            value = 0 if _boolean(value) is True else None  # noqa: PLW2901 - the value in our own terms
        if value is not None:
            meant[own] = _meant(shapes[own], value)
    return meant


def shape_of(annotation: Any, name: str = "") -> Shape:
    """What a parameter of this type looks like on the wire."""
    if name in ("command", "shell", "signal"):
        return typing.cast("Shape", name)
    if name == "commands":
        return "steps"
    if name == "hooks":
        return "hooks"
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return shape_of(typing.get_args(annotation)[0])
    if origin in (types.UnionType, typing.Union):
        return shape_of(next(part for part in typing.get_args(annotation) if part is not type(None)))
    if origin is tuple:
        return "list"
    if origin is dict:
        # A map of any values is taken as it is; in a map of strings, numbers become strings.
        return "object" if typing.get_args(annotation)[1] is Any else "map"
    plain: dict[Any, Shape] = {int: "integer", float: "number", bool: "boolean"}
    return plain.get(annotation, "text")


@cache
def _shapes(request: type[Request]) -> Mapping[str, Shape]:
    return {name: shape_of(field.annotation, name) for name, field in request.model_fields.items()}


def _stands_for(name: str, shapes: Mapping[str, Shape]) -> str | None:
    if name in _BACKGROUND and shapes.keys().isdisjoint(("command", "commands")):
        return None
    return next((own for own in ALIASES.get(name, ()) if own in shapes), None)


def _unknown(name: str, request: type[Request], shapes: Mapping[str, Shape]) -> InvalidArgument:
    known = [own for own in shapes if own != "session" or request not in (PlanStep, TaskHook)]
    aliases = (alias for alias in ALIASES if _stands_for(alias, shapes))
    return unknown_parameter(name, request.tool, known, aliases, request.habits)


def _background(name: str, value: Any) -> int | None:
    """The wait that is meant; None where nothing is asked for, as false and null do."""
    match _boolean(value):
        case True:
            return 0
        case False | None:
            return None
        case _:
            raise InvalidArgument(f"{name} must be true or false", "true is the same as wait_ms: 0")


def _refuse_seconds(value: Any) -> None:
    if isinstance(value, int) and 0 < value < 1_000:
        raise InvalidArgument(
            f"timeout is in milliseconds, and {value} would end the command at once",
            f"give timeout_ms: {value * 1_000} for {value} s, or timeout_ms: {value} if you mean it",
        )


def _resolve_shell(given: dict[str, Any], *, runs: bool) -> None:
    """Read a boolean `shell` as what it is elsewhere: whether a call that `runs` something uses a shell."""
    wanted = _boolean(given["shell"])
    if not isinstance(wanted, bool):
        return
    if not runs:
        raise InvalidArgument(
            "shell must be a string, not a boolean", 'give the path of a shell, like "/bin/bash"'
        )
    if wanted is not isinstance(given.get("command", ""), str):
        raise InvalidArgument(
            f"shell: {json.dumps(wanted)} does not go with this command",
            "a string is run by the shell, a list of strings without one; shell names another shell",
        )
    del given["shell"]


def _as_it_is(value: Any) -> Any:
    return value


def _json(value: str) -> Any:
    try:
        return from_json(value)
    except ValueError:
        return value


def _command(value: Any) -> Any:
    # `[ -f x ] && make` begins with a bracket too, so only a whole list of strings is one.
    if isinstance(value, str) and value.lstrip().startswith("["):
        parts = _json(value)
        if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            return parts
    return value


def _integer(value: Any) -> Any:
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value.strip()) else value


def _boolean(value: Any) -> Any:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower(), value)
    return value


def _list(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = _json(value) if value.lstrip().startswith("[") else value
    return parts if isinstance(parts, list) else [value]


def _map(value: Any) -> Any:
    pairs = _json(value) if isinstance(value, str) else value
    if not isinstance(pairs, dict):
        return value
    return {
        name: json.dumps(content) if isinstance(content, (bool, int, float)) else content
        for name, content in pairs.items()
    }


def _object(value: Any) -> Any:
    content = _json(value) if isinstance(value, str) else value
    return content if isinstance(content, dict) else value


def _steps(value: Any) -> Any:
    steps = _listed(value)
    if not isinstance(steps, list):
        return steps
    return [_step(number, step) for number, step in enumerate(steps, 1)]


def _listed(value: Any) -> Any:
    """Read the commands of a plan: a list of them, its JSON text, or a single one."""
    if isinstance(value, str):
        parsed = _json(value) if value.lstrip().startswith(("[", "{")) else value
        value = parsed if isinstance(parsed, (list, dict)) else [value]
    return [value] if isinstance(value, dict) else value


def _step(number: int, step: Any) -> PlanStep:
    fields = _object(step)
    if not isinstance(fields, dict):
        fields = {"command": step}
    elif "after" in fields:  # steps are named by number too
        fields = {**fields, "after": _texts(fields["after"])}
    try:
        return parse(PlanStep, fields)
    except InvalidArgument as error:
        raise InvalidArgument(f"commands[{number}]: {error.message}", error.hint) from None


def _hooks(value: Any) -> Any:
    hooks = _listed(value)
    if not isinstance(hooks, list):
        return hooks
    return [_hook(number, hook) for number, hook in enumerate(hooks, 1)]


def _hook(number: int, hook: Any) -> Any:
    fields = _object(hook)
    if not isinstance(fields, dict):
        return fields  # to be refused with the rest
    try:
        return parse(TaskHook, fields)
    except InvalidArgument as error:
        raise InvalidArgument(f"hooks[{number}]: {error.message}", error.hint) from None


def _meant(shape: Shape, value: Any) -> Any:
    """A value as `understood` tells it: a map only where one belongs."""
    match shape:
        case "map" | "object":
            return _COERCIONS[shape](value)
        case "steps":
            steps = _listed(value)
            return [_meant_step(step) for step in steps] if isinstance(steps, list) else _flat(steps)
        case "hooks":
            hooks = _listed(value)
            return [_meant_hook(hook) for hook in hooks] if isinstance(hooks, list) else _flat(hooks)
        case _:
            return _flat(_COERCIONS[shape](value))


def _meant_step(step: Any) -> Any:
    fields = _object(step)
    return understood(PlanStep, fields) if isinstance(fields, dict) else _meant("command", step)


def _meant_hook(hook: Any) -> Any:
    fields = _object(hook)
    return understood(TaskHook, fields) if isinstance(fields, dict) else _flat(hook)


def _flat(value: Any) -> Any:
    if isinstance(value, list):
        return [f"[{kind_of(part)}]" if isinstance(part, (dict, list)) else part for part in value]
    return f"[{kind_of(value)}]" if isinstance(value, dict) else value


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(one) for one in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _signal(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_COERCIONS: Final[Mapping[Shape, Callable[[Any], Any]]] = {
    "command": _command,
    "hooks": _hooks,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "list": _list,
    "map": _map,
    "object": _object,
    "shell": _as_it_is,
    "signal": _signal,
    "steps": _steps,
    "text": _as_it_is,
}
