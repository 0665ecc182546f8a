"""What a tool's listing is made of: its schemas, cut to what an agent needs to fill them in.

An agent pays for the listing in every conversation. The schemas are derived from the request models,
which check everything that is left out here. Extra properties are not forbidden: a client that
validates would refuse the aliases that the server takes.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any, Literal

import mcp_types as types

from mcp_tasks.requests import PlanStep, Request
from mcp_tasks.server.arguments import shape_of
from mcp_tasks.server.words import WORDS

__all__ = ["Tool", "input_schema", "output_schema"]


@dataclass(frozen=True)
class Tool:
    """One tool: the request that it carries and what its listing says.

    Attributes:
        answers: The fields that are always in the structured content.
        hints: readOnlyHint, destructiveHint, idempotentHint, openWorldHint.
    """

    request: type[Request]
    title: str
    description: str
    answers: tuple[str, ...]
    hints: tuple[bool, bool, bool, bool]

    @property
    def name(self) -> str:
        """The name that a call gives."""
        return self.request.tool

    def listing(self) -> types.Tool:
        """The tool as `tools/list` shows it."""
        read_only, destructive, idempotent, open_world = self.hints
        return types.Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=input_schema(self.request),
            output_schema=output_schema(self.answers),
            annotations=types.ToolAnnotations(
                read_only_hint=read_only,
                destructive_hint=destructive,
                idempotent_hint=idempotent,
                open_world_hint=open_world,
            ),
        )


def output_schema(answers: tuple[str, ...]) -> dict[str, Any]:
    """An open object that names what is always there and, for errors, code, message and hint.

    Nothing is `required`: clients of the TypeScript SDK v1 throw on an error result without it.
    """
    names = (*answers, "code", "message", "hint")
    return {"type": "object", "properties": {name: {} for name in names}}


def input_schema(request: type[Request]) -> dict[str, Any]:
    """The parameters of a tool: type, choices and, where the name does not say enough, a few words."""
    properties = {}
    fields = request.model_fields
    # What must be given comes first, what matters least last; the sort keeps the rest as it is.
    for name in sorted(fields, key=lambda name: (not fields[name].is_required(), name == "session")):
        field = fields[name]
        schema = _property(name, field.annotation)
        words = WORDS.get(f"{request.tool}.{name}", WORDS.get(name))
        if words:
            schema["description"] = words
        properties[name] = schema
    schema = {"type": "object", "properties": properties}
    required = [name for name, field in fields.items() if field.is_required()]
    if required:
        schema["required"] = required
    return schema


def _property(name: str, annotation: Any) -> dict[str, Any]:
    match shape_of(annotation, name):
        case "command":
            # A list of types would be shorter, but some clients take no `type: [..]`.
            return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
        case "list":
            return {"type": "array", "items": {"type": "string"}}
        case "map" | "object":
            return {"type": "object"}
        case "hooks":
            return {"type": "array", "items": {"type": "object"}}
        case "steps":
            step = input_schema(PlanStep)
            # A step works where its plan does; and it may have its command by another name.
            del step["properties"]["session"], step["required"]
            argv = {"type": "array", "items": {"type": "string"}}
            return {"type": "array", "items": {"anyOf": [{"type": "string"}, argv, step]}}
        case "integer" | "number" | "boolean" as plain:
            return {"type": plain}
        case _:
            choices = _choices(annotation)
            return {"type": "string", "enum": choices} if choices else {"type": "string"}


def _choices(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is Literal:
        return list(typing.get_args(annotation))
    return [choice for part in typing.get_args(annotation) for choice in _choices(part)]
