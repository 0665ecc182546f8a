"""Tools, resources and prompts that answer with each kind of content that the suite looks for."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import mcp_types as types
from mcp.shared.exceptions import MCPError

from mcp_tasks.server.callers import Context

__all__ = ["DATA", "PROMPTS", "RESOURCES", "TEMPLATE", "TOOLS", "Call", "Tool", "prompt", "read", "text"]

Call = Callable[[Context, types.CallToolRequestParams], Awaitable[dict[str, Any]]]
Tool = tuple[dict[str, Any], Call]
"""The schema of the arguments, and what carries a call out."""

_PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
_SILENCE: Final = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="

_IMAGE: Final = {"type": "image", "data": _PIXEL, "mimeType": "image/png"}
_AUDIO: Final = {"type": "audio", "data": _SILENCE, "mimeType": "audio/wav"}

DATA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
"""A schema with the words of JSON Schema 2020-12 that a server may not lose on the way."""

_ROUTED: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
}

_NOTHING: Final[dict[str, Any]] = {"type": "object", "properties": {}}


def text(said: str) -> dict[str, Any]:
    """A content of text."""
    return {"type": "text", "text": said}


def _embedded(uri: str, said: str, kind: str = "text/plain") -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": said}}


def _shows(*content: Mapping[str, Any], is_error: bool = False) -> Tool:
    async def call(_: Context, _params: types.CallToolRequestParams) -> dict[str, Any]:
        return {"content": list(content), "isError": is_error}

    return _NOTHING, call


async def _log(context: Context, _: types.CallToolRequestParams) -> dict[str, Any]:
    for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        note = types.LoggingMessageNotification(
            params=types.LoggingMessageNotificationParams(level="info", data=said)
        )
        await context.session.send_notification(note, related_request_id=context.request_id)
    return {"content": [text("three messages were logged")]}


async def _log_where_asked(context: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
    if types.LOG_LEVEL_META_KEY in (context.meta or {}):
        await _log(context, params)
    return {"content": [text("logged where the request asks for it")]}


async def _progress(context: Context, _: types.CallToolRequestParams) -> dict[str, Any]:
    for part in (0, 50, 100):
        await context.session.report_progress(part, 100, f"{part} of 100")
    return {"content": [text("progress was reported")]}


async def _cut(context: Context, _: types.CallToolRequestParams) -> dict[str, Any]:
    if context.close_sse_stream is not None:
        await context.close_sse_stream()
    return {"content": [text("the answer that comes after the stream was closed")]}


async def _needs_sampling(context: Context, _: types.CallToolRequestParams) -> dict[str, Any]:
    capabilities = context.session.client_capabilities
    if capabilities is None or capabilities.sampling is None:
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "Missing required client capability: sampling",
            data={"requiredCapabilities": {"sampling": {}}},
        )
    return {"content": [text("the client can sample")]}


TOOLS: Final[Mapping[str, Tool]] = {
    "test_simple_text": _shows(text("This is a simple text response for testing.")),
    "test_image_content": _shows(_IMAGE),
    "test_audio_content": _shows(_AUDIO),
    "test_embedded_resource": _shows(_embedded("test://embedded-resource", "Embedded resource content.")),
    "test_multiple_content_types": _shows(
        text("Multiple content types test:"),
        _IMAGE,
        _embedded("test://mixed-content-resource", '{"test": "data", "value": 123}', "application/json"),
    ),
    "test_error_handling": _shows(
        text("This tool intentionally returns an error for testing"), is_error=True
    ),
    "test_tool_with_logging": (_NOTHING, _log),
    "test_logging_tool": (_NOTHING, _log_where_asked),
    "test_tool_with_progress": (_NOTHING, _progress),
    "test_streaming_elicitation": (_NOTHING, _progress),
    "test_reconnection": (_NOTHING, _cut),
    "test_missing_capability": (_NOTHING, _needs_sampling),
    "test_routed_by_header": (_ROUTED, _shows(text("routed"))[1]),
    "json_schema_2020_12_tool": (DATA, _shows(text("called"))[1]),
}

RESOURCES: Final[Mapping[str, dict[str, Any]]] = {
    "test://static-text": {"mimeType": "text/plain", "text": "The content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": _PIXEL},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watched resource content"},
}

TEMPLATE: Final = "test://template/{id}/data"


def read(uri: str) -> dict[str, Any] | None:
    """The content of a resource; None where there is no such one."""
    found = RESOURCES.get(uri)
    before, after = TEMPLATE.split("{id}")
    if found is None and uri.startswith(before) and uri.endswith(after):
        name = uri.removeprefix(before).removesuffix(after)
        told = {"id": name, "templateTest": True, "data": f"Data for ID: {name}"}
        found = {"mimeType": "application/json", "text": json.dumps(told)}
    return None if found is None else {"uri": uri, **found}


PROMPTS: Final[Mapping[str, tuple[str, ...]]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
}
"""Names of the arguments of each prompt."""


def prompt(name: str, arguments: Mapping[str, str]) -> list[dict[str, Any]]:
    """The contents of a prompt."""
    match name:
        case "test_prompt_with_arguments":
            given = ", ".join(f"{key}='{arguments.get(key, '')}'" for key in PROMPTS[name])
            return [text(f"Prompt with arguments: {given}")]
        case "test_prompt_with_embedded_resource":
            embedded = _embedded(arguments.get("resourceUri", ""), "Embedded resource content for testing.")
            return [embedded, text("Please process the embedded resource above.")]
        case "test_prompt_with_image":
            return [_IMAGE, text("Please analyze the image above.")]
        case _:
            return [text("This is a simple prompt for testing.")]
