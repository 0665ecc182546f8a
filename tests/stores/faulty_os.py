"""The module `os`, except that its nth call kills the process, fails, or writes too little."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mcp_tasks.stores.database import database, files
from mcp_tasks.stores.disk import durable, leftovers, removal, state_folder, syncing
from mcp_tasks.stores.json import (
    finals,
    key_entries,
    markers,
    plan_files,
    session_files,
    session_folders,
    session_removal,
    state_marks,
    store,
    task_files,
    task_index,
)
from mcp_tasks.stores.sqlite import run_registry

MODULES = (
    database,
    durable,
    files,
    finals,
    key_entries,
    leftovers,
    markers,
    plan_files,
    removal,
    run_registry,
    session_files,
    session_folders,
    session_removal,
    state_folder,
    state_marks,
    store,
    syncing,
    task_files,
    task_index,
)

CALLS = frozenset(
    {
        *("chmod", "close", "fchmod", "fstat", "fsync", "link", "listdir", "lstat", "mkdir", "open"),
        *("read", "rename", "replace", "rmdir", "scandir", "stat", "unlink", "write"),
    }
)

Fate = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class FaultyOs:
    """Stands in for `os`; counts the system calls and hands the nth one to `fate`."""

    def __init__(self, at: int, fate: Fate) -> None:
        self.at = at
        self.fate = fate
        self.calls = 0
        self.hit = ""
        self.armed = True

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.armed:
                return real(*args, **kwargs)
            self.calls += 1
            if self.at not in (self.calls, 0):
                return real(*args, **kwargs)
            self.hit = name
            return self.fate(name, real, args, kwargs)

        return call


def sync_nothing() -> Callable[[], None]:
    """Make fsync free, for tests in which no power is cut: what the kernel has, it keeps.

    Returns:
        What takes it back.
    """
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "fsync", lambda _fd: None)
    return patch.undo


@contextmanager
def faulty(at: int, fate: Fate) -> Iterator[FaultyOs]:
    """Let call number `at` (0: every call) of all store modules meet its fate."""
    stand_in = FaultyOs(at, fate)
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "os", stand_in)
        yield stand_in
        stand_in.armed = False


def die(name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """End like a kill -9 right before the call; a write gets half of its bytes out first."""
    if name == "write":
        real(args[0], args[1][: len(args[1]) // 2])
    os._exit(9)


def fail(number: int) -> Fate:
    """Fail with an error number; what a close would give back is given back all the same."""

    def fate(name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "close":
            real(*args, **kwargs)
        if name == "write" and number == errno.ENOSPC:
            real(args[0], args[1][:10])
        raise OSError(number, os.strerror(number))

    return fate


def write_little(name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Let every write take 7 bytes and every read give 7."""
    if name == "write":
        return real(args[0], args[1][:7])
    if name == "read":
        return real(args[0], min(args[1], 7))
    return real(*args, **kwargs)
