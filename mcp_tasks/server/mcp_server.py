"""The MCP server object that any transport can serve: everything that a client may ask, put together.

Arguments, schemas and results are ours from end to end, so it is built on the SDK's low-level class,
which serves both protocol eras: 2025-11-25 and 2026-07-28.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any, Final, Protocol

import mcp_types as types
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions

from mcp_tasks.server.callers import Callers, CallerSettings, Identify
from mcp_tasks.server.completions import Completions
from mcp_tasks.server.native_tasks import NativeTasks, TaskFeed
from mcp_tasks.server.prompts import Prompts
from mcp_tasks.server.resources import Resources
from mcp_tasks.server.standing import StandingSubscriptions
from mcp_tasks.server.subscriptions import Subscriptions
from mcp_tasks.server.tools import Tools
from mcp_tasks.server.toolsets import ToolSet
from mcp_tasks.service import Service

__all__ = ["ServerSettings", "TasksServer", "build_server"]

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


class ServerSettings(CallerSettings, Protocol):
    """What the server needs to know of the settings."""

    @property
    def owner(self) -> str:
        """Whose tasks are started and found where the transport itself is the proof, as stdio is."""
        ...

    @property
    def tools(self) -> ToolSet:
        """The tools that are listed and taken."""
        ...


class TasksServer(Server[Any]):
    """The server object.

    Attributes:
        subscriptions: The streams that clients of 2026-07-28 listen to, for who has to end them.
    """

    subscriptions: Subscriptions

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """As the SDK does, and say to clients of 2025-11-25 that they are told when tasks come and go."""
        options = notification_options or NotificationOptions(resources_changed=True)
        return super().create_initialization_options(options, experimental_capabilities, extensions)


def build_server(service: Service, settings: ServerSettings, identify: Identify) -> TasksServer:
    """Make the server object.

    Args:
        service: Carries out the calls.
        settings: Session, tools and longest wait.
        identify: Says who makes a request.
    """
    callers = Callers(settings, identify)
    tools = Tools(service, callers, settings.tools)
    resources = Resources(service, callers)
    standing = StandingSubscriptions(service, callers)
    prompts = Prompts(service, callers)
    server = TasksServer(
        "mcp_tasks",
        version=_version(),
        title="mcp_tasks",
        instructions=_INSTRUCTIONS + (_FULL_INSTRUCTIONS if settings.tools == "full" else ""),
        on_list_tools=tools.list_tools,
        get_tool_input_schema=tools.input_schema,
        on_list_resources=standing.after(resources.list_resources),
        on_list_resource_templates=resources.list_templates,
        on_read_resource=resources.read,
        on_subscribe_resource=standing.subscribe,
        on_unsubscribe_resource=standing.unsubscribe,
        on_list_prompts=prompts.list_prompts,
        on_get_prompt=prompts.get,
        on_completion=Completions(service, callers).complete,
    )
    native = NativeTasks(service, callers)
    server.subscriptions = Subscriptions(service, callers, (TaskFeed(service, callers, native),))
    server.add_request_handler(
        "subscriptions/listen", types.SubscriptionsListenRequestParams, server.subscriptions.listen
    )
    # Not as `on_call_tool`: that one wants a model, which would be built only to be taken apart again.
    server.add_request_handler("tools/call", types.CallToolRequestParams, native.around(tools.call_tool))
    native.serve_on(server)
    return server


def _version() -> str:
    try:
        return importlib.metadata.version("mcp-tasks")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "0"
