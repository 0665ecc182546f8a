"""Our server with what the suite expects to find in a server: wrapped around it, nothing is taken away.

Whatever is not one of the suite's own tools, resources and prompts is answered by our server as always.
The tools of the tasks scenarios run commands through `run_command`, so those tasks are real ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError

from mcp_tasks.server.callers import Context
from mcp_tasks.server.mcp_server import TasksServer
from tests.conformance import contents, questions
from tests.conformance.contents import Tool, text
from tests.conformance.jobs import job_tools
from tests.conformance.questions import ask, form, given

__all__ = ["extend"]

_Handler = Callable[[Context, Any], Awaitable[Any]]

_PROMPT_THAT_ASKS: Final = "test_input_required_result_prompt"
_CONTEXT: Final = form("What context should the prompt use?", context={"type": "string"})


def extend(server: TasksServer) -> TasksServer:
    """Wrap the handlers of a server."""
    bus = InMemorySubscriptionBus()
    _wrap_tools(server, bus)
    _wrap_resources(server)
    _wrap_prompts(server)
    _wrap_listening(server, ListenHandler(bus))

    async def acknowledge(_: Context, _params: Any) -> types.EmptyResult:
        return types.EmptyResult()

    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, acknowledge)
    return server


def _ours(server: Server[Any], method: str) -> _Handler:
    """The handler that the server has of itself."""
    entry = server.get_request_handler(method)

    async def none(_: Context, _params: Any) -> Any:
        raise MCPError(types.METHOD_NOT_FOUND, "Method not found", data=method)

    return none if entry is None else entry.handler


def _wire(result: Any) -> dict[str, Any]:
    if isinstance(result, Mapping):
        return dict(result)
    dumped: dict[str, Any] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return dumped


def _wrap_list(server: Server[Any], method: str, key: str, added: list[dict[str, Any]]) -> None:
    """Let the first page of a listing begin with what is added."""
    served = server.get_request_handler(method) is not None
    ours = _ours(server, method)

    async def listing(context: Context, params: types.PaginatedRequestParams) -> dict[str, Any]:
        page = _wire(await ours(context, params)) if served else {key: []}
        if params.cursor is None:
            page[key] = [*added, *page[key]]
        return page

    server.add_request_handler(method, types.PaginatedRequestParams, listing)


def _wrap_tools(server: Server[Any], bus: InMemorySubscriptionBus) -> None:
    ours = _ours(server, "tools/call")
    nothing: dict[str, Any] = {"type": "object", "properties": {}}

    async def run(context: Context, command: str) -> dict[str, Any]:
        arguments = {"command": command}
        return _wire(
            await ours(context, types.CallToolRequestParams(name="run_command", arguments=arguments))
        )

    async def announce(event: ServerEvent, _: Context, _params: Any) -> dict[str, Any]:
        await bus.publish(event)
        return {"content": [text("announced")]}

    tools: dict[str, Tool] = {
        **contents.TOOLS,
        **questions.TOOLS,
        **job_tools(run),
        "test_trigger_tool_change": (nothing, partial(announce, ToolsListChanged())),
        "test_trigger_prompt_change": (nothing, partial(announce, PromptsListChanged())),
    }

    async def call(context: Context, params: types.CallToolRequestParams) -> Any:
        tool = tools.get(params.name)
        return await ours(context, params) if tool is None else _complete(await tool[1](context, params))

    schema_of_ours = server.get_tool_input_schema

    def schema_of(name: str) -> Mapping[str, Any] | None:
        if name in tools:
            return tools[name][0]
        return None if schema_of_ours is None else schema_of_ours(name)

    server.get_tool_input_schema = schema_of
    server.add_request_handler("tools/call", types.CallToolRequestParams, call)
    listed = [
        {"name": name, "description": _described(name), "inputSchema": schema}
        for name, (schema, _) in tools.items()
    ]
    _wrap_list(server, "tools/list", "tools", listed)


def _wrap_resources(server: Server[Any]) -> None:
    ours = _ours(server, "resources/read")

    async def read(context: Context, params: types.ReadResourceRequestParams) -> Any:
        found = contents.read(str(params.uri))
        return (
            await ours(context, params)
            if found is None
            else _complete({"contents": [found], "ttlMs": 0, "cacheScope": "private"})
        )

    listed = [
        {"uri": uri, "name": uri, "description": _described(uri), "mimeType": content["mimeType"]}
        for uri, content in contents.RESOURCES.items()
    ]
    template = {"uriTemplate": contents.TEMPLATE, "name": "template", "mimeType": "application/json"}
    _wrap_list(server, "resources/list", "resources", listed)
    _wrap_list(server, "resources/templates/list", "resourceTemplates", [template])
    server.add_request_handler("resources/read", types.ReadResourceRequestParams, read)
    for method, kind in (
        ("resources/subscribe", types.SubscribeRequestParams),
        ("resources/unsubscribe", types.UnsubscribeRequestParams),
    ):
        server.add_request_handler(method, kind, partial(_attend, _ours(server, method)))


async def _attend(ours: _Handler, context: Context, params: Any) -> Any:
    known = str(params.uri) in contents.RESOURCES
    return types.EmptyResult() if known else await ours(context, params)


def _wrap_prompts(server: Server[Any]) -> None:
    ours, complete_ours = _ours(server, "prompts/get"), _ours(server, "completion/complete")

    async def get(context: Context, params: types.GetPromptRequestParams) -> Any:
        if params.name == _PROMPT_THAT_ASKS:
            response = given(params.input_responses, "user_context")
            if response is None:
                return ask({"user_context": _CONTEXT})
            said = text(f"Prompt with context: {response}")
            return _complete({"messages": [{"role": "user", "content": said}]})
        if params.name not in contents.PROMPTS:
            return await ours(context, params)
        parts = contents.prompt(params.name, params.arguments or {})
        return _complete({"messages": [{"role": "user", "content": part} for part in parts]})

    async def complete(context: Context, params: types.CompleteRequestParams) -> Any:
        ref = params.ref
        if isinstance(ref, types.PromptReference) and ref.name in contents.PROMPTS:
            return _complete({"completion": {"values": ["paris", "park"], "total": 2, "hasMore": False}})
        return await complete_ours(context, params)

    listed = [
        {
            "name": name,
            "description": _described(name),
            "arguments": [{"name": argument, "required": True} for argument in arguments],
        }
        for name, arguments in {**contents.PROMPTS, _PROMPT_THAT_ASKS: ()}.items()
    ]
    _wrap_list(server, "prompts/list", "prompts", listed)
    server.add_request_handler("prompts/get", types.GetPromptRequestParams, get)
    server.add_request_handler("completion/complete", types.CompleteRequestParams, complete)


def _wrap_listening(server: Server[Any], announcements: ListenHandler) -> None:
    """Our lists of tools and prompts never change; those of the fixture are said to."""
    ours = _ours(server, "subscriptions/listen")

    async def listen(context: Context, params: types.SubscriptionsListenRequestParams) -> Any:
        wanted = params.notifications
        if wanted.tools_list_changed or wanted.prompts_list_changed:
            return await announcements(context, params)
        return await ours(context, params)

    server.add_request_handler("subscriptions/listen", types.SubscriptionsListenRequestParams, listen)


def _described(name: str) -> str:
    return f"Of the conformance suite: {name}"


def _complete(result: dict[str, Any]) -> dict[str, Any]:
    """What results of 2026-07-28 have to say; the SDK drops it from those of 2025-11-25."""
    return {"resultType": "complete", **result}
