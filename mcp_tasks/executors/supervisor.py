"""One running command and everything that is owed to it. Standard library only.

A supervisor is forked by the launcher before it is needed, takes one launch from the server and
outlives both. It owns the pipes, the deadline and the process tree, writes the exit record and goes
away. Whoever wants to know or to ask something does so through the run folder, whose files and
pipes are described in `mcp_tasks.executors.local`.
"""

from __future__ import annotations

import contextlib
import functools
import marshal
import mmap
import os
import resource
import signal
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any, Literal

from mcp_tasks.executors import tree, wire
from mcp_tasks.executors.capture import STREAMS, Capture, OutputFull
from mcp_tasks.executors.ending import TreeEnd
from mcp_tasks.executors.exit_record import ExitRecord, signal_name
from mcp_tasks.executors.feed import Feed
from mcp_tasks.executors.outset import Outset, unlink
from mcp_tasks.executors.readiness import Readiness
from mcp_tasks.executors.signals import drain, route_signals
from mcp_tasks.executors.spawning import output_pipe

__all__ = ["stand_by"]

_READ_SIZE = 256 << 10
_MOST_IN_PIPE = 1 << 20
# How long the pipes may go on after the command itself has ended, before the task counts as over.
_DRAIN_QUIET_S = 0.05
_DRAIN_MOST_S = 0.5
# poll(2) takes an int: a deadline that is further away is looked at again on the way.
_LONGEST_WAIT_MS = 86_400_000.0

Reason = Literal["timed_out", "cancelled", "output_limit"]


def stand_by(channel: socket.socket, taken: Callable[[], None]) -> None:
    """Wait for one launch on `channel`, call `taken`, and see it through. Returns when all is over."""
    # All that needs no launch is done before there is one, so that no command waits for it.
    os.setsid()
    tree.become_subreaper()
    wakeup = route_signals()
    pipes = [output_pipe() for _ in STREAMS]
    try:
        launch = wire.receive(channel)
    except (OSError, EOFError, ValueError, TypeError):
        # The server died in the middle of a launch. Nobody knows where in the stream the next begins.
        return
    if launch is None:
        return
    taken()
    channel.close()
    # What was signalled before there was a command does not concern it.
    drain(wakeup)
    message, descriptors = launch
    if len(descriptors) <= wire.REPLY:
        # There were too few descriptors to be had (MSG_CTRUNC); the server learns it from its end of file.
        return
    os.fchdir(descriptors[wire.FOLDER])
    try:
        Supervisor(message, descriptors, wakeup, pipes).run()
    except BaseException:
        _leave_word()
        raise


