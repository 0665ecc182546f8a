"""The warm process that supervisors are forked from. Standard library only.

A server starts one launcher and talks to it over a socket pair. The launcher always keeps one
supervisor forked and waiting on that socket, so that a launch costs no fork. It reads nothing itself:
the supervisor in front takes exactly one frame, says so, and the next one is forked.

As a child subreaper the launcher also inherits the tree of a supervisor that was killed, and ends it.
It stays for as long as one of its supervisors lives, whether its server does or not.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket

from mcp_tasks.executors import tree
from mcp_tasks.executors.supervisor import stand_by

__all__ = ["main"]

_RETRY_MS = 50
# About as long as a command takes to start; a fork beside it would cost it a quarter of that.
_HOLD_BACK_MS = 3


def main(descriptor: int) -> None:
    """Serve launches that come on the socket `descriptor`, until it ends and the last supervisor is gone."""
    if os.fork():
        os._exit(0)
    os.setsid()
    # A client that ends its server by parent pid or by process group does not reach this process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir("/")
    tree.become_subreaper()
    gc.collect()
    gc.freeze()
    gc.disable()
    Launcher(socket.socket(fileno=descriptor)).run()


class Launcher:
    """Keeps one supervisor waiting, and looks after those that are busy."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel: socket.socket | None = channel
        self._supervisors: set[int] = set()
        self._orphans = False
        self._baton: int | None = None
        self._wakeup, self._wakeup_writer = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._wakeup_writer, False)

    def run(self) -> None:
        """Fork, reap and tidy until there is nothing left to look after."""
        signal.signal(signal.SIGCHLD, _nothing)
        signal.signal(signal.SIGTERM, _nothing)
        signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        while self._channel is not None or self._supervisors or self._orphans:
            if self._channel is not None and self._baton is None:
                self._fork()
            self._wait()
            self._reap()
            if self._baton is None and self._channel is not None:
                self._hold_back(self._channel)

    def _hold_back(self, channel: socket.socket) -> None:
        """Let the command that is being started have the processor, unless the next launch waits."""
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        poll.poll(_HOLD_BACK_MS)

    def _fork(self) -> None:
        # Without a process to be had now, launches wait in the socket; the server has its own patience.
        try:
            reader, writer = os.pipe()
        except OSError:
            return
        try:
            pid = os.fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            return
        if not pid:
            self._become_supervisor(reader, writer)
        os.close(writer)
        self._baton = reader
        self._supervisors.add(pid)

    def _become_supervisor(self, reader: int, writer: int) -> None:
        status = 70
        try:
            signal.set_wakeup_fd(-1)
            for descriptor in (reader, self._wakeup, self._wakeup_writer):
                os.close(descriptor)
            channel, self._channel = self._channel, None
            if channel is not None:

                def taken() -> None:
                    # A launcher that was killed meanwhile does not matter to this launch.
                    with contextlib.suppress(BrokenPipeError):
                        os.write(writer, b"1")
                    os.close(writer)

                stand_by(channel, taken)
            status = 0
        finally:
            os._exit(status)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        if self._baton is not None:
            poll.register(self._baton, select.POLLIN)
        idle = self._baton is not None or self._channel is None
        ready = {descriptor for descriptor, _ in poll.poll(None if idle and not self._orphans else _RETRY_MS)}
        if self._baton in ready and self._baton is not None:
            if not os.read(self._baton, 1):
                # The supervisor in front left without a launch: the socket ended, or its place in the
                # stream is unknown. Either way no further frame can be read from it.
                self._stop_serving()
            os.close(self._baton)
            self._baton = None
        if self._wakeup in ready:
            try:
                if signal.SIGTERM in os.read(self._wakeup, 4096):
                    self._stop_serving()
            except BlockingIOError:
                return

    def _stop_serving(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._orphans = False
                return
            if not pid:
                break
            self._supervisors.discard(pid)
        # Whatever is below here and below no supervisor has lost its own: it has no owner any more.
        strangers = [pid for pid in tree.children(os.getpid()) if pid not in self._supervisors]
        self._orphans = bool(strangers)
        for stranger in strangers:
            tree.kill([stranger, *tree.descendants(stranger)], os.getpid())


def _nothing(_number: int, _frame: object) -> None:
    """The wake-up pipe has the signal already."""
