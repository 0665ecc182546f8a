"""A client that has the extension for native tasks, as a host would build it upon the SDK."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Literal

import mcp_types as types
from mcp import Client
from mcp.client import ClaimContext, ClientExtension, NotificationBinding, ResultClaim

from mcp_tasks.server.native_tasks import EXTENSION

__all__ = ["Handle", "Hear", "TaskHandles", "ask", "call", "run"]


Hear = Callable[[dict[str, Any]], Awaitable[None]]


class Handle(types.Result):
    """A CreateTaskResult."""

    model_config: ClassVar[Any] = {**types.Result.model_config, "extra": "allow"}

    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    ttl_ms: int | None


async def _finish(handle: Handle, context: ClaimContext) -> types.CallToolResult:
    raise AssertionError("the tests go on from the handle themselves")


class _Notified(types.NotificationParams):
    """A DetailedTask that was pushed, all of it."""

    model_config: ClassVar[Any] = {**types.NotificationParams.model_config, "extra": "allow"}


class TaskHandles(ClientExtension):
    """Declares the extension, and takes handles for results."""

    identifier = EXTENSION

    def __init__(self, hear: Hear | None = None) -> None:
        self._hear = hear

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return (ResultClaim(result_type="task", model=Handle, resolve=_finish),)

    def notifications(self) -> Sequence[NotificationBinding[Any]]:
        hear = self._hear
        if hear is None:
            return ()

        async def heard(params: _Notified) -> None:
            await hear(params.model_dump(by_alias=True, exclude_unset=True))

        return (NotificationBinding(method="notifications/tasks", params_type=_Notified, handler=heard),)


class _Request(types.Request[dict[str, Any], str]):
    method: str
    params: dict[str, Any]


class _Answer(types.Result):
    """Any result, all of it."""

    model_config: ClassVar[Any] = {**types.Result.model_config, "extra": "allow"}


class _TaskRequest(_Request):
    name_param = "taskId"


async def ask(client: Client, method: str, **params: Any) -> dict[str, Any]:
    """Send a request of the extension; the result as it came over the wire, without `_meta`."""
    kind = _TaskRequest if "taskId" in params else _Request
    answer = await client.session.send_request(kind(method=method, params=params), _Answer)
    wire = answer.model_dump(by_alias=True, exclude_unset=True)
    wire.pop("_meta", None)
    return wire


async def call(client: Client, name: str, **arguments: Any) -> types.Result:
    """Call a tool; the answer is a Handle or a CallToolResult."""
    return await client.session.call_tool(name, arguments, allow_claimed=True)


async def run(client: Client, command: str, **arguments: Any) -> dict[str, Any]:
    """Run a command that is answered with a handle; that handle as it came over the wire."""
    answer = await call(client, "run_command", command=command, **arguments)
    assert isinstance(answer, Handle), answer
    handle = answer.model_dump(by_alias=True)
    handle.pop("_meta", None)
    return handle
