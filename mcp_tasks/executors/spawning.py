"""How a command is started: found on its own PATH, in a process group of its own, with nothing of ours.

Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from typing import Any

__all__ = ["candidates", "fifo", "output_pipe", "spawn"]

_PIPE_SIZE = 1 << 20
# Made once, before the fork. Those that are caught are reset by execve(2) itself.
_SIGNALS = tuple(
    number for number in map(int, signal.valid_signals()) if signal.getsignal(number) is signal.SIG_IGN
)


def candidates(argv: list[bytes], env: dict[bytes, bytes]) -> list[bytes]:
    """Where execvp(3) would look for the program, with the PATH of `env`: the places that may hold it.

    A look is a tenth of the price of a process that fails to exec. A place that is relative to the
    command's folder cannot be looked at from here and stays.
    """
    if not argv:
        return []
    program = argv[0]
    if b"/" in program:
        return [program]
    path = env.get(b"PATH", os.fsencode(os.defpath))
    places = [(folder or b".") + b"/" + program for folder in path.split(b":")]
    return [place for place in places if not place.startswith(b"/") or os.path.lexists(place)]


def spawn(
    places: list[bytes], argv: list[bytes], env: dict[bytes, bytes], actions: list[tuple[Any, ...]]
) -> int:
    """Start `argv` from the first of `places` that can be, and return its pid.

    It is the leader of a new process group. Signals are as they are in a new login: none ignored, none
    blocked. Raises OSError, ValueError.
    """
    if not argv:
        raise ValueError("there is no program to run")
    denied = False
    for candidate in places:
        try:
            return os.posix_spawn(
                candidate,
                argv,
                env,
                file_actions=actions,
                setpgroup=0,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            denied = True
    number = errno.EACCES if denied else errno.ENOENT
    raise OSError(number, os.strerror(number))


def output_pipe() -> tuple[int, int]:
    """A pipe for a stream of the command, (reader, writer), as wide as is allowed; reading never blocks."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    size = getattr(fcntl, "F_SETPIPE_SZ", None)
    if size is not None:
        try:
            # A wide pipe means fewer wake-ups; without the privilege the default will do.
            fcntl.fcntl(reader, size, _PIPE_SIZE)
        except OSError:
            return reader, writer
    return reader, writer


def fifo(name: str) -> tuple[int, int]:
    """Open both ends of a FIFO in the current folder, without blocking: (reader, writer)."""
    flags = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    reader = os.open(name, os.O_RDONLY | flags)
    return reader, os.open(name, os.O_WRONLY | flags)
