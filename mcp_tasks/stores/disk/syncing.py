"""Waiting for the disk: for each write, or once for very many.

A copy of a whole store counts only when all of it is there. So nothing in it need wait for the disk by
itself, and all of it waits once, before anybody is told that it is whole.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows)
    _FULL_SYNC: int | None = None
else:
    _FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)

__all__ = ["is_put_off", "sync", "synced_once"]

_put_off: ContextVar[bool] = ContextVar("_put_off", default=False)
_CAN_BE_PUT_OFF = sys.platform == "linux"  # sync(2) does not wait everywhere
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


def sync(fd: int) -> None:
    """Wait until a file or folder is on the disk, unless that is put off. Raises OSError."""
    if _put_off.get():
        return
    if _FULL_SYNC is not None:  # fsync(2) on macOS stops at the drive's cache
        try:
            fcntl.fcntl(fd, _FULL_SYNC)
        except OSError:
            pass
        else:
            return
    while True:
        try:
            os.fsync(fd)
        except InterruptedError:
            continue
        return


def is_put_off() -> bool:
    """Whether what this thread writes is waited for later, all together."""
    return _put_off.get()


@contextmanager
def synced_once(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Let no write of this thread wait for the disk before the block is over; then all are on it.

    For what is done again, or removed, where the block was not left in order. Databases stay whole
    whatever happens; of a file that was written in the block a power cut may leave nothing.

    Args:
        folder: Exists when the block is left. All that is written must lie on its file system.

    Raises:
        OSError: The disk refused, so nothing that was written in the block can be relied upon.
    """
    if not _CAN_BE_PUT_OFF or _put_off.get():
        yield
        return
    token = _put_off.set(True)
    try:
        yield
    finally:
        _put_off.reset(token)
    _sync_file_system(os.fspath(folder))


def _sync_file_system(folder: str) -> None:
    descriptor = os.open(folder, _FOLDER)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.syncfs(descriptor) == 0:
            return
        number = ctypes.get_errno()
        if number != errno.ENOSYS:
            raise OSError(number, os.strerror(number))
        os.sync()  # which does not tell of errors
    finally:
        os.close(descriptor)
