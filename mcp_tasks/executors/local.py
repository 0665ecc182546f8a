"""Runs commands on this machine: the server's side of launcher, supervisor and run folder.

A run folder holds, beside the output (see `capture`):

- The folder itself is locked (flock(2)) from before the claim until the supervisor has left. Free,
  without an exit record, means that nobody can know the end any more. No pid is ever asked.
- `alive`: a FIFO whose only writer is the supervisor, until the exit record is on disk. Its end of
  file wakes whoever waits, in any process.
- `control`, `input`: FIFOs that the supervisor reads; without a reader they cannot be opened (ENXIO).
- `started`: which processes these are. `exit.json`: the exit record. `launch`: what a pending run
  needs to be started, gone when it is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import marshal
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcp_tasks.errors import InvalidArgument, LimitReached, NotSupported, SpawnFailed, StoreUnavailable
from mcp_tasks.executors import wire
from mcp_tasks.executors.slots import Slots
from mcp_tasks.models import (
    Cancelled,
    Exited,
    Finished,
    Outcome,
    OutputLimit,
    Signalled,
    SpawnFailure,
    TimedOut,
)
from mcp_tasks.ports import Ended, Gone, Launch, Observation, Started, Starting, Supervised

__all__ = ["LocalExecutor"]

_START = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from mcp_tasks.executors.launcher import main; main(int(sys.argv[2]))"
)
_ROOT = str(Path(__file__).parent.parent.parent)
# What the launcher's interpreter may need to start at all; a command's environment comes with its launch.
_INTERPRETER_ENV = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "LANG", "LC_ALL")
_ANSWER_S = 20.0
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_MOST_RECORD = 16384
# Nothing of ours is there: no name, or a link or a folder that somebody planted.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO)


class LocalExecutor:
    """Implements `ports.Executor` with one launcher for this process.

    Args:
        interpreter: Command line of a Python without site packages, for the launcher.
    """

    def __init__(self, interpreter: tuple[str, ...] = (sys.executable, "-I", "-S")) -> None:
        self._interpreter = interpreter
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._lifeline: tuple[int, int] | None = None
        self._slots = Slots()

    # -- starting ----------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Start the launcher now, so that the first command does not wait for it."""
        with self._lock:
            self._connected()

    def park(self, folder: Path, launch: Launch) -> None:
        """See `ports.Executor`."""
        file = os.open(
            folder / "launch", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        with open(file, "wb") as target:
            target.write(json.dumps(_to_json(launch)).encode())
            target.flush()
            os.fsync(file)
        _fsync(folder)

    def parked(self, folder: Path) -> Launch:
        """See `ports.Executor`."""
        try:
            with open(os.open(folder / "launch", _READ), "rb") as source:
                return _from_json(json.load(source))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreUnavailable("what the pending task was to run cannot be read any more") from error

    def is_unstarted(self, folder: Path) -> bool:
        """See `ports.Executor`."""
        return os.path.lexists(folder / "launch")

    def reserve(self, folder: Path, launch: Launch, slots: Path, limit: int) -> LocalReservation | None:
        """See `ports.Executor`. The folder must exist."""
        held: list[int] = []
        try:
            slot = self._slots.take(slots, limit)
            if slot is None:
                return None
            held.append(slot)
            lock = os.open(folder, _READ | os.O_DIRECTORY)
            held.append(lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            ours, theirs = socket.socketpair()
            held.append(theirs.detach())
            try:
                self._send(_to_wire(launch, folder), [lock, slot, held[-1]])
            except BaseException:
                ours.close()
                raise
            os.close(held.pop())
            reservation = LocalReservation(ours, tuple(held))
            held.clear()
            return reservation
        except OSError as error:
            raise _unavailable(error) from error
        finally:
            for descriptor in held:
                os.close(descriptor)

    def _send(self, message: dict[str, Any], descriptors: list[int]) -> None:
        with self._lock:
            if message["lifeline"]:
                if self._lifeline is None:
                    self._lifeline = os.pipe()
                descriptors = [*descriptors, self._lifeline[0]]
            try:
                wire.send(self._connected(), message, descriptors)
            except (BrokenPipeError, ConnectionResetError):
                # The launcher was killed since it was last used. Nothing has been read of this launch.
                self._disconnect()
                wire.send(self._connected(), message, descriptors)

    def _connected(self) -> socket.socket:
        if self._channel is None:
            ours, theirs = socket.socketpair()
            env = {name: os.environ[name] for name in _INTERPRETER_ENV if name in os.environ}
            with theirs:
                # The process that is waited for here has only forked the launcher: whoever ends this
                # server by parent pid or process group does not find it.
                subprocess.run(
                    [*self._interpreter, "-c", _START, _ROOT, str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=env,
                    check=True,
                    start_new_session=True,
                )
            self._channel = ours
        return self._channel

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    # -- observing ---------------------------------------------------------------------------------

    def observe(self, folder: Path) -> Observation:
        """See `ports.Executor`."""
        if (ended := _exit_record(folder)) is not None:
            return ended
        descriptor = self.watch(folder)
        if descriptor is not None:
            os.close(descriptor)
            return _supervised(folder)
        free = _is_free(folder)
        # Between the first look and the lock the supervisor may have written the record and left.
        if (ended := _exit_record(folder)) is not None:
            return ended
        return Gone("its supervisor ended without an exit record") if free else Starting()

    def watch(self, folder: Path) -> int | None:
        """See `ports.Executor`."""
        try:
            descriptor = os.open(folder / "alive", _READ | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            os.read(descriptor, 1)
        except BlockingIOError:
            return descriptor
        os.close(descriptor)
        return None

    def background(self, folder: Path) -> list[str]:
        """See `ports.Executor`."""
        record = _told(folder)
        if not record:
            return []
        import psutil

        if self.lingers(folder):
            root = record.get("supervisor")
            try:
                alive = psutil.Process(int(root or 0)).children(recursive=True)
            except (psutil.Error, TypeError, ValueError):
                return []
            return [named for process in alive if (named := _named(process))]
        # The supervisor was killed: what it left carries the run's mark in its environment.
        return _marked(folder)

    def lingers(self, folder: Path) -> bool:
        """See `ports.Executor`."""
        return self._tell(folder, "")

    # -- asking ------------------------------------------------------------------------------------

    def cancel(self, folder: Path, grace_ms: int, signal: int) -> bool:
        """See `ports.Executor`."""
        return self._tell(folder, f"1 cancel {grace_ms} {signal}\n")

    def signal(self, folder: Path, signal: int) -> bool:
        """See `ports.Executor`."""
        return self._tell(folder, f"1 signal {signal}\n")

    def _tell(self, folder: Path, request: str) -> bool:
        try:
            control = os.open(folder / "control", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            # At most PIPE_BUF bytes, so requests of several servers never mix (pipe(7)).
            if request:
                os.write(control, request.encode())
        except BlockingIOError as error:
            raise LimitReached("the task's supervisor does not answer", "try again") from error
        finally:
            os.close(control)
        return True

    def write_input(self, folder: Path, data: bytes, timeout_ms: int) -> int:
        """See `ports.Executor`."""
        taken = 0
        deadline = time.monotonic() + timeout_ms / 1000
        target = _open_input(folder)
        try:
            # One writer at a time, so that long texts of two callers do not mix.
            while not _try_lock(target):
                if time.monotonic() >= deadline:
                    return taken
                time.sleep(0.005)
            while taken < len(data):
                try:
                    taken += os.write(target, data[taken : taken + 65536])
                except BlockingIOError:
                    left = deadline - time.monotonic()
                    if left <= 0 or not select.select([], [target], [], left)[1]:
                        break
        except BrokenPipeError as error:
            raise InvalidArgument(
                "the command has closed its input", "read its output with poll_task"
            ) from error
        finally:
            os.close(target)
        return taken

    def close_input(self, folder: Path) -> None:
        """See `ports.Executor`."""
        os.close(_open_input(folder))
        self._tell(folder, "1 eof\n")

    # -- leaving -----------------------------------------------------------------------------------

    def tidy(self, folder: Path) -> None:
        """See `ports.Executor`."""
        for name in ("alive", "control", "input", "started", "launch", "exit.tmp"):
            with contextlib.suppress(OSError):
                os.unlink(folder / name)

    def close(self) -> None:
        """See `ports.Executor`."""
        with self._lock:
            self._disconnect()
            if self._lifeline is not None:
                for descriptor in self._lifeline:
                    os.close(descriptor)
                self._lifeline = None


class LocalReservation:
    """A supervisor that has been sent a launch and waits for the word. See `ports.Reservation`."""

    def __init__(self, reply: socket.socket, held: tuple[int, ...]) -> None:
        self._reply = reply
        self._held = held

    def go(self) -> Started:
        """See `ports.Reservation`."""
        self._reply.settimeout(_ANSWER_S)
        try:
            if not self._is_ready():
                raise SpawnFailed("no supervisor could be started, so the command did not run", "try again")
            match self._start():
                case ("started", int(pid), int(started_at)):
                    return Started(started_at, pid)
                case ("failed", str()):
                    return Started(0, None)
                case ("unprepared", int(number), str(message)):
                    raise _unavailable(OSError(number, message))
                case _:
                    # The supervisor has been told to go and has said no more. Whether the command ran
                    # is for the run folder to tell, not for us to guess.
                    return Started(time.time_ns() // 1_000_000, None)
        finally:
            self._let_go()

    def _is_ready(self) -> bool:
        try:
            return self._answer() == ("ready",)
        except TimeoutError:
            raise SpawnFailed(
                f"no supervisor could be started within {_ANSWER_S:.0f} s, so the command did not run",
                "the machine may be out of processes or memory; try again",
            ) from None

    def _start(self) -> tuple[object, ...]:
        try:
            self._reply.sendall(b"G")
            return self._answer()
        except (TimeoutError, OSError):
            return ()

    def _answer(self) -> tuple[object, ...]:
        """One answer of the supervisor, or () when it has gone."""
        try:
            head = self._reply.recv(2, socket.MSG_WAITALL)
            body = (
                self._reply.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL) if len(head) == 2 else b""
            )
        except (ConnectionResetError, BrokenPipeError):
            return ()
        answer = marshal.loads(body) if body else ()  # noqa: S302 - our own process
        return answer if isinstance(answer, tuple) else ()

    def abandon(self) -> None:
        """See `ports.Reservation`."""
        # The supervisor sees the end of the line instead of the word, and takes back what it prepared.
        self._let_go()

    def _let_go(self) -> None:
        self._reply.close()
        for descriptor in self._held:
            os.close(descriptor)
        self._held = ()


def _to_wire(launch: Launch, folder: Path) -> dict[str, Any]:
    return {
        "argv": [os.fsencode(word) for word in launch.argv],
        "cwd": os.fsencode(launch.cwd),
        "env": {os.fsencode(name): os.fsencode(value) for name, value in launch.env.items()},
        "stdin": bytes(launch.stdin),
        "interactive": launch.interactive,
        "timeout_ms": launch.timeout_ms,
        "grace_ms": launch.grace_ms,
        "max_output_bytes": launch.max_output_bytes,
        "on_output_limit": launch.on_output_limit,
        "min_free_bytes": launch.min_free_bytes,
        "lifeline": launch.lifeline,
        # run, runs, task: what may be removed, when empty, if the run never comes to be.
        "folders": [str(folder), str(folder.parent), str(folder.parent.parent)],
    }


def _to_json(launch: Launch) -> dict[str, Any]:
    return {
        "v": wire.RECORD_VERSION,
        "argv": list(launch.argv),
        "cwd": launch.cwd,
        "env": dict(launch.env),
        "stdin": launch.stdin.hex(),
        "interactive": launch.interactive,
        "timeout_ms": launch.timeout_ms,
        "grace_ms": launch.grace_ms,
        "max_output_bytes": launch.max_output_bytes,
        "on_output_limit": launch.on_output_limit,
        "min_free_bytes": launch.min_free_bytes,
    }


def _from_json(record: dict[str, Any]) -> Launch:
    fields = {name: value for name, value in record.items() if name != "v"}
    return Launch(**{**fields, "stdin": bytes.fromhex(record["stdin"])})


def _exit_record(folder: Path) -> Ended | None:
    record = _json_object(folder / "exit.json")
    if record is None:
        return None
    try:
        return _ended(record, int(folder.name))
    except (KeyError, TypeError, ValueError):
        # Nothing that a supervisor writes: it tells nothing.
        return None


def _ended(record: Mapping[str, Any], run: int) -> Ended:
    finished = Finished(
        outcome=_outcome(record),
        run=run,
        started_at=None if record["outcome"] == "spawn_failed" else int(record["started_at"]),
        ended_at=int(record["ended_at"]),
        elapsed_ms=int(record["elapsed_ms"]),
        user_ms=int(record["user_ms"]),
        system_ms=int(record["system_ms"]),
        max_rss_kib=int(record["max_rss_kib"]),
    )
    return Ended(finished, int(record["background"]), bool(record["output_held"]))


def _outcome(record: Mapping[str, Any]) -> Outcome:
    exit_code, signal = record["exit_code"], record["signal"]
    match record["outcome"]:
        case "exited":
            return Exited(exit_code)
        case "signalled":
            return Signalled(signal)
        case "timed_out":
            return TimedOut(exit_code, signal)
        case "output_limit":
            return OutputLimit(exit_code, signal, record["message"])
        case "spawn_failed":
            return SpawnFailure(record["message"], "check the program's name and PATH")
        case "cancelled":
            return Cancelled(exit_code, signal)
        case other:
            raise StoreUnavailable(f"the exit record has an outcome that this version does not know: {other}")


def _supervised(folder: Path) -> Observation:
    record = _told(folder)
    try:
        return Supervised(int(record["started_at"]), int(record["started_mono"]))
    except (KeyError, TypeError, ValueError):
        return Starting()


def _told(folder: Path) -> dict[str, Any]:
    """What the supervisor says of itself; empty where that is not to be had. A help, never the truth."""
    try:
        return _json_object(folder / "started") or {}
    except StoreUnavailable:
        return {}


def _json_object(path: Path) -> dict[str, Any] | None:
    """What is in a file of the run; None where there is none, or something else.

    Raises StoreUnavailable where that cannot be told now: for want of a descriptor, say.
    """
    try:
        descriptor = os.open(path, _READ | os.O_NONBLOCK)
        try:
            record = json.loads(os.read(descriptor, _MOST_RECORD))
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise _unavailable(error) from error
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _is_free(folder: Path) -> bool:
    """Whether nobody holds the run's lock. Shared, so that those who look do not disturb each other."""
    try:
        lock = os.open(folder, _READ | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return True
        # Without a look at the lock nobody may say that a run is lost.
        raise _unavailable(error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _open_input(folder: Path) -> int:
    try:
        return os.open(folder / "input", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise NotSupported(
            "the task is not interactive, so it takes no text", "start it with interactive: true"
        ) from None
    except OSError as error:
        raise InvalidArgument(
            "the command's input has been closed", "read its output with poll_task"
        ) from error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _named(process: Any) -> str:
    import psutil

    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.pid} {process.name()}"
    except psutil.Error:
        return ""


def _marked(folder: Path) -> list[str]:
    import psutil

    mark = folder.parent.parent.name
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("MCP_TASKS_TASK") == mark and (named := _named(process)):
                found.append(named)
    return found


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, _READ | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(error: OSError) -> StoreUnavailable:
    reason = os.strerror(error.errno) if error.errno else "unknown error"
    return StoreUnavailable(f"the run folder cannot be used ({reason})", "mcp-tasks doctor says more")
