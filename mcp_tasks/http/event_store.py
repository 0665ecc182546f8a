"""What clients of 2025-11-25 have been sent, so that one whose connection broke is sent it again.

The SDK shares one store over all MCP sessions, and its stream ids are the request ids that clients
choose: 1, 2, 3 in each session. So each session has events of its own here; what they may take together
is bounded, and the oldest go first, whoever they are of.
"""

from __future__ import annotations

import secrets
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Final

import anyio
from mcp.server.streamable_http import GET_STREAM_KEY, EventCallback, EventMessage, EventStore
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCResponse, jsonrpc_message_adapter

__all__ = ["EventRoom", "SessionEvents"]

_MOST_BYTES: Final = 64 * 2**20
_MOST_OF_SESSION: Final = 1_000
_OVERHEAD: Final = 400
"""What an event takes besides its text, in bytes, roughly."""


class EventRoom:
    """The room that the events of all sessions share.

    Args:
        most_bytes: For all of them.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._order: deque[tuple[weakref.ref[SessionEvents], str, int]] = deque()

    @property
    def bytes(self) -> int:
        """What they take now."""
        return self._bytes

    def taken(self, by: SessionEvents, event_id: str, size: int) -> None:
        """Count an event, and drop the oldest ones where there is no room for it."""
        self._order.append((weakref.ref(by), event_id, size))
        self._bytes += size
        while self._bytes > self._most_bytes:
            holder, oldest, freed = self._order.popleft()
            self._bytes -= freed
            events = holder()
            if events is not None:
                events.drop(oldest)


@dataclass(frozen=True, slots=True)
class _Event:
    stream_id: str
    text: bytes | None
    """The message as JSON; None for an event that only gives the client an id to come back with."""

    ends: bool
    """Whether it answers the request that the stream is of: nothing comes after it."""


class SessionEvents(EventStore):
    """The events of one MCP session. Their ids cannot be guessed.

    A client that comes back to the stream of a request is served from here until the answer has come:
    every message is here before it is anywhere else, so none is missed between what is sent again and
    what is sent on.
    """

    def __init__(self, room: EventRoom) -> None:
        self._room = room
        self._events: dict[str, _Event] = {}
        self._added = anyio.Event()
        self._ended = False

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        """Keep a message; see `EventStore`."""
        text = None
        if message is not None:
            text = message.model_dump_json(by_alias=True, exclude_unset=True).encode()
        event_id = secrets.token_urlsafe(16)
        ends = isinstance(message, JSONRPCResponse | JSONRPCError) and stream_id != GET_STREAM_KEY
        self._events[event_id] = _Event(stream_id, text, ends)
        if len(self._events) > _MOST_OF_SESSION:
            self.drop(next(iter(self._events)))
        self._room.taken(self, event_id, len(text or b"") + _OVERHEAD)
        self._wake()
        return event_id

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        """Send what came after an event on its stream, up to the answer; see `EventStore`.

        Of the stream that is no request's, what is there is sent, and the rest is the SDK's to send.
        """
        last = self._events.get(last_event_id)
        if last is None or last.ends:
            return None
        sent = last_event_id
        while True:
            added = self._added
            for event_id, event in self._after(sent, last.stream_id):
                sent = event_id
                if event.text is not None:
                    message = jsonrpc_message_adapter.validate_json(event.text, by_name=False)
                    await send_callback(EventMessage(message, event_id))
                if event.ends:
                    return None
            if last.stream_id == GET_STREAM_KEY:
                return last.stream_id
            if self._ended:
                return None
            await added.wait()

    def end(self) -> None:
        """The session is over: nothing comes any more for those who came back."""
        self._ended = True
        self._wake()

    def drop(self, event_id: str) -> None:
        """Forget an event."""
        self._events.pop(event_id, None)

    def _wake(self) -> None:
        added, self._added = self._added, anyio.Event()
        added.set()

    def _after(self, event_id: str, stream_id: str) -> list[tuple[str, _Event]]:
        """What came after an event on a stream; all of the stream where it has been dropped meanwhile."""
        found: list[tuple[str, _Event]] = []
        for known_id, event in self._events.items():
            if known_id == event_id:
                found.clear()
            elif event.stream_id == stream_id:
                found.append((known_id, event))
        return found
