"""Secrets that are known by their value, and secrets in JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from mcp_tasks.redaction.names import is_secret_name
from mcp_tasks.redaction.texts import REDACTED, redact_text

__all__ = ["redact_arguments", "redact_value", "secret_values", "values_of_arguments"]

_SHORTEST_MARKED = 3
_SHORTEST_BY_NAME = 6
_DEEPEST = 64


def secret_values(environment: Mapping[str, str | None], marked: Collection[str] = ()) -> tuple[str, ...]:
    """The values of an environment that must not be seen, for the `values` of all that redacts.

    Args:
        environment: By name; None where a variable is unset.
        marked: Names that the caller says are secret. Others are when they look like it.

    Returns:
        Each value once. One that is too short to be looked for in a text is left out: three
        characters are needed where it is marked, six where only its name speaks.
    """
    found = {
        value: None
        for name, value in environment.items()
        if value is not None
        and (
            (len(value) >= _SHORTEST_MARKED and name in marked)
            or (len(value) >= _SHORTEST_BY_NAME and is_secret_name(name))
        )
    }
    return tuple(found)


def redact_value(value: Any, values: Collection[str] = ()) -> Any:
    """A JSON value without its secrets: by the names of map keys, by form, and by value.

    Args:
        value: Any JSON, nested as it likes; tuples count as lists.
        values: What `secret_values` found.
    """
    return _redact(value, values, 0)


def redact_arguments(arguments: Mapping[str, Any], values: Collection[str] = ()) -> dict[str, Any]:
    """The arguments of a tool call as they may be recorded.

    No value of `env` or `hooks` and no `stdin` is in them, nor what is typed into a task. The values that
    `secrets` marks, in the call or in a step of a plan, are taken out everywhere.

    Args:
        arguments: As the client meant them, checked or not.
        values: What must not be seen either.
    """
    return _arguments(arguments, (*values_of_arguments(arguments), *values), 0)


def values_of_arguments(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """The secret values in the environments of a call and of the steps of a plan."""
    found: dict[str, None] = {}
    for part in (arguments, *_maps(arguments.get("commands"))):
        environment = part.get("env")
        if isinstance(environment, Mapping):
            given = {
                str(name): value if isinstance(value, str) else None for name, value in environment.items()
            }
            found.update(dict.fromkeys(secret_values(given, _names(part.get("secrets")))))
    return tuple(found)


def _names(marked: Any) -> Collection[str]:
    if isinstance(marked, str):
        return (marked,)
    return [name for name in marked if isinstance(name, str)] if isinstance(marked, list | tuple) else ()


def _maps(value: Any) -> Iterable[Mapping[str, Any]]:
    return [part for part in value if isinstance(part, Mapping)] if isinstance(value, list | tuple) else ()


def _arguments(arguments: Mapping[str, Any], values: Collection[str], depth: int) -> dict[str, Any]:
    typed = "task_id" in arguments or "id" in arguments  # the text of send_input, not that of add_message
    redacted: dict[str, Any] = {}
    for name, value in arguments.items():
        if value is None:
            redacted[name] = None
        elif name in ("env", "hooks"):  # a URL that is called is as good as a password
            redacted[name] = _hidden(value, 0)
        elif name == "stdin" or (name == "text" and typed and "role" not in arguments):
            redacted[name] = REDACTED
        elif name == "secrets":
            # What is no name of a variable may be the secret itself.
            known = arguments.get("env")
            known = known if isinstance(known, Mapping) else {}
            redacted[name] = _redact(
                [each if each in known else REDACTED for each in _names(value)], values, depth
            )
        elif name == "commands" and isinstance(value, list | tuple) and depth == 0:
            redacted[name] = [
                _arguments(step, values, 1) if isinstance(step, Mapping) else _redact(step, values, 1)
                for step in value
            ]
        else:
            redacted[redact_text(str(name), values)] = _redact_named(str(name), value, values, depth)
    return redacted


def _redact(value: Any, values: Collection[str], depth: int) -> Any:
    if isinstance(value, str):
        return redact_text(value, values)
    if isinstance(value, Mapping):
        if depth >= _DEEPEST:
            return REDACTED
        return {
            redact_text(str(name), values): _redact_named(str(name), content, values, depth + 1)
            for name, content in value.items()
        }
    if isinstance(value, list | tuple):
        if depth >= _DEEPEST:
            return REDACTED
        return _redact_list(value, values, depth + 1)
    return value


def _redact_named(name: str, value: Any, values: Collection[str], depth: int) -> Any:
    if is_secret_name(name):
        return _hidden(value, depth)
    return _redact(value, values, depth)


def _redact_list(parts: Sequence[Any], values: Collection[str], depth: int) -> list[Any]:
    """A list, in which `--token` is followed by its value, and a header's name by its content."""
    redacted: list[Any] = []
    before: Any = None
    for part in parts:
        if isinstance(part, str) and isinstance(before, str) and _announces(before, part):
            redacted.append(REDACTED)
        else:
            redacted.append(_redact(part, values, depth))
        before = part
    return redacted


def _announces(name: str, value: str) -> bool:
    if name.startswith("-"):
        return "=" not in name and not value.startswith("--") and is_secret_name(name)
    return name.lower() == "authorization"


def _hidden(value: Any, depth: int) -> Any:
    """A value of which only the shape may be seen."""
    if value is None or isinstance(value, bool) or value == "":
        return value
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {name: _hidden(content, depth + 1) for name, content in value.items()}
        if isinstance(value, list | tuple):
            return [_hidden(part, depth + 1) for part in value]
    return REDACTED
