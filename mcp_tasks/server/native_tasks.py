"""Native MCP tasks: the extension `io.modelcontextprotocol/tasks` of 2026-07-28.

A command that outlives the wait of `run_command` is answered with a task handle, to clients that ask for
it. The task is the same as the one of the tools, so either side of a client can go on with it.

Specification: https://github.com/modelcontextprotocol/ext-tasks, `specification/draft/tasks.md`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from typing import Any, Final, cast

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_METHOD_HEADER, MCP_NAME_HEADER, decode_header_value
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcp_tasks.errors import TaskNotFound
from mcp_tasks.requests import CancelTask, GetResult, PollTask, RunCommand
from mcp_tasks.server.arguments import understood
from mcp_tasks.server.callers import Callers, Context
from mcp_tasks.server.phrases import duration
from mcp_tasks.server.protocol_errors import told_as_protocol_errors
from mcp_tasks.server.subscriptions import Tell
from mcp_tasks.server.text import render
from mcp_tasks.service import Caller, Service, ToolCall

__all__ = ["EXTENSION", "NativeTasks", "TaskFeed", "require_declared"]

EXTENSION: Final = "io.modelcontextprotocol/tasks"

_SHAPES_THE_WAIT: Final = ("wait_ms", "until", "pattern", "idle_ms", "interactive", "pty")
"""Who gives one of these has decided for himself how long to wait, or wants to talk to the command."""

_OPEN: Final = frozenset({"pending", "running"})
_MOST_LISTENED_TO: Final = 1_000
"""Tasks that one subscription hears of."""

_SOONEST_MS: Final = 500
_LATEST_MS: Final = 5_000

_log = logging.getLogger(__name__)

_CallTool = Callable[[Context, types.CallToolRequestParams], Awaitable[dict[str, Any]]]


class _TaskParams(types.RequestParams):
    """Parameters of `tasks/get` and `tasks/cancel`."""

    task_id: str


class _UpdateParams(_TaskParams):
    """Parameters of `tasks/update`."""

    input_responses: dict[str, Any]


class NativeTasks:
    """Serves the methods of the extension, and tells which calls are answered with a handle."""

    def __init__(self, service: Service, callers: Callers) -> None:
        self._service = service
        self._callers = callers

    def serve_on(self, server: Server[Any]) -> None:
        """Add the methods to a server, and say that it has the extension."""
        server.add_request_handler("tasks/get", _TaskParams, self.get)
        server.add_request_handler("tasks/update", _UpdateParams, self.update)
        server.add_request_handler("tasks/cancel", _TaskParams, self.cancel)
        server.extensions[EXTENSION] = {}

    def around(self, call_tool: _CallTool) -> _CallTool:
        """`tools/call` with the answers of open commands turned into handles where a client wants them.

        The command has been registered durably and waited for as without the extension when this is
        decided, so a short one is answered with its result.
        """

        async def call(context: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
            answer = await call_tool(context, params)
            if params.name != RunCommand.tool or not (_is_modern(context) and _declares(context)):
                return answer
            view = answer["structuredContent"]
            if view.get("state") not in _OPEN or _waits_itself(params.arguments or {}):
                return answer
            try:
                return await self.handle(context, view["task_id"])
            except Exception as error:  # noqa: BLE001 - the command runs: whatever this is, its id is told
                _log.warning("a task is told as a tool tells it, not as a handle: %s", error)
                return answer

        return call

    async def handle(self, context: Context, task_id: str) -> dict[str, Any]:
        """The CreateTaskResult of a task, found as `tasks/get` will find it. Raises TasksError."""
        caller = _holder(self._callers.caller(context))
        return {"resultType": "task", **_bare(await self._view(caller, task_id))}

    async def get(self, context: Context, params: _TaskParams) -> dict[str, Any]:
        """Answer `tasks/get`.

        Raises:
            MCPError: The request or the task cannot be served, by the codes of the specification.
        """
        with self._served(context, params.task_id) as caller:
            return {"resultType": "complete", **await self.detailed(caller, params.task_id)}

    async def update(self, context: Context, params: _UpdateParams) -> dict[str, Any]:
        """Answer `tasks/update`: a command asks a client for nothing, so whatever it responds is ignored.

        Raises:
            MCPError: As `get`.
        """
        with self._served(context, params.task_id) as caller:
            await self._view(caller, params.task_id)
            return {"resultType": "complete"}

    async def cancel(self, context: Context, params: _TaskParams) -> dict[str, Any]:
        """Answer `tasks/cancel`, when the command has ended or the longest wait is over.

        Raises:
            MCPError: As `get`.
        """
        with self._served(context, params.task_id) as caller:
            at, began = time.time_ns() // 1_000_000, time.monotonic()
            view = await self._service.cancel_task(caller, CancelTask(task_id=params.task_id))
            took_ms = round((time.monotonic() - began) * 1_000)
            arguments = {"task_id": params.task_id}
            self._service.note_call(caller, ToolCall(CancelTask.tool, at, took_ms, arguments, view))
            return {"resultType": "complete"}

    async def detailed(self, caller: Caller, task_id: str) -> dict[str, Any]:
        """The DetailedTask, as `tasks/get` and `notifications/tasks` tell it. Raises TasksError."""
        view = await self._view(caller, task_id)
        task = _bare(view)
        if task["status"] == "completed":
            task["result"] = {
                "content": [{"type": "text", "text": render(GetResult.tool, view)}],
                "structuredContent": view,
                "isError": False,
                "resultType": "complete",
            }
        return task

    async def _view(self, caller: Caller, task_id: str) -> Mapping[str, Any]:
        return await self._service.get_result(caller, GetResult(task_id=task_id))

    @contextmanager
    def _served(self, context: Context, task_id: str) -> Iterator[Caller]:
        """Let a request come to the service as whose it is, and every error go as the protocol has it."""
        if not _is_modern(context):
            raise MCPError(types.METHOD_NOT_FOUND, "Method not found", data=context.method)
        _check_routed(context, task_id)
        require_declared(context)
        with told_as_protocol_errors(context):
            yield _holder(self._callers.caller(context))


class TaskFeed:
    """What `subscriptions/listen` has for the extension: `notifications/tasks` for chosen tasks."""

    field = "taskIds"

    def __init__(self, service: Service, callers: Callers, native: NativeTasks) -> None:
        self._service = service
        self._callers = callers
        self._native = native

    async def agree(self, context: Context, wanted: object) -> object | None:
        """The ids of those tasks that there are for the caller.

        Raises:
            MCPError: The request does not declare the extension, or these are no ids.
        """
        require_declared(context)
        if not isinstance(wanted, list) or not all(isinstance(task_id, str) for task_id in wanted):
            raise MCPError(types.INVALID_PARAMS, "taskIds is not a list of strings")
        if len(wanted) > _MOST_LISTENED_TO:
            raise MCPError(types.INVALID_PARAMS, f"taskIds has more than {_MOST_LISTENED_TO} ids")
        caller = _holder(self._callers.caller(context))
        found = []
        for task_id in dict.fromkeys(wanted):
            with suppress(TaskNotFound):
                await self._service.poll_task(caller, PollTask(task_id=task_id, show="none"))
                found.append(task_id)
        return found or None

    async def tell(self, context: Context, agreed: object, tell: Tell) -> None:
        """Tell each task as it is now and at each change of its state, as `tasks/get` does."""
        caller = _holder(self._callers.caller(context))
        task_ids = cast("list[str]", agreed)
        async with aclosing(self._service.watch(caller, task_ids)) as views:
            async for view in views:
                with suppress(TaskNotFound):  # it has been cleared in this moment
                    await tell("notifications/tasks", await self._native.detailed(caller, view["task_id"]))


def _holder(caller: Caller) -> Caller:
    """Who holds a handle: it has no room for a session, so its id is looked for in all that are his.

    `run_command` takes a session, and a handle that it was answered with has to be found afterwards.
    """
    return replace(caller, named=False)


def require_declared(context: Context) -> None:
    """Raises MCPError (-32021) where a request does not declare the extension."""
    if not _declares(context):
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            f"Missing required client capability: extension {EXTENSION}",
            data={"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
        )


def _declares(context: Context) -> bool:
    # What another request of the same connection has declared does not count.
    told = (context.meta or {}).get(types.CLIENT_CAPABILITIES_META_KEY)
    extensions = told.get("extensions") if isinstance(told, Mapping) else None
    return isinstance(extensions, Mapping) and EXTENSION in extensions


def _is_modern(context: Context) -> bool:
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS


def _check_routed(context: Context, task_id: str) -> None:
    """On Streamable HTTP, the header that requests are routed by names the task.

    The SDK checks this header for the methods that it knows, and there are no tasks among them.
    """
    headers = {} if context.request is None else context.request.headers
    if MCP_METHOD_HEADER not in headers:
        return
    if MCP_NAME_HEADER not in headers:
        raise MCPError(
            types.HEADER_MISMATCH, f"{MCP_NAME_HEADER} header is missing: it names the task, as 'taskId' does"
        )
    if decode_header_value(headers.get(MCP_NAME_HEADER)) != task_id:
        raise MCPError(
            types.HEADER_MISMATCH, f"{MCP_NAME_HEADER} header does not match the request body's 'taskId'"
        )


def _waits_itself(arguments: Mapping[str, Any]) -> bool:
    meant = understood(RunCommand, arguments)
    # A wait of 0 is one; what is false is as good as not given.
    return any((given := meant.get(name)) is not None and given is not False for name in _SHAPES_THE_WAIT)


def _bare(view: Mapping[str, Any]) -> dict[str, Any]:
    """The Task of the specification, from the view of get_result."""
    return {
        "taskId": view["task_id"],
        "status": _status(view["state"]),
        "statusMessage": _message(view),
        "createdAt": view["created_at"],
        "lastUpdatedAt": view["history"][-1]["at"],
        "ttlMs": None,  # nothing is removed unless somebody asks for it
        "pollIntervalMs": min(max(_SOONEST_MS, view["elapsed_ms"] // 10), _LATEST_MS),
    }


def _status(state: str) -> str:
    """The status on the wire; `failed` is for JSON-RPC errors, and a command that fails is none."""
    if state in _OPEN:
        return "working"
    return "cancelled" if state == "cancelled" else "completed"


def _message(view: Mapping[str, Any]) -> str:
    said = [
        view["state"],
        duration(view["elapsed_ms"]),
        f"stdout {view['stdout_bytes']} B",
        f"stderr {view['stderr_bytes']} B",
    ]
    if "exit_code" in view:
        said.insert(1, f"exit code {view['exit_code']}")
    if "signal" in view:
        said.insert(1, f"by {view['signal']}")
    if "queue" in view:
        said.append(f"waiting for {view['queue']['waiting_for']}")
    return "; ".join(filter(None, (", ".join(said), view.get("warning"))))
