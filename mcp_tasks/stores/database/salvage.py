"""What can still be read of a broken database."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

from mcp_tasks.stores.disk.durable import Report

__all__ = ["copy_database", "salvage"]

_MOST_TRIES = 200_000


def copy_database(path: str, copy: str) -> None:
    """Copy a database that nobody writes to, with its log. Raises OSError."""
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            file = os.open(copy + suffix, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(file, "wb") as there, open(path + suffix, "rb") as here:
                shutil.copyfileobj(here, there)


def salvage(source: str, connection: sqlite3.Connection, tables: Sequence[str], report: Report) -> None:
    """Take over every row that can be read, as it is.

    Args:
        source: The broken database; SQLite may change it.
        connection: To the new one, in a transaction. Raises sqlite3.Error where it cannot be written.
        tables: Names of ordinary tables with row ids, each the same in both.
        report: Told of which table how many rows were taken over, where any were.
    """
    with closing(sqlite3.connect(source, isolation_level=None)) as broken:
        broken.text_factory = _decoded
        # Nothing is written: it lets SQLite look into a file that was cut off.
        with suppress(sqlite3.Error):
            broken.execute("PRAGMA writable_schema = ON")
        for table in tables:
            taken = _take_over(broken, connection, table)
            if taken:
                report(f"{taken} rows of {table!r}")


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _take_over(broken: sqlite3.Connection, connection: sqlite3.Connection, table: str) -> int:
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    columns, places = ", ".join(names), ", ".join("?" * (len(names) + 1))
    insert = f"INSERT OR IGNORE INTO {table} (rowid, {columns}) VALUES ({places})"  # noqa: S608 (our own)
    taken = 0
    for row in _readable(broken, f"SELECT rowid, {columns} FROM {table} NOT INDEXED"):  # noqa: S608 (our own)
        with suppress(sqlite3.IntegrityError):
            taken += connection.execute(insert, row).rowcount
    return taken


def _readable(broken: sqlite3.Connection, select: str) -> Iterator[tuple[Any, ...]]:
    """Rows from the front up to what is broken, from the back down to it, and what is in between."""
    low, high = 0, 0
    for row in _run(broken, f"{select} ORDER BY rowid"):
        yield row
        low = row[0]
    for row in _run(broken, f"{select} ORDER BY rowid DESC"):
        high = row[0]
        if high <= low:
            return
        yield row
    for rowid in range(low + 1, min(high, low + _MOST_TRIES)):
        yield from _run(broken, f"{select} WHERE rowid = {rowid}")


def _run(broken: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """Rows until the first that cannot be read."""
    try:
        cursor = broken.execute(query)
    except sqlite3.DatabaseError:
        return
    while True:
        try:
            row = cursor.fetchone()
        except sqlite3.DatabaseError:
            return
        if row is None:
            return
        yield row
