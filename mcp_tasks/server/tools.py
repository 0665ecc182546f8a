"""The MCP server object: lists the tools, and carries a call to the service and its answer back.

Independent of the transport. Arguments, schemas and results are ours from end to end, so the server
is built on the SDK's low-level class, which serves both protocol eras: 2025-11-25 and 2026-07-28.
"""

from __future__ import annotations

import importlib.metadata
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from pydantic import SecretStr

from mcp_tasks.errors import InternalError, InvalidArgument, TasksError
from mcp_tasks.models import DEFAULT_SESSION, SESSION_NAME
from mcp_tasks.redaction import redact_text, values_of_arguments
from mcp_tasks.requests import GetResult, Request
from mcp_tasks.server.arguments import parse, understood
from mcp_tasks.server.schemas import Tool
from mcp_tasks.server.text import render
from mcp_tasks.server.toolsets import ToolSet, tool_set
from mcp_tasks.service import Attendance, Caller, Client, Service, ToolCall

__all__ = ["SESSION_META_KEY", "SHARE_META_KEY", "ServerSettings", "build_server"]

SESSION_META_KEY: Final = "mcp-tasks/session"
"""Key of `_meta` by which a client names the session of a call."""

SHARE_META_KEY: Final = "mcp-tasks/share"
"""Key of `_meta` by which a client gives the token of a share."""

_WITHDRAWN: Final = {"code": "withdrawn", "message": "the client did not wait for the answer"}
"""What the journal tells of a call that was cancelled; a client never sees it."""

_NOWHERE: Final = Request()

_MAX_QUOTED: Final = 65_536
_MAX_MESSAGE: Final = 1_000
"""Longest message or hint of an error, in characters: it may quote what the client gave."""

_INSTRUCTIONS: Final = """\
Runs commands that outlive the call, the client and this server.
Start: run_command. It answers soon, with state `running` where the command takes longer.
Wait: poll_task (cursor: only what is new; wait_ms: wait a little), wait_tasks for several. No wait kills.
Come back: get_result has exit code and output, later and from any conversation; list_tasks finds a lost id.
`session` keeps projects apart; leave it out where there is one."""

_FULL_INSTRUCTIONS: Final = """
Back after a break: session_info, then read_journal; add_message notes what the next one should know.
Several commands that belong together: run_plan, then plan_progress.
Before building or testing something unfamiliar: project_context."""

_log = logging.getLogger(__name__)

_Context = ServerRequestContext[Any, Any]
_Handler = Callable[[Caller, Any], Awaitable[Mapping[str, Any]]]


class ServerSettings(Protocol):
    """What the server needs to know of the settings."""

    @property
    def owner(self) -> str:
        """Whose tasks are started and found."""
        ...

    @property
    def session(self) -> str | None:
        """The session that is meant where a call names none."""
        ...

    @property
    def share(self) -> SecretStr | None:
        """Token of the share that is meant where a call gives none."""
        ...

    @property
    def max_wait_ms(self) -> int:
        """The longest that one call waits."""
        ...

    @property
    def tools(self) -> ToolSet:
        """The tools that are listed and taken."""
        ...


def build_server(
    service: Service, settings: ServerSettings, attendance: Attendance | None = None
) -> Server[Any]:
    """Make the server object that any transport can serve.

    Args:
        service: Carries out the calls.
        settings: Owner, session, tools and longest wait.
        attendance: Writes down in which sessions the client is served.
    """
    tools = tool_set(settings.tools)
    listing = types.ListToolsResult(tools=[tool.listing() for tool in tools.values()])
    handlers: dict[str, _Handler] = {name: getattr(service, name) for name in tools}

    async def list_tools(_: _Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return listing

    async def call_tool(context: _Context, params: types.CallToolRequestParams) -> dict[str, Any]:
        tool = tools.get(params.name)
        if tool is None:
            known = ", ".join(tools)
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name[:64]}. The tools are {known}")

        def caller_of(request: Request) -> Caller:
            return _caller(request, context, settings, attendance)

        at, began = time.time_ns() // 1_000_000, time.monotonic()
        answer: dict[str, Any] = {"structuredContent": _WITHDRAWN}
        try:
            answer = await _answer(tool, handlers[tool.name], params, caller_of)
        finally:
            duration_ms = round((time.monotonic() - began) * 1_000)
            with suppress(TasksError):  # who names no session in order calls from nowhere
                caller = caller_of(_unread(params.arguments or {}))
                meant = understood(tool.request, params.arguments or {})
                service.note_call(
                    caller, ToolCall(tool.name, at, duration_ms, meant, answer["structuredContent"])
                )
        return answer

    server: Server[Any] = Server(
        "mcp_tasks",
        version=_version(),
        title="mcp_tasks",
        instructions=_INSTRUCTIONS + (_FULL_INSTRUCTIONS if settings.tools == "full" else ""),
        on_list_tools=list_tools,
    )
    # Not as `on_call_tool`: that one wants a model, which would be built only to be taken apart again.
    server.add_request_handler("tools/call", types.CallToolRequestParams, call_tool)
    return server


