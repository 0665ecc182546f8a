"""`resources/subscribe` of 2025-11-25: it is answered at once, and holds for as long as the connection.

A client of that era is also told when tasks come and go, once it has asked for the list of resources: who
never does costs nothing.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import anyio
import mcp_types as types
from mcp.server.connection import Connection
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcp_tasks.errors import TaskNotFound, TasksError, innermost
from mcp_tasks.server.callers import Callers, Context
from mcp_tasks.server.protocol_errors import told_as_protocol_errors
from mcp_tasks.server.resource_updates import heard_of, members_of, tell_list_changes, tell_updates
from mcp_tasks.server.task_uris import TaskUri
from mcp_tasks.service import Service

__all__ = ["StandingSubscriptions"]

_MOST: Final = 10_000
_MOST_OF_ONE: Final = 1_000
"""Of one connection, so that nobody takes them all."""

_STATE: Final = "mcp_tasks/standing"
_LIST: Final = ""
"""Stands for the list among the addresses of resources."""

_List: TypeAlias = Callable[
    [Context, types.PaginatedRequestParams | None], Awaitable[types.ListResourcesResult]
]

_log = logging.getLogger(__name__)


class StandingSubscriptions:
    """Subscriptions that hold while their connection does."""

    def __init__(self, service: Service, callers: Callers) -> None:
        self._service = service
        self._callers = callers
        self._count = 0

    async def subscribe(self, context: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        """Answer `resources/subscribe`.

        Raises:
            MCPError: There is no such resource for the caller (-32602), or there are too many subscriptions.
        """
        with told_as_protocol_errors(context):
            caller = self._callers.caller(context)
            task = TaskUri.parse(params.uri)
            known = await heard_of(self._service, caller, [params.uri])
            if not known:
                raise TaskNotFound(task.task_id)
            updated = context.session.send_resource_updated
            await self._stand(
                context, params.uri, functools.partial(tell_updates, self._service, caller, known, updated)
            )
        return types.EmptyResult()

    async def unsubscribe(
        self, context: Context, params: types.UnsubscribeRequestParams
    ) -> types.EmptyResult:
        """Answer `resources/unsubscribe`; harmless where there is no such subscription."""
        scope = _standing(context).pop(params.uri, None)
        if scope is not None:
            scope.cancel()
        return types.EmptyResult()

    def after(self, list_resources: _List) -> _List:
        """`resources/list` for a client that hears of changes to it afterwards."""

        async def listed(
            context: Context, params: types.PaginatedRequestParams | None
        ) -> types.ListResourcesResult:
            if context.protocol_version not in MODERN_PROTOCOL_VERSIONS and _LIST not in _standing(context):
                # Before the list is read: a task that comes meanwhile is told of.
                await self._hear_of_list(context)
            return await list_resources(context, params)

        return listed

    async def _hear_of_list(self, context: Context) -> None:
        async def changed() -> None:
            await context.session.send_notification(types.ResourceListChangedNotification())

        try:
            with told_as_protocol_errors(context):
                caller = self._callers.caller(context)
                known = await members_of(self._service, caller)
            await self._stand(
                context, _LIST, functools.partial(tell_list_changes, self._service, caller, known, changed)
            )
        except MCPError as error:
            _log.info("a client is not told of changes to the list: %s", error)

    async def _stand(self, context: Context, uri: str, tell: Callable[[], Awaitable[None]]) -> None:
        """Tell until the connection ends, unless that is done already."""
        standing = _standing(context)
        if uri in standing:
            return
        if len(standing) >= _MOST_OF_ONE or self._count >= _MOST:
            raise MCPError(
                types.INTERNAL_ERROR, "Subscription limit reached", data={"hint": "end another one first"}
            )
        self._count += 1

        async def told() -> None:
            try:
                await tell()
            except* TasksError as errors:
                _log.info("a subscription ends: %s", innermost(errors))
            finally:
                self._count -= 1
                if standing.get(uri) is scope:
                    del standing[uri]

        scope = standing[uri] = anyio.CancelScope()
        await self._service.watching.post(told, scope)


def _standing(context: Context) -> dict[str, anyio.CancelScope]:
    """The subscriptions of the connection that a request has come by, which end with it."""
    # What the SDK keeps for each connection, and undoes at its end, has no public face for handlers yet.
    connection: Connection = context.session._connection  # noqa: SLF001
    standing: dict[str, anyio.CancelScope] | None = connection.state.get(_STATE)
    if standing is None:
        standing = connection.state[_STATE] = {}
        connection.exit_stack.callback(_end, standing)
    return standing


def _end(standing: dict[str, anyio.CancelScope]) -> None:
    for scope in list(standing.values()):
        scope.cancel()
