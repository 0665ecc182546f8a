"""SQLite, except that its nth write to the disk kills the process or fails.

SQLite lets a test put other functions in place of its system calls (`sqlite3_vfs.xSetSystemCall`,
sqlite.org/c3ref/vfs.html), so what fails here is what fails on a full or broken disk.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_Pointer = ctypes.c_void_p


class _Vfs(ctypes.Structure):
    pass


_Set = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Vfs), ctypes.c_char_p, _Pointer)
_Get = ctypes.CFUNCTYPE(_Pointer, ctypes.POINTER(_Vfs), ctypes.c_char_p)
_METHODS = (
    *("xOpen", "xDelete", "xAccess", "xFullPathname", "xDlOpen", "xDlError", "xDlSym", "xDlClose"),
    *("xRandomness", "xSleep", "xCurrentTime", "xGetLastError", "xCurrentTimeInt64"),
)
_Vfs._fields_ = [
    ("iVersion", ctypes.c_int),
    ("szOsFile", ctypes.c_int),
    ("mxPathname", ctypes.c_int),
    ("pNext", _Pointer),
    ("zName", ctypes.c_char_p),
    ("pAppData", _Pointer),
    *((name, _Pointer) for name in _METHODS),
    ("xSetSystemCall", _Set),
    ("xGetSystemCall", _Get),
]

_SSIZE, _INT, _SIZE, _OFFSET = ctypes.c_ssize_t, ctypes.c_int, ctypes.c_size_t, ctypes.c_int64
_CALLS: dict[bytes, Any] = {
    b"pwrite": ctypes.CFUNCTYPE(_SSIZE, _INT, _Pointer, _SIZE, _OFFSET, use_errno=True),
    b"pwrite64": ctypes.CFUNCTYPE(_SSIZE, _INT, _Pointer, _SIZE, _OFFSET, use_errno=True),
    b"write": ctypes.CFUNCTYPE(_SSIZE, _INT, _Pointer, _SIZE, use_errno=True),
    b"ftruncate": ctypes.CFUNCTYPE(_INT, _INT, _OFFSET, use_errno=True),
    b"unlink": ctypes.CFUNCTYPE(_INT, ctypes.c_char_p, use_errno=True),
    b"mmap": ctypes.CFUNCTYPE(_Pointer, _Pointer, _SIZE, _INT, _INT, _INT, _OFFSET, use_errno=True),
}

Fate = Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]


class FaultySqlite:
    """Counts the calls of SQLite and hands the nth one, or with 0 each, to `fate`."""

    def __init__(self, at: int, fate: Fate) -> None:
        self.at = at
        self.fate = fate
        self.calls = 0
        self.hit = ""
        self.armed = True

    def stand_in(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if not self.armed:
                return real(*args)
            self.calls += 1
            if self.at not in (self.calls, 0):
                return real(*args)
            self.hit = name
            return self.fate(name, real, args)

        return call


@contextmanager
def faulty_sqlite(at: int, fate: Fate) -> Iterator[FaultySqlite]:
    """Let system call number `at` (0: every call) of SQLite in this process meet its fate."""
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_vfs_find.restype = _Pointer
    library.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
    vfs = ctypes.cast(library.sqlite3_vfs_find(None), ctypes.POINTER(_Vfs))
    faults = FaultySqlite(at, fate)
    kept: list[Any] = []  # what C calls must not be collected
    originals: dict[bytes, int] = {}
    try:
        for name, signature in _CALLS.items():
            address = vfs.contents.xGetSystemCall(vfs, name)
            if address is None:
                continue
            stand_in = signature(faults.stand_in(name.decode(), signature(address)))
            kept.append(stand_in)
            originals[name] = address
            assert vfs.contents.xSetSystemCall(vfs, name, ctypes.cast(stand_in, _Pointer)) == 0
        assert originals
        yield faults
    finally:
        faults.armed = False
        for name, address in originals.items():
            vfs.contents.xSetSystemCall(vfs, name, address)


def die(name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """End like a kill -9 right before the call; a write gets half of its bytes out first."""
    if "write" in name:
        real(args[0], args[1], args[2] // 2, *args[3:])
    os._exit(9)


def fail(number: int) -> Fate:
    """Fail with an error number."""

    def fate(name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        ctypes.set_errno(number)
        return ctypes.c_void_p(-1).value if name == "mmap" else -1

    return fate