async def _answer(
    tool: Tool,
    handler: _Handler,
    params: types.CallToolRequestParams,
    caller_of: Callable[[Request], Caller],
) -> dict[str, Any]:
    """Carry out one call. Every error but a cancellation becomes a tool error."""
    try:
        request = parse(tool.request, params.arguments or {})
        view = await handler(caller_of(request), request)
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


def _unread(arguments: Mapping[str, Any]) -> Request:
    """As much of a call as says in which session it was made, however wrong the rest is."""
    session = arguments.get("session")
    return Request(session=session) if isinstance(session, str) and session else _NOWHERE


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


def _caller(
    request: Request, context: _Context, settings: ServerSettings, attendance: Attendance | None
) -> Caller:
    """Say who calls: the session is the argument's, else the one of `_meta`, of the settings, the default."""
    session = request.session or _session_of(context.meta) or settings.session
    return Caller(
        owner=settings.owner,
        session=session or DEFAULT_SESSION,
        named=session is not None,
        max_wait_ms=settings.max_wait_ms,
        progress=_progress(context),
        share=_share_of(context.meta) or (settings.share.get_secret_value() if settings.share else None),
        served_in=None if attendance is None else lambda key: attendance.saw(key, _client(context)),
    )


def _session_of(meta: Mapping[str, Any] | None) -> str | None:
    session = (meta or {}).get(SESSION_META_KEY)
    if session is None:
        return None
    if not isinstance(session, str) or not SESSION_NAME.fullmatch(session):
        raise InvalidArgument(
            f"_meta[{SESSION_META_KEY!r}] is not a session name",
            "a name has 1 to 128 of the characters A-Z a-z 0-9 . _ - and is not . or ..",
        )
    return session


def _share_of(meta: Mapping[str, Any] | None) -> str | None:
    token = (meta or {}).get(SHARE_META_KEY)
    if token is not None and not (isinstance(token, str) and token):
        raise InvalidArgument(
            f"_meta[{SHARE_META_KEY!r}] is no token", "give the token that update_session told, as it was"
        )
    return token


def _client(context: _Context) -> Client:
    """What the client says of itself: at the handshake, or since 2026-07-28 with each request."""
    params = context.session.client_params
    if params is not None:
        return Client(params.client_info.name, params.client_info.version)
    told = (context.meta or {}).get(types.CLIENT_INFO_META_KEY)
    told = told if isinstance(told, Mapping) else {}
    return Client(str(told.get("name") or "unknown"), str(told.get("version") or ""))


def _progress(context: _Context) -> Callable[[int, int, str], Awaitable[None]]:
    """Tell the client how a wait goes; the SDK drops the reports of a call that asked for none.

    The protocol wants each report to be higher than the last one (2025-11-25, basic/utilities/progress).
    """
    reported = -1

    async def report(waited_ms: int, of_ms: int, message: str) -> None:
        nonlocal reported
        if waited_ms > reported:
            reported = waited_ms
            await context.session.report_progress(waited_ms, max(of_ms, waited_ms), message)

    return report


def _version() -> str:
    try:
        return importlib.metadata.version("mcp-tasks")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "0"
