"""Sends written data on its way to the disk without waiting for it. Standard library only."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

__all__ = ["begin_writeback"]

_SYNC_FILE_RANGE_WRITE = 2


def begin_writeback(file: int, start: int, size: int) -> None:
    """Begin to write `size` bytes from `start` on to the disk (sync_file_range(2)).

    A help for the fdatasync(2) to come, which then has little left to do: no promise, and no error.
    """
    if (call := _sync_file_range()) is not None:
        call(file, start, size, _SYNC_FILE_RANGE_WRITE)


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    if sys.platform != "linux":
        return None
    import ctypes  # the launcher has paid for it already

    try:
        call = ctypes.CDLL(None).sync_file_range
    except AttributeError:
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return call
