"""What a run folder tells about its run: the server's eyes. Its files are described in `local`."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.executors import wire
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
from mcp_tasks.ports import Ended, Gone, Observation, Starting, Supervised

__all__ = ["READ", "is_not_there", "observe", "told", "unavailable", "watch"]

READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_MOST_RECORD = 16384
# Nothing of ours is there: no name, or a link or a folder that somebody planted.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO)

_REMEDIES = {
    errno.ENOENT: "check the program's name and PATH; of a script, the program in its #! line too",
    errno.EACCES: "check that it is a program and may be executed (chmod +x)",
    errno.ENOEXEC: "check that it is a program of this machine; a script needs a #! line, or a shell",
    errno.E2BIG: "give fewer or shorter arguments and env values: use stdin or a file",
    errno.EAGAIN: "the machine is out of processes; try again when fewer run",
    errno.ENOMEM: "the machine is out of memory; try again when less runs",
    errno.EMFILE: "too many files are open; try again when less runs",
    errno.ENFILE: "too many files are open; try again when less runs",
    errno.ETXTBSY: "the program is being written; try again when that is done",
}


def observe(folder: Path) -> Observation:
    """What is true of a run now. Raises StoreUnavailable where that cannot be told."""
    record = _json_object(folder / "exit.json")
    # The order matters: who sees the pipe dead, and nobody with the lock, has missed no record by then.
    descriptor = watch(folder)
    if descriptor is not None:
        # There may be a record already, but it is not yet certain to survive a power cut.
        os.close(descriptor)
        return _supervised(folder)
    if record is None:
        free = _is_free(folder)
        record = _json_object(folder / "exit.json")
        if record is None:
            return Gone("its supervisor ended without an exit record") if free else Starting()
    try:
        return _ended(record, int(folder.name.rpartition(".")[2]))
    except (KeyError, TypeError, ValueError):
        return Gone("its exit record is not one that a supervisor writes")


def watch(folder: Path) -> int | None:
    """See `ports.Executor`."""
    try:
        descriptor = os.open(folder / "alive", READ | os.O_NONBLOCK)
    except OSError as error:
        if is_not_there(error):
            return None
        raise unavailable(error) from error
    try:
        os.read(descriptor, 1)
    except BlockingIOError:
        return descriptor
    except OSError:
        # A folder, say: not what a supervisor made.
        os.close(descriptor)
        return None
    os.close(descriptor)
    return None


def told(folder: Path) -> dict[str, Any]:
    """What the supervisor says of itself; empty where that is not to be had. A help, never the truth."""
    try:
        return _json_object(folder / "started") or {}
    except StoreUnavailable:
        return {}


def is_not_there(error: OSError) -> bool:
    """Whether nothing of ours is where it was looked for; anything else means that nobody knows."""
    return error.errno in _NOT_THERE


def unavailable(error: OSError) -> StoreUnavailable:
    """The run folder could not be used, in words that name no path."""
    reason = os.strerror(error.errno) if error.errno else "unknown error"
    return StoreUnavailable(f"the run folder cannot be used ({reason})", "mcp-tasks doctor says more")


def _ended(record: Mapping[str, Any], run: int) -> Ended:
    if record["v"] != wire.RECORD_VERSION:
        raise StoreUnavailable("the exit record is of a newer version", "update mcp-tasks here")
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
            return Exited(int(exit_code))
        case "signalled":
            return Signalled(str(signal))
        case "timed_out":
            return TimedOut(exit_code, signal)
        case "output_limit":
            return OutputLimit(exit_code, signal, str(record["message"]))
        case "spawn_failed":
            message = str(record["message"])
            return SpawnFailure(message, _remedy(message))
        case "cancelled":
            return Cancelled(exit_code, signal)
        case other:
            raise ValueError(f"no outcome that a supervisor writes: {other}")


def _remedy(message: str) -> str:
    """What to do about a program that could not be started; the supervisor's message ends with the cause."""
    for number, remedy in _REMEDIES.items():
        if message.endswith(os.strerror(number)):
            return remedy
    return "start it by hand, in the same directory, to see why"


def _supervised(folder: Path) -> Observation:
    record = told(folder)
    try:
        return Supervised(int(record["started_at"]), int(record["started_mono"]))
    except (KeyError, TypeError, ValueError):
        return Starting()


def _json_object(path: Path) -> dict[str, Any] | None:
    """What is in a file of the run; None where there is none, or something else.

    Raises StoreUnavailable where that cannot be told now: for want of a descriptor, say.
    """
    try:
        descriptor = os.open(path, READ | os.O_NONBLOCK)
        try:
            record = json.loads(os.read(descriptor, _MOST_RECORD))
        finally:
            os.close(descriptor)
    except OSError as error:
        if is_not_there(error):
            return None
        raise unavailable(error) from error
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _is_free(folder: Path) -> bool:
    """Whether nobody holds the run's lock. Shared, so that those who look do not disturb each other."""
    try:
        lock = os.open(folder, READ | os.O_DIRECTORY)
    except OSError as error:
        if is_not_there(error):
            return True
        # Without a look at the lock nobody may say that a run is lost.
        raise unavailable(error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
