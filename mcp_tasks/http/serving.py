"""Listen, say where, serve until a signal, and end while commands live on."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final, Protocol

import anyio
import uvicorn

from mcp_tasks.http.application import ApplicationSettings, build_application
from mcp_tasks.http.connections import Connection
from mcp_tasks.http.ending import Ending
from mcp_tasks.http.listening import listening_at, listening_at_file
from mcp_tasks.server.log import log_to_stderr
from mcp_tasks.service import Service

__all__ = ["HttpSettings", "serve_http"]

_EXIT_SECONDS: Final = 4.7
"""From the signal to the end of the process, at most; the contract says 5 s."""

_LAST_TASKS_SECONDS: Final = 1
"""How long uvicorn waits for what is still open after everything was asked to end."""

_KEEP_ALIVE_SECONDS: Final = 75
"""How long a connection is kept for a next request. Many clients do not try again when a connection is
closed in the moment in which they use it, so it outlasts the minute that proxies and pools keep it."""

_log = logging.getLogger(__name__)


class HttpSettings(ApplicationSettings, Protocol):
    """What serving over HTTP needs to know of the settings."""

    @property
    def port(self) -> int:
        """Port to listen at; 0 takes a free one."""
        ...

    @property
    def max_connections(self) -> int:
        """How many connections may be open."""
        ...


async def serve_http(service: Service, settings: HttpSettings, path: str) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP.

    Args:
        service: Stays open; who opened it closes it.
        settings: Where to listen, and what the MCP server needs.
        path: What the line that says where to find it names: `/mcp` or `/sse`.

    Raises:
        InvalidArgument: It cannot listen there, or a setting is wrong.
        StoreUnavailable: The token cannot be kept.
    """
    log_to_stderr()
    ending = build_application(service, settings)
    config = uvicorn.Config(
        ending,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anybody can say that somebody else has sent his request
        limit_concurrency=_bearable(settings.max_connections),
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_LAST_TASKS_SECONDS,
    )
    with _listening(settings) as (listener, url):
        where = url if settings.uds else f"{url}{path}"
        server = _Server(config, ending, f"listening on {where}\n")
        async with anyio.create_task_group() as group:
            group.start_soon(_end_on_signal, server)
            await server.serve(sockets=[listener])
            group.cancel_scope.cancel()


def _listening(settings: HttpSettings) -> AbstractContextManager[tuple[socket.socket, str]]:
    if settings.uds is not None:
        return listening_at_file(settings.uds)
    return listening_at(settings.host, settings.port)


def _bearable(wanted: int) -> int:
    """As many connections as there may be, and no more than leave descriptors for files and commands."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    bearable = max(16, descriptors * 3 // 4) if descriptors != resource.RLIM_INFINITY else wanted
    if bearable < wanted:
        _log.warning("%d connections at most: there are %d descriptors (ulimit -n)", bearable, descriptors)
    return min(wanted, bearable)


class _Server(uvicorn.Server):
    """See uvicorn's own server; what ends it and in which order is ours."""

    def __init__(self, config: uvicorn.Config, ending: Ending, announcement: str) -> None:
        super().__init__(config)
        self._ending = ending
        self._announcement = announcement

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would end the process by them, with the service still open."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say where it is as soon as it can be reached."""
        await super().startup(sockets)
        sys.stderr.write(self._announcement)
        sys.stderr.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in, answer what was asked, end the streams, and then the rest."""
        for server in self.servers:
            server.close()
        await self._ending.end()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


async def _end_on_signal(server: uvicorn.Server) -> None:
    # A signal that is ignored stays ignored: that is what nohup(1) asks for.
    wanted = [
        each
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(each) is not signal.SIG_IGN
    ]
    with anyio.open_signal_receiver(*wanted) as received:
        async for each in received:
            if not server.should_exit:
                _log.info("ending: got %s", each.name)
                _bound_the_end()
            server.should_exit = True


def _bound_the_end() -> None:
    """End the process in time, from a thread that nothing in here can hold up.

    Nothing is lost by that: what is acknowledged is on disk, and what runs has a supervisor.
    """
    timer = threading.Timer(_EXIT_SECONDS, os._exit, (0,))
    timer.daemon = True
    timer.start()
