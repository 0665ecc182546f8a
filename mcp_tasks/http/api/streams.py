"""Server-sent events: the output and the state of a task as they come, and the tasks of a session.

What a client has had is told by the ids of the events: after an interruption it gives the last one in
Last-Event-ID, as browsers do by themselves, and the stream goes on from there.
"""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

import anyio
from anyio.abc import ObjectSendStream
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from mcp_tasks.api.problems import problem, status_of
from mcp_tasks.api.requests import FollowTask
from mcp_tasks.errors import InvalidArgument, TasksError
from mcp_tasks.http.api.watched import SessionWatch
from mcp_tasks.output import Cursor, Stream
from mcp_tasks.requests import ListTasks, PollTask
from mcp_tasks.service import Caller, Piece, Service

__all__ = ["follow_task", "watch_session"]

_PING_S: Final = 15
_END: Final = "end"
_FINAL: Final = frozenset({"completed", "failed", "cancelled", "lost"})

_OF_ANSWERS: Final = frozenset({"next", "more", "next_cursor"})
"""What an answer says of how to ask on; who is told of everything as it comes has nothing to ask."""

_Channel = ObjectSendStream[ServerSentEvent]


async def follow_task(
    service: Service, caller: Caller, request: FollowTask, last_event_id: str | None
) -> Response:
    """Stream `state`, `stdout` and `stderr` events, and an `end` when there is no more to come.

    Raises:
        TasksError: What there is to be refused is refused before the stream begins.
    """
    if last_event_id is not None and last_event_id.endswith(f"-{_END}"):
        return Response(status_code=204)  # which stops a browser from coming back for ever (HTML, 9.2.3)
    at = Cursor.parse(last_event_id) if last_event_id else None
    if at is not None and (request.stdout or request.stderr):
        raise InvalidArgument("Last-Event-ID does not go with stdout and stderr", "give one of them")
    look = PollTask(task_id=request.task_id, show="none", wait_ms=0)
    view = await service.poll_task(caller, look)
    following = _Following(
        service, caller, request, at or Cursor(view.get("run", 1), request.stdout, request.stderr)
    )
    return _events(following.feed)


async def watch_session(service: Service, caller: Caller, last_event_id: str | None) -> Response:
    """Stream a `task` event for each change of a task, and `tasks` when their number by state changes."""
    await service.list_tasks(caller, ListTasks(limit=1))  # refused before the stream begins
    watch = SessionWatch(service, caller, last_event_id)

    async def feed(channel: _Channel) -> None:
        async def tell(event: str, data: Mapping[str, Any], at: str | None) -> None:
            await channel.send(_event(event, _live(data), at))

        await watch.tell(tell)

    return _events(feed)


class _Following:
    """One task being followed by one client."""

    def __init__(self, service: Service, caller: Caller, request: FollowTask, at: Cursor) -> None:
        self._service = service
        self._caller = caller
        self._task_id = request.task_id
        self._at = at
        self._texts = _Texts() if request.encoding == "text" else None
        self._last: Mapping[str, Any] | None = None

    async def feed(self, channel: _Channel) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._states, channel)
            group.start_soon(self._output, channel)
        if self._last is not None:
            # Told after the output, so that who has read it has read everything.
            await channel.send(_event("state", _live(self._last)))
        await channel.send(_event(_END, {"task_id": self._task_id}, f"{self._at.encode()}-{_END}"))

    async def _states(self, channel: _Channel) -> None:
        async with aclosing(self._service.watch(self._caller, [self._task_id])) as views:
            async for view in views:
                if view["state"] in _FINAL:
                    self._last = view
                else:
                    await channel.send(_event("state", _live(view)))

    async def _output(self, channel: _Channel) -> None:
        at = self._at
        pieces = self._service.follow(self._caller, self._task_id, at.stdout, at.stderr, at.run)
        async with aclosing(pieces):
            async for piece in pieces:
                for event in self._shown(piece):
                    await channel.send(event)
        for event in self._rest():
            await channel.send(event)

    def _shown(self, piece: Piece) -> list[ServerSentEvent]:
        events = []
        if piece.run != self._at.run:
            events = self._rest()
            self._at = Cursor(piece.run)
        if self._texts is None:
            exact = {"data": base64.b64encode(piece.data).decode()}
            return [self._piece(piece.stream, piece.offset, len(piece.data), exact)]
        for offset, data in self._texts.take(piece):
            events.append(self._piece(piece.stream, offset, len(data), {"text": _text(data)}))
        return events

    def _rest(self) -> list[ServerSentEvent]:
        """What never became a whole character of the run that is over."""
        left = [] if self._texts is None else self._texts.rest()
        return [self._piece(stream, at, len(data), {"text": _text(data)}) for stream, at, data in left]

    def _piece(self, stream: Stream, offset: int, length: int, data: dict[str, str]) -> ServerSentEvent:
        end = offset + length
        at = self._at
        self._at = Cursor(at.run, end, at.stderr) if stream == "stdout" else Cursor(at.run, at.stdout, end)
        told = {"run": at.run, "offset": offset, "end": end, **data}
        return _event(stream, told, self._at.encode())


class _Texts:
    """Makes text of the pieces of both streams, without cutting a character in two."""

    def __init__(self) -> None:
        self._waiting: dict[Stream, tuple[int, bytes]] = {}

    def take(self, piece: Piece) -> list[tuple[int, bytes]]:
        """What is whole by now, each with its position."""
        offset, before = self._waiting.pop(piece.stream, (piece.offset, b""))
        whole = []
        if before and offset + len(before) != piece.offset:  # what lay between is gone
            whole.append((offset, before))
            offset, before = piece.offset, b""
        data = before + piece.data
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        decoder.decode(data)
        if rest := bytes(decoder.getstate()[0]):
            data = data[: -len(rest)]
            self._waiting[piece.stream] = (offset + len(data), rest)
        return [*whole, (offset, data)] if data else whole

    def rest(self) -> list[tuple[Stream, int, bytes]]:
        """What still waits for the rest of a character; from now on nothing does."""
        left = [(stream, offset, data) for stream, (offset, data) in self._waiting.items()]
        self._waiting.clear()
        return left


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _live(view: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in view.items() if name not in _OF_ANSWERS}


def _event(event: str, data: Mapping[str, Any], at: str | None = None) -> ServerSentEvent:
    # ASCII only, so that no character in it is taken for the end of a line.
    return ServerSentEvent(json.dumps(data, separators=(",", ":")), event=event, id=at, sep="\n")


def _events(feed: Callable[[_Channel], Awaitable[None]]) -> Response:
    # No room in between: what the client does not take is not read.
    sending, receiving = anyio.create_memory_object_stream[ServerSentEvent](0)

    async def feed_and_close() -> None:
        try:
            async with sending:
                try:
                    await feed(sending)
                except* TasksError as errors:
                    await sending.send(_event("problem", _problem(errors)))
        except BaseException:
            receiving.close()  # nobody may have begun to take anything
            raise

    async def taken() -> AsyncIterator[ServerSentEvent]:
        async with receiving:
            async for event in receiving:
                yield event

    return EventSourceResponse(taken(), ping=_PING_S, sep="\n", data_sender_callable=feed_and_close)


def _problem(error: BaseException) -> dict[str, Any]:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, TasksError):
        raise error
    return problem(status_of(error.code), error.message, error.hint, code=error.code)
