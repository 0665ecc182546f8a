"""One connection to an SQLite database: how it is opened, commits, fails and is closed."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

from mcp_tasks.errors import StoreBusy, StoreUnavailable
from mcp_tasks.stores.disk.syncing import is_put_off

__all__ = [
    "Connection",
    "Identity",
    "NoDatabase",
    "close",
    "committed",
    "connect",
    "is_damage",
    "primary_code",
    "refusal",
]

_BUSY_SECONDS = 10.0
_NO_ROOM = "SQLITE_IOERR_SHMSIZE"
"""The file that processes share cannot grow: nothing but a full disk does that to a few pages."""

_log = logging.getLogger(__name__)

Identity: TypeAlias = tuple[int, int]
"""Device and inode of a file."""


class Connection(sqlite3.Connection):
    """A connection in autocommit mode that knows which file it has open, and whether it may be used again."""

    identity: Identity | None = None
    is_sound = True


class NoDatabase(sqlite3.DatabaseError):
    """What SQLite takes for a new database, and we do not."""


def connect(path: str) -> Connection:
    """Open a database with our settings; any one thread at a time may use it. Raises sqlite3.Error."""
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
        cached_statements=256,
    )
    try:
        # FULL syncs the log at each commit; NORMAL would lose commits in a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync(2) stops at the drive's cache
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA journal_size_limit = 16777216")
    except BaseException:
        close(connection)
        raise
    return connection


def close(connection: sqlite3.Connection) -> None:
    """Close a connection; never raises."""
    try:
        connection.close()
    except sqlite3.Error as error:
        # The checkpoint at the end is a convenience: the log has it all.
        _log.warning("a database could not be closed in order: %s", error)


@contextmanager
def committed(connection: Connection, *, durable: bool = True) -> Iterator[None]:
    """Do what the block does, durably, or nothing of it where it raises. Raises sqlite3.Error.

    What is not durable survives the end of this process and, once somebody else commits durably or some
    time has passed, a power cut.
    """
    if durable and not is_put_off():
        with _committed(connection):
            yield
        return
    connection.execute("PRAGMA synchronous = NORMAL")
    try:
        with _committed(connection):
            yield
    finally:
        try:
            connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error:
            connection.is_sound = False  # it would lose in a power cut what is to be durable


@contextmanager
def _committed(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        _roll_back(connection)
        raise
    try:
        connection.execute("COMMIT")
    except sqlite3.Error:
        _roll_back(connection)
        _overwrite(connection)
        raise


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:  # some errors have done so already
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _overwrite(connection: sqlite3.Connection) -> None:
    """After a commit that failed while it was synced its frames may stand in the log, whole.

    Who has the database open does not see them, but who opens it after a crash would. Another
    transaction, which changes nothing, takes their place.
    """
    with suppress(sqlite3.Error):
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    _roll_back(connection)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is broken, and not that it cannot be used now."""
    return isinstance(error, NoDatabase) or primary_code(error) in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )


def primary_code(error: sqlite3.Error) -> int:
    """The kind of an error, as SQLITE_BUSY (sqlite.org/rescode.html)."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def refusal(error: sqlite3.Error, action: str) -> StoreUnavailable:
    """What SQLite said in our words; its text, which may hold paths, goes to the log only.

    Whoever gets it says so or goes on without, so it is no warning yet.
    """
    _log.info("%s failed: %s (%s)", action, error, getattr(error, "sqlite_errorname", ""))
    name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
    if name == _NO_ROOM:
        return _full(action)
    match primary_code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(f"{action} failed: another program has it locked", "try again in a moment")
        case sqlite3.SQLITE_FULL:
            return _full(action)
        case sqlite3.SQLITE_IOERR:
            return StoreUnavailable(f"{action} failed: the disk refused ({name})", "try again; see `doctor`")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreUnavailable(
                f"{action} failed: it may not be written ({name})",
                "the state directory must be writable for the user of the server",
            )
        case sqlite3.SQLITE_CANTOPEN:
            return StoreUnavailable(
                f"{action} failed: a file could not be opened ({name})",
                "too many files may be open in this process; try again",
            )
        case _:
            return StoreUnavailable(f"{action} failed ({name})", "try again; see `doctor`")


def _full(action: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"{action} failed: the disk is full (ENOSPC)", "free some disk space and try again"
    )
