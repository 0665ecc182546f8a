"""How a request that is not well formed is refused, in words that never repeat a value."""

from __future__ import annotations

from pydantic_core import ErrorDetails

from mcp_tasks.errors import InvalidArgument

__all__ = ["kind_of", "refusal"]

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


_UNITS = {"ms": "give a whole number of milliseconds", "bytes": "give a whole number of bytes"}


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


def refusal(error: ErrorDetails) -> InvalidArgument:
    """Turn the first thing that pydantic found wrong into our words; only its type reaches them."""
    location = [part for part in error["loc"] if part not in ("str", "[key]")]
    name = (
        "".join(f"[{part!r}]" if position else str(part) for position, part in enumerate(location))
        or "request"
    )
    limits = error.get("ctx", {})
    kind = error["type"]
    if kind == "missing":
        return InvalidArgument(f"{name} is missing", f"{name} is required")
    if kind == "extra_forbidden":
        return InvalidArgument(f"unknown parameter {name[:64]!r}")
    if kind == "literal_error":
        return InvalidArgument(f"{name} has a value that it cannot have", f"give one of {limits['expected']}")
    if kind in _TYPES:
        return InvalidArgument(
            f"{name} must be {_TYPES[kind]}, not {kind_of(error['input'])}",
            _UNITS.get(name.rpartition("_")[2], ""),
        )
    if kind == "greater_than_equal":
        return InvalidArgument(f"{name} is too small", f"give at least {limits['ge']}")
    if kind == "less_than_equal":
        return InvalidArgument(f"{name} is too large", f"give at most {limits['le']}")
    if kind == "string_too_short":
        return InvalidArgument(f"{name} is empty", "leave it out, or give a value")
    if kind in ("string_too_long", "too_long"):
        return InvalidArgument(f"{name} is too long", f"give at most {limits['max_length']}")
    return InvalidArgument(f"{name} is not valid")
