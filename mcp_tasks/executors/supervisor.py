"""One running command and everything that is owed to it. Standard library only.

A supervisor is forked by the launcher before it is needed, takes one launch from the server and
outlives both. It owns the pipes, the deadline and the process tree, writes the exit record and goes
away. Whoever wants to know or to ask something does so through the run folder, whose files and
pipes are described in `mcp_tasks.executors.local`.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import marshal
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Literal

from mcp_tasks.executors import tree, wire
from mcp_tasks.executors.capture import STREAMS, Capture, OutputFull

__all__ = ["stand_by"]

_READ_SIZE = 256 << 10
_PIPE_SIZE = 1 << 20
_RECORD_ROOM = 4096
_CREATE_RECORD = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_PIPES = ("alive", "control", "input")
# How long the pipes may go on after the command itself has ended, before the task counts as over.
_DRAIN_QUIET_S = 0.05
_DRAIN_MOST_S = 0.5
_SWEEP_S = 0.02

Reason = Literal["timed_out", "cancelled", "output_limit"]


def stand_by(channel: socket.socket, taken: Callable[[], None]) -> None:
    """Wait for one launch on `channel`, call `taken`, and see it through. Returns when all is over."""
    # All that needs no launch is done before there is one, so that no command waits for it.
    os.setsid()
    tree.become_subreaper()
    wakeup = _signals()
    pipes = [_output_pipe() for _ in STREAMS]
    launch = wire.receive(channel)
    if launch is None:
        return
    taken()
    channel.close()
    message, descriptors = launch
    os.fchdir(descriptors[wire.FOLDER])
    Supervisor(message, descriptors, wakeup, pipes).run()


class Supervisor:
    """Sees one command through, from the preparation of its run folder to its last descendant."""

    def __init__(
        self, message: dict[str, Any], descriptors: list[int], wakeup: int, pipes: list[tuple[int, int]]
    ) -> None:
        self._message = message
        self._wakeup = wakeup
        self._pipes = pipes
        self._folder = descriptors[wire.FOLDER]
        self._slot: int | None = descriptors[wire.SLOT]
        self._reply = socket.socket(fileno=descriptors[wire.REPLY])
        self._lifeline = descriptors[wire.LIFELINE] if message["lifeline"] else None
        self._pid = os.getpid()
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._buffer = bytearray(_READ_SIZE)
        self._view = memoryview(self._buffer)

        self._record: int | None = None
        self._command: int | None = None
        self._status: int | None = None
        self._usage: resource.struct_rusage | None = None
        self._exited_mono = 0.0
        self._quiet_since = 0.0
        self._outputs: dict[int, int] = {}
        self._stdin: int | None = None
        self._stdin_left = memoryview(b"")
        self._input: int | None = None
        self._closing_input = False

        self._reason: Reason | None = None
        self._detail = ""
        self._deadline: float | None = None
        self._kill_at: float | None = None
        self._asked: set[int] = set()
        self._soft_signal = signal.SIGTERM
        self._recorded = False
        # Whether somebody asked, after the end, that what was left behind be ended too.
        self._dismissed = False
        self._orphaned = False

    # -- the life of a run -------------------------------------------------------------------------

    def run(self) -> None:
        """Prepare, wait for the word, start, watch, record, stay for what was left behind."""
        self._answer("ready")
        if self._reply.recv(1) != b"G":
            self._withdraw()
            return
        try:
            self._open_pipes()
        except OSError as error:
            self._withdraw()
            self._answer("unprepared", error.errno or 0, os.strerror(error.errno or 0))
            return
        if self._start():
            self._watch()
        self._leave()

    def _open_pipes(self) -> None:
        for name in _PIPES[: 3 if self._message["interactive"] else 2]:
            os.mkfifo(name, 0o600)
        self._alive, self._alive_reader = _fifo("alive")
        os.close(self._alive_reader)
        self._control_writer, self._control = _fifo("control")
        if self._message["interactive"]:
            self._input_writer, self._input = _fifo("input")

    def _answer(self, *fields: str | int) -> None:
        answer = marshal.dumps(fields)
        try:
            self._reply.sendall(len(answer).to_bytes(2, "big") + answer)
        except OSError:
            # The server is gone. What it had been told to do stands; whoever comes next reads the folder.
            return

    def _withdraw(self) -> None:
        """Nothing was started: leave no trace of the run."""
        for name in _PIPES:
            _unlink(name)
        self._vanish()

    def _vanish(self) -> None:
        """Remove the folders that were made for this run, as far as they are empty."""
        for path in self._message["folders"]:
            try:
                os.rmdir(path)
            except OSError:
                return

    def _start(self) -> bool:
        self._capture = Capture(
            self._folder,
            self._message["max_output_bytes"],
            keep_tail=self._message["on_output_limit"] == "keep_tail",
            min_free=self._message["min_free_bytes"],
        )
        self._started_mono = time.monotonic()
        self._started_at = time.time_ns() // 1_000_000
        # First, so that a launch that is still there has never been started.
        _unlink("launch")
        try:
            self._command = self._spawn()
        except (OSError, ValueError) as error:
            message = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            program = self._message["argv"][0].decode("utf-8", "backslashreplace")
            self._write_record("spawn_failed", f"{program[:100]} could not be started: {message}")
            self._answer("failed", message)
            return False
        # Nothing of the environment or the input stays longer in memory than it must.
        del self._message["argv"], self._message["env"], self._message["stdin"]
        self._write_started()
        self._answer("started", self._command, self._started_at)
        self._reply.close()
        if (timeout := self._message["timeout_ms"]) is not None:
            self._deadline = self._started_mono + timeout / 1000
        self._make_room()
        return True

    def _make_room(self) -> None:
        """Take room for the exit record now, so that a disk that fills up cannot lose the exit code.

        Where there is none already, the command is ended: nothing of it could be kept.
        """
        try:
            self._record = os.open("exit.tmp", _CREATE_RECORD, 0o600)
            _reserve(self._record, _RECORD_ROOM)
        except OSError as error:
            self._detail = f"there is no room for its exit record ({os.strerror(error.errno or 0)})"
            self._end("output_limit", self._message["grace_ms"])

    def _spawn(self) -> int:
        """Start the command in a process group of its own. Raises OSError when it cannot be started."""
        ends: list[int] = []
        try:
            actions: list[tuple[Any, ...]] = []
            given: bytes = self._message["stdin"]
            if given or self._message["interactive"]:
                reader, writer = os.pipe()
                ends += [reader]
                os.set_blocking(writer, False)
                self._stdin = writer
                self._stdin_left = memoryview(given)
                actions.append((os.POSIX_SPAWN_DUP2, reader, 0))
            else:
                actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
            for stream, (reader, writer) in enumerate(self._pipes):
                ends.append(writer)
                self._outputs[reader] = stream
                actions.append((os.POSIX_SPAWN_DUP2, writer, stream + 1))
            os.chdir(self._message["cwd"])
            try:
                return _posix_spawn(self._message["argv"], self._message["env"], actions)
            finally:
                os.fchdir(self._folder)
        except BaseException:
            for reader in self._outputs:
                os.close(reader)
            self._outputs.clear()
            self._close_stdin()
            raise
        finally:
            for end in ends:
                os.close(end)

    def _write_started(self) -> None:
        """Tell servers to come which processes these are. A help, never the truth about being alive."""
        text = _object(
            v=wire.RECORD_VERSION,
            supervisor=self._pid,
            command=self._command,
            started_at=self._started_at,
            started_mono=int(self._started_mono * 1000),
        )
        try:
            file = os.open("started.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.write(file, text)
            os.close(file)
            os.rename("started.tmp", "started")
        except OSError:
            return

    def _watch(self) -> None:
        """Serve the command until it has ended, and then what it left running."""
        self._on(self._wakeup, self._reap)
        self._on(self._control, self._hear)
        if self._lifeline is not None:
            self._on(self._lifeline, self._server_gone)
        for reader in self._outputs:
            self._on(reader, functools.partial(self._pump, reader))
        if self._input is not None:
            self._on(self._input, self._forward_input)
        if self._stdin is not None and self._stdin_left:
            self._on(self._stdin, self._feed, select.POLLOUT)
        while not self._is_over():
            for descriptor, _ in self._poll.poll(self._patience()):
                if handler := self._handlers.get(descriptor):
                    handler()
            self._tick()

    def _is_over(self) -> bool:
        if self._status is None:
            return False
        if not self._recorded or self._reap_all():
            return False
        return not self._outputs or self._dismissed

    def _patience(self) -> float | None:
        """Milliseconds until something is due, or None."""
        now = time.monotonic()
        due = []
        if self._deadline is not None and self._reason is None and self._status is None:
            due.append(self._deadline)
        if self._reason is not None and not self._recorded:
            due.append(now + _SWEEP_S)
        if self._kill_at is not None:
            due.append(now + _SWEEP_S)
        if self._status is not None and not self._recorded:
            due.append(min(self._quiet_since + _DRAIN_QUIET_S, self._exited_mono + _DRAIN_MOST_S))
        if self._capture.index_waits:
            due.append(now + _DRAIN_QUIET_S)
        return max(0.0, (min(due) - now) * 1000 + 0.5) if due else None

    def _tick(self) -> None:
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline and self._status is None:
            self._reap_all()
            if self._status is None:
                self._end("timed_out", self._message["grace_ms"])
        if self._kill_at is not None:
            self._press(now)
        if self._capture.index_waits and now - self._quiet_since >= _DRAIN_QUIET_S:
            self._capture.flush_index()
        if self._status is not None and not self._recorded and self._drained(now):
            self._finish()

    def _drained(self, now: float) -> bool:
        if not self._outputs:
            return True
        if self._kill_at is not None and tree.descendants(self._pid, self._command):
            return False
        if now - self._exited_mono >= _DRAIN_MOST_S:
            return True
        return now - self._quiet_since >= _DRAIN_QUIET_S

    # -- events ------------------------------------------------------------------------------------

    def _on(self, descriptor: int, handler: Callable[[], None], events: int = select.POLLIN) -> None:
        self._poll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def _off(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None):
            self._poll.unregister(descriptor)

    def _pump(self, reader: int) -> None:
        try:
            size = os.readv(reader, [self._buffer])
        except BlockingIOError:
            return
        if not size:
            self._off(reader)
            os.close(reader)
            del self._outputs[reader]
            return
        now = time.monotonic()
        self._quiet_since = now
        try:
            self._capture.take(
                self._outputs.get(reader, 0), self._view[:size], int((now - self._started_mono) * 1_000_000)
            )
        except OutputFull as full:
            if not self._recorded:
                self._detail = str(full)
                self._end("output_limit", self._message["grace_ms"])

    def _reap(self) -> None:
        told_to_end = signal.SIGTERM in _drain(self._wakeup)
        self._reap_all()
        if told_to_end:
            self._detail = "its supervisor was told to end"
            self._end("cancelled", self._message["grace_ms"])

    def _reap_all(self) -> bool:
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
                self._close_stdin()

    def _server_gone(self) -> None:
        """The lifeline ended: without the server there is nobody left to want this command."""
        if self._lifeline is not None:
            self._off(self._lifeline)
        self._orphaned = True
        self._detail = "its server ended"
        self._end("cancelled", self._message["grace_ms"])

    def _hear(self) -> None:
        try:
            lines = os.read(self._control, 65536).split(b"\n")
        except BlockingIOError:
            return
        # A request that is taken after the command has ended by itself must not change its end.
        self._reap_all()
        for line in lines:
            match line.split():
                case [b"1", b"cancel", grace, number]:
                    self._soft_signal = signal.Signals(int(number))
                    self._asked.clear()
                    self._end("cancelled", int(grace))
                case [b"1", b"signal", number] if self._status is None and self._command is not None:
                    # The leader has not been reaped, so the group cannot be a stranger's.
                    os.killpg(self._command, int(number))
                case [b"1", b"eof"]:
                    self._closing_input = True
                    self._forward_input()
                case _:
                    continue

    def _forward_input(self) -> None:
        """Move what servers wrote to the command's stdin, no faster than it reads."""
        if self._input is None or self._stdin is None:
            return
        if not self._stdin_left:
            try:
                data = os.read(self._input, 65536)
            except BlockingIOError:
                data = b""
            self._stdin_left = memoryview(data)
        if self._stdin_left:
            self._off(self._input)
            self._on(self._stdin, self._feed, select.POLLOUT)
        elif self._closing_input:
            self._close_stdin()

    def _feed(self) -> None:
        if self._stdin is None:
            return
        try:
            written = os.write(self._stdin, self._stdin_left)
        except BlockingIOError:
            return
        except OSError:
            self._close_stdin()
            return
        self._stdin_left = self._stdin_left[written:]
        if self._stdin_left:
            return
        self._off(self._stdin)
        if self._input is None:
            self._close_stdin()
        else:
            self._on(self._input, self._forward_input)
            if self._closing_input:
                self._forward_input()

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            self._off(self._stdin)
            os.close(self._stdin)
            self._stdin = None
        if self._input is not None:
            # With no reader left, a server that still wants to write is told so by ENXIO.
            self._off(self._input)
            os.close(self._input)
            os.close(self._input_writer)
            self._input = None

    # -- the end -----------------------------------------------------------------------------------

    def _end(self, reason: Reason, grace_ms: int) -> None:
        """Begin to end the whole tree; what was asked for first names the outcome."""
        # Output that could not be kept is never a success, not even after the command's own end.
        if self._reason is None and (self._status is None or reason == "output_limit"):
            self._reason = reason
        self._dismissed = self._recorded
        kill_at = time.monotonic() + grace_ms / 1000
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
        self._press(time.monotonic())

    def _press(self, now: float) -> None:
        """Ask each process of the tree once, wake the stopped, and kill what is left after the grace."""
        kill_at = self._kill_at or now
        alive = tree.descendants(self._pid, self._command)
        if now < kill_at:
            for pid in alive:
                if pid not in self._asked:
                    self._asked.add(pid)
                    tree.signal_process(pid, self._soft_signal, self._pid)
                    tree.signal_process(pid, signal.SIGCONT, self._pid)
        else:
            for pid in alive:
                tree.signal_process(pid, signal.SIGKILL, self._pid)
        if not self._reap_all() and not alive:
            self._kill_at = None

    def _finish(self) -> None:
        """Bring output and exit record to disk, then let everybody know."""
        detail = ""
        try:
            self._capture.sync()
        except OSError as error:
            self._reason, detail = (
                "output_limit",
                f"the output could not be written ({os.strerror(error.errno or 0)})",
            )
        self._write_record(self._reason or "ended", detail or self._detail)
        self._stop_being_busy()

    def _stop_being_busy(self) -> None:
        """Wake whoever waits for the end, and free the place among the running."""
        os.close(self._alive)
        if self._slot is not None:
            os.close(self._slot)
            self._slot = None

    def _write_record(self, reason: str, message: str) -> None:
        """Write the exit record: the only authority on how the run ended, written once."""
        status, usage = self._status, self._usage
        exit_code = os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None
        killed = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
        ended = time.monotonic() if status is None else self._exited_mono
        elapsed = int((ended - self._started_mono) * 1000)
        left = tree.descendants(self._pid, self._command) if self._command is not None else []
        outcome = reason if reason != "ended" else "exited" if exit_code is not None else "signalled"
        text = _object(
            v=wire.RECORD_VERSION,
            outcome=outcome,
            exit_code=exit_code,
            signal=_signal_name(killed),
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
        self._recorded = True
        if self._record is None:
            self._record = os.open("exit.tmp", _CREATE_RECORD, 0o600)
        os.pwrite(self._record, text, 0)
        os.ftruncate(self._record, len(text))
        os.fsync(self._record)
        os.close(self._record)
        os.rename("exit.tmp", "exit.json")
        os.fsync(self._folder)
        _fsync_parent(self._folder)

    def _leave(self) -> None:
        """Take the pipes away; the lock goes with the process."""
        if self._slot is not None:
            self._stop_being_busy()
        for name in (*_PIPES, "started"):
            _unlink(name)
        if self._orphaned:
            # The records died with the server, so the output has no reader any more.
            for name in os.listdir("."):
                _unlink(name)
            self._vanish()


def _posix_spawn(argv: list[bytes], env: dict[bytes, bytes], actions: list[tuple[Any, ...]]) -> int:
    """Start `argv`, found as execvp(3) would with the PATH of `env`. Raises OSError."""
    program = argv[0]
    candidates = [program]
    if b"/" not in program:
        path = env.get(b"PATH", os.fsencode(os.defpath))
        candidates = [(folder or b".") + b"/" + program for folder in path.split(b":")]
    denied = False
    for candidate in candidates:
        try:
            # A look is a tenth of the price of a process that fails to exec.
            os.stat(candidate)
            return os.posix_spawn(
                candidate,
                argv,
                env,
                file_actions=actions,
                setpgroup=0,
                setsigmask=(),
                setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
            )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            denied = True
    number = errno.EACCES if denied else errno.ENOENT
    raise OSError(number, os.strerror(number))


def _signals() -> int:
    """Route signals into a pipe, and return its end to be polled.

    Handlers instead of SIG_IGN, because an ignored signal stays ignored over exec in the command.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, _nothing)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _nothing(_number: int, _frame: object) -> None:
    """The wake-up pipe has the signal already."""


def _fifo(name: str) -> tuple[int, int]:
    """Open both ends of a FIFO without blocking: (writer, reader)."""
    reader = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    return os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW), reader


def _drain(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""


def _output_pipe() -> tuple[int, int]:
    """A pipe for a stream of the command, (reader, writer), as wide as is allowed."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    _widen(reader)
    return reader, writer


def _widen(pipe: int) -> None:
    """A wide pipe means fewer wake-ups; without the privilege the default will do."""
    size = getattr(fcntl, "F_SETPIPE_SZ", None)
    if size is not None:
        try:
            fcntl.fcntl(pipe, size, _PIPE_SIZE)
        except OSError:
            return


def _reserve(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.pwrite(file, b" " * size, 0)


def _unlink(name: str) -> None:
    try:
        os.unlink(name)
    except OSError:
        return


def _fsync_parent(folder: int) -> None:
    parent = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _signal_name(number: int | None) -> str | None:
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def _object(**fields: str | int | bool | None) -> bytes:
    body = ", ".join(f'"{name}": {wire.string(value)}' for name, value in fields.items())
    return f"{{{body}}}\n".encode()
