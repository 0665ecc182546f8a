"""Lists the tools, and carries a call to the service and its answer back."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Any, Final

import mcp_types as types
from mcp.shared.exceptions import MCPError

from mcp_tasks.errors import InternalError, TasksError
from mcp_tasks.redaction import redact_text, values_of_arguments
from mcp_tasks.requests import GetResult, Request
from mcp_tasks.server.arguments import parse, understood
from mcp_tasks.server.callers import Callers, Context
from mcp_tasks.server.progress import ProgressReports
from mcp_tasks.server.schemas import Tool
from mcp_tasks.server.text import render
from mcp_tasks.server.toolsets import ToolSet, tool_set
from mcp_tasks.service import Caller, Service, ToolCall

__all__ = ["Tools"]

_WITHDRAWN: Final = {"code": "withdrawn", "message": "the client did not wait for the answer"}
"""What the journal tells of a call that was cancelled; a client never sees it."""

_MAX_QUOTED: Final = 65_536
_MAX_MESSAGE: Final = 1_000
"""Longest message or hint of an error, in characters: it may quote what the client gave."""

_log = logging.getLogger(__name__)

_Handler = Callable[[Caller, Any], Awaitable[Mapping[str, Any]]]


class Tools:
    """The tools of a set, as `tools/list` and `tools/call` have them."""

    def __init__(self, service: Service, callers: Callers, tool_set_name: ToolSet) -> None:
        self._service = service
        self._callers = callers
        self._tools = tool_set(tool_set_name)
        listed = {name: tool.listing() for name, tool in self._tools.items()}
        self._schemas = {name: tool.input_schema for name, tool in listed.items()}
        self._listing = types.ListToolsResult(tools=list(listed.values()))

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        """The schema of a tool's arguments; None where there is no such tool."""
        return self._schemas.get(name)

    async def list_tools(
        self, _: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        """Answer `tools/list`."""
        return self._listing

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
        """Answer `tools/call`, and have the call written into the journal.

        Raises:
            MCPError: There is no such tool.
        """
        tool = self._tools.get(params.name)
        if tool is None:
            known = ", ".join(self._tools)
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name[:64]}. The tools are {known}")
        handler: _Handler = getattr(self._service, tool.name)
        arguments = params.arguments or {}
        at, began = time.time_ns() // 1_000_000, time.monotonic()
        answer: dict[str, Any] = {"structuredContent": _WITHDRAWN}
        try:
            answer = await _answer(
                tool, handler, params, lambda request: self._callers.caller(context, request.session)
            )
        finally:
            duration_ms = round((time.monotonic() - began) * 1_000)
            with suppress(TasksError):  # who names no session in order calls from nowhere
                caller = self._callers.caller(context, _named(arguments))
                meant = understood(tool.request, arguments)
                self._service.note_call(
                    caller, ToolCall(tool.name, at, duration_ms, meant, answer["structuredContent"])
                )
        return answer


async def _answer(
    tool: Tool,
    handler: _Handler,
    params: types.CallToolRequestParams,
    caller_of: Callable[[Request], Caller],
) -> dict[str, Any]:
    """Carry out one call. Every error but a cancellation becomes a tool error."""
    try:
        request = parse(tool.request, params.arguments or {})
        caller = caller_of(request)
        async with _kept_up(caller):
            view = await handler(caller, request)
        base64 = isinstance(request, GetResult) and request.encoding == "base64"
        return _result(render(tool.name, view, base64=base64), view, is_error=False)
    except Exception as raised:  # noqa: BLE001 - the edge: what is not ours to tell goes to the log
        error = _innermost(raised)
        values = values_of_arguments(understood(tool.request, params.arguments or {}))
        if isinstance(error, TasksError):
            return _refused(error, values)
        incident = secrets.token_hex(4)  # joins the answer and the log
        _log.exception("incident %s: %s failed", incident, tool.name, extra={"secret_values": values})
        return _refused(
            InternalError(f"{tool.name} failed, incident {incident}", "the server's log has the details")
        )


def _kept_up(caller: Caller) -> AbstractAsyncContextManager[None]:
    """Have the client told now and then that its call goes on, where it has asked for that."""
    progress = caller.progress
    return progress.kept_up() if isinstance(progress, ProgressReports) else nullcontext()


def _named(arguments: Mapping[str, Any]) -> str | None:
    """The session that a call names, however wrong the rest is. Raises InvalidArgument for no name."""
    session = arguments.get("session")
    return Request(session=session).session if isinstance(session, str) and session else None


def _innermost(error: Exception) -> Exception:
    """The first error in a group: what a task group of the service raised is one error for a client."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _refused(error: TasksError, values: Collection[str] = ()) -> dict[str, Any]:
    """What a client is told of an error, which may quote what it gave: without the secrets in that."""
    message, hint = (_cut(redact_text(text[:_MAX_QUOTED], values)) for text in (error.message, error.hint))
    said = {"code": error.code, "message": message, "hint": hint}
    text = f"{said['code']}: {said['message']}. {said['hint']}".rstrip()
    return _result(text, said, is_error=True)


def _result(text: str, structured: Mapping[str, Any], *, is_error: bool) -> dict[str, Any]:
    # `resultType` is for 2026-07-28; the SDK drops it where the era does not know it.
    return {
        "content": [{"type": "text", "text": text}],
        "structuredContent": structured,
        "isError": is_error,
        "resultType": "complete",
    }


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE else f"{text[: _MAX_MESSAGE - 1]}…"
