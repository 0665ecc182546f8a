"""`subscriptions/listen` of 2026-07-28: a request whose answer is a stream of what changes.

A client says what it wants to hear of, is told what of that it will hear, and then hears of it until it
goes away. Nothing that is missed is told again: who comes back asks for the state and listens anew.
Specification: https://modelcontextprotocol.io/specification/2026-07-28, basic/utilities/subscriptions.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeAlias

import anyio
import anyio.abc
import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY

from mcp_tasks.errors import TasksError, innermost
from mcp_tasks.server.callers import Callers, Context
from mcp_tasks.server.protocol_errors import told_as_protocol_errors
from mcp_tasks.server.resource_updates import heard_of, members_of, tell_list_changes, tell_updates
from mcp_tasks.service import Caller, Service

__all__ = ["Feed", "Subscriptions", "Tell"]

Tell: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Sends a notification: its method and its parameters."""

_MOST_STREAMS: Final = 4_000
_MOST_OF_ONE: Final = 1_000
"""Streams of one owner, so that nobody takes them all."""

_log = logging.getLogger(__name__)


class Feed(Protocol):
    """Something more that can be listened to: what an extension has added to the filter."""

    field: str
    """Its field of the filter, as it is on the wire."""

    async def agree(self, context: Context, wanted: object) -> object | None:
        """What of `wanted` will be told, for the acknowledgement; None for nothing of it.

        Raises:
            MCPError: It cannot be asked for like that.
        """
        ...

    async def tell(self, context: Context, agreed: object, tell: Tell) -> None:
        """Tell of what has been agreed upon, until there is no more to be told; cancelled at the end."""
        ...


class Subscriptions:
    """Serves the streams.

    Args:
        service: Tells what happens.
        callers: Tells who asks.
        feeds: What extensions add.
    """

    def __init__(self, service: Service, callers: Callers, feeds: tuple[Feed, ...] = ()) -> None:
        self._service = service
        self._callers = callers
        self._feeds = feeds
        self._open: Counter[str] = Counter()
        self._ending: set[anyio.Event] = set()

    def end(self) -> None:
        """End every stream in good order: each tells its client that it was meant."""
        for ending in self._ending:
            ending.set()

    async def listen(
        self, context: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """Answer `subscriptions/listen`; returns when the stream has been ended from this side.

        Raises:
            MCPError: There are too many streams, or nobody is known at the other end.
        """
        meta = {SUBSCRIPTION_ID_META_KEY: context.request_id}

        async def tell(method: str, params: dict[str, Any]) -> None:
            notification = types.Notification[dict[str, Any], str](
                method=method, params={**params, "_meta": meta}
            )
            await context.session.send_notification(
                notification,  # type: ignore[arg-type] # an extension's is none of the SDK's union
                related_request_id=context.request_id,
            )

        with told_as_protocol_errors(context):
            caller = self._callers.caller(context)
            with self._counted(caller) as ending:
                await self._serve(context, caller, params.notifications, tell, ending)
        return types.SubscriptionsListenResult(_meta=meta)

    async def _serve(
        self,
        context: Context,
        caller: Caller,
        wanted: types.SubscriptionFilter,
        tell: Tell,
        ending: anyio.Event,
    ) -> None:
        service = self._service
        resources = await heard_of(service, caller, wanted.resource_subscriptions or ())
        members = await members_of(service, caller) if wanted.resources_list_changed else None
        extra = wanted.model_extra or {}
        fed = [
            (feed, await feed.agree(context, extra[feed.field]))
            for feed in self._feeds
            if feed.field in extra
        ]
        agreed: dict[str, Any] = {
            # Tools and prompts are the same for as long as the server lives, so it is no lie.
            "toolsListChanged": wanted.tools_list_changed or None,
            "promptsListChanged": wanted.prompts_list_changed or None,
            "resourcesListChanged": wanted.resources_list_changed or None,
            "resourceSubscriptions": list(resources) or None,
            **{feed.field: told for feed, told in fed},
        }
        said = {name: value for name, value in agreed.items() if value is not None}
        await tell("notifications/subscriptions/acknowledged", {"notifications": said})

        async def updated(uri: str) -> None:
            await tell("notifications/resources/updated", {"uri": uri})

        async def changed() -> None:
            await tell("notifications/resources/list_changed", {})

        try:
            async with anyio.create_task_group() as group:
                if resources:
                    group.start_soon(tell_updates, service, caller, resources, updated)
                if members is not None:
                    group.start_soon(tell_list_changes, service, caller, members, changed)
                for feed, told in fed:
                    if told is not None:
                        group.start_soon(feed.tell, context, told, tell)
                await ending.wait()
                group.cancel_scope.cancel()
        except* TasksError as errors:
            # He may not hear of it any more: the stream ends, as it does when the server ends it.
            _log.info("a subscription ends: %s", innermost(errors))

    @contextmanager
    def _counted(self, caller: Caller) -> Iterator[anyio.Event]:
        """One more stream, for as long as the block lasts; the event asks for its end."""
        if self._open.total() >= _MOST_STREAMS or self._open[caller.owner] >= _MOST_OF_ONE:
            raise MCPError(
                types.INTERNAL_ERROR, "Subscription limit reached", data={"hint": "end another one first"}
            )
        ending = anyio.Event()
        self._open[caller.owner] += 1
        self._ending.add(ending)
        try:
            yield ending
        finally:
            self._ending.discard(ending)
            self._open[caller.owner] -= 1
            if not self._open[caller.owner]:
                del self._open[caller.owner]
