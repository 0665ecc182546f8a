"""How the file of a database comes to be: whole, under a name of its own, for its owner only."""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TypeAlias

from mcp_tasks.stores.database.connections import committed, connect, refusal
from mcp_tasks.stores.database.salvage import salvage
from mcp_tasks.stores.disk import durable

__all__ = [
    "APPLICATION",
    "BESIDE",
    "LOGGED",
    "Migration",
    "Rows",
    "build",
    "migrate",
    "refuse_planted",
    "remove",
]

Migration: TypeAlias = Sequence[str]
"""The statements that lift a database to the next version; a trigger is one statement."""

APPLICATION = 0x6D637074
"""`PRAGMA application_id`: tells our databases from those of other programs."""

LOGGED = "PRAGMA journal_mode = WAL"
"""Keeps a write-ahead log; a database remembers it."""

BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite adds to the name of a database for the files that belong to it."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Rows:
    """What a new database begins with: the rows of these tables of another one that can be read."""

    source: str
    tables: Sequence[str]
    report: durable.Report


def build(path: str, migrations: Sequence[Migration], rows: Rows | None = None) -> str:
    """Make a database beside `path`, for the caller to put there or to remove.

    What others left who were killed while they made one is removed; the caller sees to it that nobody
    else makes one now.

    Returns:
        Where it is.

    Raises:
        StoreUnavailable: It could not be made, and nothing of it is left.
    """
    folder, name = os.path.split(path)
    with suppress(OSError):
        for found in os.listdir(folder):
            if found.startswith(f".{name}."):
                remove(f"{folder}/{found}")
    place = f"{folder}/.{name}.{secrets.token_hex(8)}.tmp"
    try:
        os.close(os.open(place, _CREATE, 0o600))
        os.chmod(place, 0o600)  # whatever the umask says
        with closing(connect(place)) as connection:
            connection.execute(LOGGED).fetchall()
            with committed(connection):
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
                migrate(connection, migrations, 0)
                if rows is not None:
                    salvage(rows.source, connection, rows.tables, rows.report)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        remove(place)
        raise refusal(error, "making the database") from error
    except OSError as error:
        remove(place)
        raise durable.unavailable("making the database", error) from error
    return place


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration], version: int) -> None:
    """Lift a database from a version to the newest, in the transaction of the caller."""
    for migration in migrations[version:]:
        for statement in migration:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(migrations)}")


def refuse_planted(path: str, report: durable.Report) -> None:
    """SQLite follows links and opens what it finds, so it is looked at before. Raises UnsafeFile."""
    for place in (path, *(path + suffix for suffix in BESIDE)):
        what = f"the file {os.path.basename(place)!r}"
        try:
            found = os.lstat(place)
            if not stat.S_ISREG(found.st_mode):
                raise durable.UnsafeFile(f"{what} is a link or no regular file", "remove it by hand")
            if found.st_uid != os.geteuid():
                raise durable.UnsafeFile(
                    f"{what} belongs to another user", "run as its owner, or use another state directory"
                )
            if found.st_mode & 0o077:
                os.chmod(place, 0o600)  # by name: see the head of this module
                report(f"{what} was open to others (mode {stat.S_IMODE(found.st_mode):04o}); now 0600")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise durable.unavailable("opening the database", error) from error


def remove(path: str) -> None:
    """Remove a database with what belongs to it, as far as that can be."""
    for suffix in ("", *BESIDE):
        with suppress(OSError):
            os.unlink(path + suffix)