class Supervisor:
    """Sees one command through, from the preparation of its run folder to its last descendant."""

    def __init__(
        self, message: dict[str, Any], descriptors: list[int], wakeup: int, pipes: list[tuple[int, int]]
    ) -> None:
        self._message = message
        self._wakeup = wakeup
        self._folder = descriptors[wire.FOLDER]
        self._outset = Outset(message, self._folder, pipes)
        self._slot: int | None = descriptors[wire.SLOT]
        self._reply = socket.socket(fileno=descriptors[wire.REPLY])
        self._lifeline = descriptors[wire.LIFELINE] if message["lifeline"] else None
        self._pid = os.getpid()
        self._readiness = Readiness()
        # Mapped, so that only as much of it becomes memory as output comes at once.
        self._buffer = mmap.mmap(-1, _READ_SIZE)
        self._view = memoryview(self._buffer)
        self._record = ExitRecord(self._folder)

        self._command: int | None = None
        self._status: int | None = None
        self._usage: resource.struct_rusage | None = None
        self._exited_mono = 0.0
        self._quiet_since = 0.0
        self._outputs: dict[int, int] = {}
        self._feed: Feed | None = None

        self._reason: Reason | None = None
        self._detail = ""
        self._deadline: float | None = None
        self._tree_end = TreeEnd(self._pid, self._reap)
        self._recorded = False
        # Whether somebody asked, after the end, that what was left behind be ended too.
        self._dismissed = False
        self._orphaned = False

    # -- the life of a run -------------------------------------------------------------------------

    def run(self) -> None:
        """Wait for the word, start, watch, record, stay for what was left behind."""
        self._answer("ready")
        try:
            # While the server writes the claim. Its word finds everything but the command in place.
            self._outset.prepare()
            self._capture = self._new_capture()
        except OSError as error:
            self._outset.vanish()
            self._answer("unprepared", error.errno or 0, os.strerror(error.errno or 0))
            return
        if not self._is_told_to_go():
            self._outset.clear()
            self._outset.vanish()
            return
        try:
            # First, so that a launch that is still there has never been started.
            with contextlib.suppress(FileNotFoundError):
                os.unlink("launch")
        except OSError as error:
            self._answer("unprepared", error.errno or 0, os.strerror(error.errno or 0))
            return
        if self._start():
            self._watch()
        self._leave()

    def _is_told_to_go(self) -> bool:
        try:
            return self._reply.recv(1) == b"G"
        except OSError:
            # The server closed its end with our answer unread in it (ECONNRESET): that is no word either.
            return False

    def _answer(self, *fields: str | int) -> None:
        answer = marshal.dumps(fields)
        try:
            self._reply.sendall(len(answer).to_bytes(2, "big") + answer)
        except OSError:
            # The server is gone. What it had been told to do stands; whoever comes next reads the folder.
            return

    def _new_capture(self) -> Capture:
        return Capture(
            self._folder,
            self._message["max_output_bytes"],
            keep_tail=self._message["on_output_limit"] == "keep_tail",
            min_free=self._message["min_free_bytes"],
        )

    def _start(self) -> bool:
        self._started_mono = time.monotonic()
        self._started_at = time.time_ns() // 1_000_000
        try:
            self._command = self._outset.start(self._readiness)
        except (OSError, ValueError) as error:
            message = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            # Its name is not repeated: a whole line given as a program may hold a secret.
            astray = self._outset.is_astray
            what = "the directory cannot be entered" if astray else "the program could not be started"
            self._write_record("spawn_failed", f"{what}: {message}")
            self._stop_being_busy()
            self._answer("failed", message)
            return False
        self._answer("started", self._command, self._started_at)
        self._reply.close()
        self._feed = self._outset.feed
        self._outputs = self._outset.outputs()
        self._outset.tell(self._command, self._started_at, self._started_mono)
        if (timeout := self._message["timeout_ms"]) is not None:
            self._deadline = self._started_mono + timeout / 1000
        try:
            self._record.make_room()
        except OSError as error:
            # Nothing of what the command does could be kept.
            detail = f"there is no room for its exit record ({os.strerror(error.errno or 0)})"
            self._end("output_limit", self._message["grace_ms"], detail)
        return True

    def _watch(self) -> None:
        """Serve the command until it has ended, and then what it left running."""
        self._readiness.on(self._wakeup, self._on_signal)
        self._control = self._outset.control[0]
        self._readiness.on(self._control, self._hear)
        if self._lifeline is not None:
            self._readiness.on(self._lifeline, self._server_gone)
        for reader in self._outputs:
            self._readiness.on(reader, functools.partial(self._pump, reader))
        if self._feed is not None:
            self._feed.begin()
        while not self._is_over():
            self._readiness.wait(self._patience())
            self._tick()

    def _is_over(self) -> bool:
        if self._status is None:
            return False
        if not self._recorded or self._reap():
            return False
        return not self._outputs or self._dismissed

    def _patience(self) -> float | None:
        """Milliseconds until something is due, or None."""
        now = time.monotonic()
        due = []
        if self._deadline is not None and self._status is None:
            due.append(self._deadline)
        if self._tree_end.is_under_way:
            due.append(self._tree_end.due)
        elif self._status is not None and not self._recorded:
            due.append(min(self._quiet_since + _DRAIN_QUIET_S, self._exited_mono + _DRAIN_MOST_S))
        if self._capture.index_waits:
            due.append(max(now, self._quiet_since + _DRAIN_QUIET_S))
        return min(max(0.0, (min(due) - now) * 1000 + 0.5), _LONGEST_WAIT_MS) if due else None

    def _tick(self) -> None:
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline and self._status is None:
            self._reap()
            if self._status is None:
                self._deadline = None
                self._end("timed_out", self._message["grace_ms"])
        if self._tree_end.is_under_way and now >= self._tree_end.due:
            self._tree_end.press(now, self._command)
        if self._capture.index_waits and now - self._quiet_since >= _DRAIN_QUIET_S:
            self._capture.flush_index()
        if self._status is not None and not self._recorded and self._is_drained(now):
            self._finish()

    def _is_drained(self, now: float) -> bool:
        if self._tree_end.is_under_way:
            # Whoever asked for the end is answered when nothing is left, and not before.
            return False
        if not self._outputs or now - self._exited_mono >= _DRAIN_MOST_S:
            return True
        return now - self._quiet_since >= _DRAIN_QUIET_S

    # -- events ------------------------------------------------------------------------------------

    def _pump(self, reader: int) -> int:
        """Keep what a stream has for us, at most one buffer full; returns its size."""
        try:
            size = os.readv(reader, [self._buffer])
        except BlockingIOError:
            return 0
        if not size:
            self._readiness.off(reader)
            os.close(reader)
            del self._outputs[reader]
            return 0
        now = time.monotonic()
        self._quiet_since = now
        try:
            self._capture.take(
                self._outputs[reader], self._view[:size], int((now - self._started_mono) * 1_000_000)
            )
        except OutputFull as full:
            if not self._recorded:
                self._end("output_limit", self._message["grace_ms"], str(full))
        return size

    def _on_signal(self) -> None:
        told_to_end = signal.SIGTERM in drain(self._wakeup)
        self._reap()
        self._tree_end.look_now()
        if told_to_end:
            self._end("cancelled", self._message["grace_ms"], "its supervisor was told to end")

    def _reap(self) -> bool:
        """Collect every child that has ended; whether any child is left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self._command and self._status is None:
                self._status = status
                self._usage = usage
                self._exited_mono = self._quiet_since = time.monotonic()
                if self._feed is not None:
                    self._feed.close()

    def _server_gone(self) -> None:
        """The lifeline ended: without the server there is nobody left to want this command."""
        if self._lifeline is not None:
            self._readiness.off(self._lifeline)
        self._orphaned = True
        self._end("cancelled", self._message["grace_ms"], "its server ended")

    def _hear(self) -> None:
        # A request that is taken after the command has ended by itself must not change its end.
        requests = drain(self._control)
        self._reap()
        for line in requests.split(b"\n"):
            # A request that makes no sense is no reason to lose a command.
            with contextlib.suppress(ValueError, OverflowError):
                self._obey(line.split())

    def _obey(self, request: list[bytes]) -> None:
        match request:
            case [b"1", b"cancel", grace, number]:
                grace_ms = int(grace)
                self._tree_end.ask_with(int(number))
                self._end("cancelled", grace_ms)
            case [b"1", b"signal", number] if self._status is None and self._command is not None:
                # The leader has not been reaped, so neither its pid nor its group can be a stranger's.
                try:
                    os.killpg(self._command, int(number))
                except ProcessLookupError:
                    # It went to another group.
                    tree.signal_process(self._command, int(number), self._pid)
                except OSError:
                    return
            case [b"1", b"eof"] if self._feed is not None:
                self._feed.end()
            case _:
                return

    # -- the end -----------------------------------------------------------------------------------

    def _end(self, reason: Reason, grace_ms: int, detail: str = "") -> None:
        """Begin to end the whole tree; what was asked for first names the outcome."""
        # Output that could not be kept is never a success, not even after the command's own end.
        if self._reason is None and (self._status is None or reason == "output_limit"):
            self._reason, self._detail = reason, detail
        self._dismissed = self._recorded
        self._tree_end.begin(grace_ms, self._command)

    def _finish(self) -> None:
        """Bring output and exit record to disk, then let everybody know."""
        # Who left the pipes to somebody else may still have written what is in them.
        for reader in list(self._outputs):
            left = _MOST_IN_PIPE
            while left > 0 and (size := self._pump(reader)):
                left -= size
        if self._tree_end.is_under_way:
            # That was too much, and there is somebody left to be ended first.
            return
        try:
            self._capture.sync()
        except OSError as error:
            self._reason = "output_limit"
            self._detail = f"the output could not be written ({os.strerror(error.errno or 0)})"
        self._write_record(self._reason or "ended", self._detail)
        self._stop_being_busy()

    def _stop_being_busy(self) -> None:
        """Free the place among the running, then wake whoever waits for the end: he may want the place."""
        if self._slot is not None:
            os.close(self._slot)
            self._slot = None
        if self._outset.alive is not None:
            os.close(self._outset.alive)
            self._outset.alive = None

    def _write_record(self, reason: str, message: str) -> None:
        """Write the exit record: the only authority on how the run ended, written once."""
        status, usage = self._status, self._usage
        exit_code = os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None
        killed = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
        ended = time.monotonic() if status is None else self._exited_mono
        elapsed = int((ended - self._started_mono) * 1000)
        left = tree.descendants(self._pid, self._command) if self._command is not None else []
        outcome = reason if reason != "ended" else "exited" if exit_code is not None else "signalled"
        self._recorded = True
        self._record.write(
            outcome=outcome,
            exit_code=exit_code,
            signal=signal_name(killed),
            message=message[:250],
            started_at=self._started_at,
            ended_at=self._started_at + elapsed,
            elapsed_ms=elapsed,
            user_ms=int(usage.ru_utime * 1000) if usage else 0,
            system_ms=int(usage.ru_stime * 1000) if usage else 0,
            max_rss_kib=usage.ru_maxrss if usage else 0,
            stdout_bytes=self._capture.sizes[0],
            stderr_bytes=self._capture.sizes[1],
            background=len(left),
            output_held=bool(self._outputs),
        )

    def _leave(self) -> None:
        """Take the pipes away; the lock goes with the process."""
        self._outset.clear()
        if self._orphaned:
            # The records died with the server, so the output has no reader any more.
            for name in os.listdir("."):
                unlink(name)
            self._outset.vanish()


def _leave_word() -> None:
    """Say in the run folder, which is the current one, what went wrong with us."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with open(os.open("supervisor.log", flags, 0o600), "a") as log:
            traceback.print_exc(file=log)
    except OSError:
        return
