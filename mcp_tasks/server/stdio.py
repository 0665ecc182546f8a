"""Serve one client over stdin and stdout, and end soon after it has gone.

The server ends when stdin closes, on SIGTERM, SIGINT and SIGHUP, when nobody reads stdout any more,
and when the parent process dies, even if something else still holds stdin open.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.to_thread
import mcp_types as types
from anyio.streams.memory import MemoryObjectSendStream
from mcp.shared.message import SessionMessage

from mcp_tasks.errors import TasksError
from mcp_tasks.server.callers import Identity
from mcp_tasks.server.frames import decoded
from mcp_tasks.server.log import log_to_stderr
from mcp_tasks.server.mcp_server import ServerSettings, build_server
from mcp_tasks.server.open_requests import MOST_OPEN, OpenRequests
from mcp_tasks.server.wire import Inlet, Outlet, Wire, claimed_wire
from mcp_tasks.service import Service

__all__ = ["serve_stdio"]

_EXIT_SECONDS: Final = 4.7
"""From the client's going to the end of the process, at most; the contract says 5 s."""

_PARENT_SECONDS: Final = 0.5
_STUCK_SECONDS: Final = 1.0
_LAST_ANSWERS_SECONDS: Final = 1.0
"""How long the requests in flight may still be answered after stdin has closed."""

_FLUSH_SECONDS: Final = 0.5

_MAX_BACKLOG: Final = 2**20
"""So many bytes may wait for the client; then it is not read until it reads."""

_log = logging.getLogger(__name__)


async def serve_stdio(
    service: Service,
    settings: ServerSettings,
    *,
    wire: Wire | None = None,
    exit_seconds: float | None = _EXIT_SECONDS,
) -> None:
    """Serve until the client has gone.

    Args:
        service: Stays open; who opened it closes it.
        settings: Owner, session, tools and longest wait.
        wire: The descriptors; None takes stdin and stdout for as long as this lasts.
        exit_seconds: The process is ended so long after the client has gone, whatever still hangs
            then, in here or after the return: a thread that waits for a dead disk cannot be
            interrupted. Nothing is lost by that, because what is acknowledged is on disk and what
            runs has a supervisor. None leaves the process alone.
    """
    if wire is None:
        with claimed_wire() as claimed:
            await serve_stdio(service, settings, wire=claimed, exit_seconds=exit_seconds)
        return
    log_to_stderr()
    _log.info("serving on stdio")
    async with anyio.create_task_group() as group:
        connection = _Connection(wire, exit_seconds)
        group.start_soon(_report, service)
        group.start_soon(_end_with_parent, connection, os.getppid())
        group.start_soon(_end_on_signal, connection)
        group.start_soon(connection.outlet.drain)
        to_server, from_client = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        group.start_soon(connection.receive, to_server)
        attendance = service.attend("stdio")
        user = Identity(settings.owner, attendance=attendance)
        server = build_server(service, settings, lambda _: user)
        await server.run(from_client, connection, server.create_initialization_options())
        connection.end("the connection is closed")
        with anyio.CancelScope(shield=True):
            # The process ends in time even where this hangs; the next server then finds the client lost.
            await anyio.to_thread.run_sync(attendance.close)
        with anyio.move_on_after(_FLUSH_SECONDS):
            await connection.outlet.flush()
        group.cancel_scope.cancel()


class _Connection:
    """What one client has asked and not been told yet; the SDK's write stream, and its reader."""

    def __init__(self, wire: Wire, exit_seconds: float | None) -> None:
        self._exit_seconds = exit_seconds
        self._ending = False
        self._bounded: threading.Timer | None = None
        self.outlet = Outlet(wire.write, lambda: self.end("nobody reads stdout"))
        self._inlet = Inlet(wire.read)
        self._open = OpenRequests()
        self._reading = anyio.CancelScope()

    def end(self, reason: str, since: float = 0.0) -> None:
        """Take nothing more from the client, which has gone `since` so many seconds."""
        self._bound(since)
        if not self._ending:
            self._ending = True
            _log.info("ending: %s", reason)
            self._reading.cancel()

    def _bound(self, since: float) -> None:
        """End the process in time, from a thread that nothing in here can hold up."""
        if self._bounded is None and self._exit_seconds is not None:
            self._bounded = threading.Timer(self._exit_seconds - since, os._exit, (0,))
            self._bounded.daemon = True
            self._bounded.start()

    async def receive(self, into: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        """Hand over message after message until the client has gone. Closes `into`."""
        async with into:
            with self._reading:
                async for line in self._inlet.lines():
                    if not await self._clear_to_read():
                        self._bound(_STUCK_SECONDS)
                        break
                    message = decoded(line)
                    if isinstance(message, types.JSONRPCError):
                        await self.send(SessionMessage(message))
                    elif message is not None:
                        self._open.asked(message)
                        await into.send(SessionMessage(message))
                else:
                    self._bound(0.0)
                    await self._last_answers()
            self.end("stdin is closed")

    async def send(self, item: SessionMessage, /) -> None:
        """Write one message."""
        message = item.message
        line = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        try:
            await self.outlet.write(line)
        finally:
            self._open.told(message)

    async def aclose(self) -> None:
        """Nothing to do: `serve_stdio` closes what it opened."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _clear_to_read(self) -> bool:
        """Wait while the client has too much to read; false when it has gone meanwhile."""
        while len(self._open) >= MOST_OPEN or self.outlet.backlog >= _MAX_BACKLOG:
            with anyio.move_on_after(_STUCK_SECONDS) as waited:
                await self._open.change()
            if waited.cancelled_caught and self._inlet.hung_up():
                return False
        return True

    async def _last_answers(self) -> None:
        """Let requests end that were sent just before stdin closed, as `printf … | mcp-tasks` does."""
        with anyio.move_on_after(_LAST_ANSWERS_SECONDS):
            while self._open and not self.outlet.hung_up():
                await self._open.change()


async def _report(service: Service) -> None:
    """Say in the log what was found, but answer first: there may be many tasks to count."""
    try:
        _log.info(
            "found %s",
            await anyio.to_thread.run_sync(service.startup_report, abandon_on_cancel=True),
        )
    except TasksError as error:
        _log.warning("what is there cannot be told: %s", error)


async def _end_with_parent(connection: _Connection, parent: int) -> None:
    # An orphan is given another parent. There is nothing portable to wait for instead: Linux's
    # PR_SET_PDEATHSIG fires when the *thread* that started this process ends.
    while os.getppid() == parent:  # noqa: ASYNC110 - as above
        await anyio.sleep(_PARENT_SECONDS)
    connection.end("the parent process has ended", _PARENT_SECONDS)


async def _end_on_signal(connection: _Connection) -> None:
    # A signal that is ignored stays ignored: that is what nohup(1) asks for.
    wanted = [
        each
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(each) is not signal.SIG_IGN
    ]
    with anyio.open_signal_receiver(*wanted) as received:
        async for each in received:
            connection.end(f"got {each.name}")
