"""An SQLite database as one file of a state directory, safe for many threads and many processes.

The file appears under its name only when its tables are there, so an empty one is a broken one. What
is broken is set aside with its write-ahead log, what can still be read is taken over into a new file,
and whoever has the old one open finds the new one with the next call.

Nothing here opens the database but SQLite itself: closing any other descriptor of the file would
drop the locks that this process holds on it (sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress

from mcp_tasks.codec import NewerSchema
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.stores.database.connections import (
    Connection,
    Identity,
    NoDatabase,
    close,
    committed,
    connect,
    is_damage,
    primary_code,
    refusal,
)
from mcp_tasks.stores.database.files import (
    APPLICATION,
    BESIDE,
    LOGGED,
    Migration,
    Rows,
    build,
    migrate,
    refuse_planted,
    remove,
)
from mcp_tasks.stores.database.salvage import copy_database
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.locks import ProcessLock
from mcp_tasks.stores.disk.quarantine import explain

__all__ = ["Connection", "Damaged", "Database", "MemoryDatabase", "Migration"]

_TURN_SECONDS = 30.0


class Damaged(StoreUnavailable):
    """The database was found broken just now; the next call works on a new one."""


class Database:
    """A database file with its connections, of which each call has one for itself.

    A connection must not be used outside of its `with` block, and no block must be entered inside of
    another one's: the inner one could not see what the outer one has not committed yet.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        migrations: Sequence[Migration],
        *,
        quarantine: str | os.PathLike[str],
        report: durable.Report,
        tables: Sequence[str] = (),
    ) -> None:
        """Open the database, make it where it is missing, lift it to the newest version.

        Args:
            path: The file, in a folder of ours that exists.
            migrations: The n-th lifts a database from version n (`PRAGMA user_version`) to n + 1.
            quarantine: Where a broken one goes; a folder of ours that exists.
            report: Told in a sentence what was broken.
            tables: Of which the rows are taken over from a broken database as far as they can be read,
                in this order; triggers fire as for any other row.

        Raises:
            NewerSchema: A newer version wrote it; it is left untouched.
            StoreUnavailable: A link, another user's or another program's file, or the disk refused.
        """
        self._path = os.path.abspath(path)
        self._name = os.path.basename(self._path)
        self._migrations = migrations
        self._quarantine = os.fspath(quarantine)
        self._report = report
        self._tables = tables
        self._turn = ProcessLock(f"{self._path}.lock", _TURN_SECONDS)
        self._idle: list[Connection] = []
        self._guard = threading.Lock()
        self._closed = False
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with; each statement sees what was committed before it.

        Raises:
            Damaged: What was read is broken; the next call finds a new database.
            StoreUnavailable: The disk refused, or another program has the file for itself.
        """
        connection: Connection | None = None
        there = self._identity()
        try:
            connection = self._borrowed(there)
            yield connection
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except sqlite3.Error as error:
            raise self._explained(error, "reading the database", there) from error
        finally:
            self._give_back(connection)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[Connection]:
        """A connection to write with, alone among all threads and processes.

        What the block did is durable when it has been left, and undone where it raises. A
        sqlite3.IntegrityError comes out as it is. What is not `durable` costs no sync of the disk: it
        survives the end of the process, and a power cut only after a moment.

        Raises:
            Damaged: As `reading`.
            StoreUnavailable: As `reading`. Nothing was written.
        """
        connection: Connection | None = None
        there: Identity | None = None
        try:
            with self._turn.held():
                there = self._identity()
                try:
                    connection = self._borrowed(there, locked=True)
                    with committed(connection, durable=durable):
                        yield connection
                finally:
                    self._give_back(connection)
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except sqlite3.Error as error:
            raise self._explained(error, "writing to the database", there) from error

    def close(self) -> None:
        """Close every connection; those in use are closed when they are given back."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            close(connection)

    def _borrowed(self, there: Identity | None, *, locked: bool = False) -> Connection:
        """An idle connection to the file that is in place now, or a new one.

        Raises sqlite3.Error, StoreUnavailable.
        """
        while True:
            with self._guard:
                if self._closed:
                    raise StoreUnavailable("the database is closed")
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                break
            if connection.identity == there:
                return connection
            close(connection)  # somebody has set that file aside
        if there is None:
            with nullcontext() if locked else self._turn.held():
                self._create()
        return self._connected()

    def _give_back(self, connection: Connection | None) -> None:
        if connection is None:
            return
        with self._guard:
            # One that is in a transaction still would keep that for ever.
            if not self._closed and connection.is_sound and not connection.in_transaction:
                self._idle.append(connection)
                return
        close(connection)

    def _identity(self) -> Identity | None:
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise durable.unavailable("opening the database", error) from error
        return found.st_dev, found.st_ino

    def _connected(self) -> Connection:
        """A new connection. Raises sqlite3.Error, StoreUnavailable."""
        refuse_planted(self._path, self._report)
        identity = self._identity()
        connection = connect(self._path)
        connection.identity = identity
        try:
            if identity is None or identity != self._identity():
                raise StoreUnavailable("the database was replaced while it was opened", "try again")
        except BaseException:
            close(connection)
            raise
        return connection

    def _open(self) -> None:
        """Have a database of the newest version in place, and a connection to it."""
        for _ in range(3):
            connection: Connection | None = None
            with self._turn.held():
                if self._identity() is None:
                    self._create()
                self._take_back_log()
                try:
                    if self._is_empty():
                        # Before SQLite takes it for a new one, and drops the log beside it.
                        raise NoDatabase("the file is empty")
                    connection = self._connected()
                    self._lift(connection)
                except sqlite3.Error as error:
                    self._discard(connection)
                    if not is_damage(error):
                        raise refusal(error, "opening the database") from error
                    self._replace(str(error))
                    continue
                except BaseException:
                    self._discard(connection)
                    raise
            self._give_back(connection)
            return
        raise StoreUnavailable("the database is broken again and again", "see `doctor`")

    def _is_empty(self) -> bool:
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise durable.unavailable("opening the database", error) from error
        return stat.S_ISREG(found.st_mode) and found.st_size == 0

    @staticmethod
    def _discard(connection: Connection | None) -> None:
        if connection is not None:
            close(connection)

    def _lift(self, connection: Connection) -> None:
        """Bring a database up to date, all or nothing. Raises sqlite3.DatabaseError for a broken one."""
        version = _pragma(connection, "user_version")
        if _pragma(connection, "application_id") != APPLICATION:
            raise durable.UnsafeFile(
                f"{self._name} is the database of another program", "move it to another folder"
            )
        known = len(self._migrations)
        if version > known:
            raise NewerSchema(f"the database {self._name}", version, known)
        if version < known:
            with committed(connection):
                migrate(connection, self._migrations, version)
        connection.execute(LOGGED).fetchall()  # somebody may have switched it off by hand

    def _create(self) -> None:
        """Make an empty database under its name. The caller has the turn."""
        place = build(self._path, self._migrations)
        try:
            os.link(place, self._path, follow_symlinks=False)
        except FileExistsError:
            pass
        except OSError as error:
            raise durable.unavailable("making the database", error) from error
        finally:
            remove(place)
        durable.fsync_folder(os.path.dirname(self._path))

    def _explained(self, error: sqlite3.Error, action: str, there: Identity | None) -> StoreUnavailable:
        """What is to be raised for an error; a broken database has been replaced by then."""
        # A file that was emptied under us has no tables: SQLITE_ERROR.
        if not is_damage(error) and primary_code(error) != sqlite3.SQLITE_ERROR:
            return refusal(error, action)
        with self._turn.held():
            if self._identity() == there:
                if not self._is_broken():
                    return refusal(error, action)
                self._replace(str(error))
        return Damaged(f"{action} failed: {error}; it was set aside", "try again; `doctor` tells more")

    def _is_broken(self) -> bool:
        """A second look with a new connection, alone: what one connection met may be its own trouble."""
        with self._guard:
            idle, self._idle = self._idle, []
        for connection in idle:
            close(connection)
        if self._is_empty():
            return True
        try:
            with closing(connect(self._path)) as connection:
                return connection.execute("PRAGMA integrity_check(1)").fetchall() != [("ok",)]
        except sqlite3.Error as error:
            if is_damage(error):
                return True
            raise refusal(error, "reading the database") from error

    def _take_back_log(self) -> None:
        """Undo what a process did that was killed while it set this database aside. The caller has the turn.

        The log may be aside already, with what was committed last, and the database stand here without it.
        """
        try:
            here = os.lstat(self._path)
            if here.st_nlink < 2:
                return
            for name in os.listdir(self._quarantine):
                aside = f"{self._quarantine}/{name}"
                if os.path.samestat(os.lstat(aside), here):
                    for suffix in BESIDE:
                        if os.path.lexists(aside + suffix) and not os.path.lexists(self._path + suffix):
                            os.rename(aside + suffix, self._path + suffix)
                    os.unlink(aside)
                    return
        except OSError as error:
            raise durable.unavailable("opening the database", error) from error

    def _replace(self, why: str) -> None:
        """Put a new database in place of a broken one, which is kept. The caller has the turn."""
        name = f"{int(time.time() * 1000)}-{secrets.token_hex(4)}-{self._name}"
        aside, copy = f"{self._quarantine}/{name}", f"{self._quarantine}/.{self._name}.tmp"
        fresh: str | None = None
        taken: list[str] = []
        try:
            if self._tables:
                copy_database(self._path, copy)  # SQLite changes what it reads
            rows = Rows(copy, self._tables, taken.append) if self._tables else None
            fresh = build(self._path, self._migrations, rows)
            # The broken file keeps its name until the new one has it: no moment without a database.
            os.link(self._path, aside, follow_symlinks=False)
            for suffix in BESIDE:
                with suppress(FileNotFoundError):
                    os.rename(self._path + suffix, aside + suffix)
            os.replace(fresh, self._path)
        except OSError as error:
            raise durable.unavailable("setting a broken database aside", error) from error
        finally:
            remove(copy)
            if fresh is not None:
                remove(fresh)
        durable.fsync_folder(os.path.dirname(self._path))
        told = f"{', '.join(taken) or 'nothing'} could be taken over" if self._tables else "it is begun anew"
        explain(aside, self._name, f"{why}; {told}")
        self._report(f"{self._name} could not be read and was set aside as quarantine/{name}: {why}; {told}")


class MemoryDatabase:
    """The same for as long as this object lives: one connection, which its callers have in turn."""

    def __init__(self, migrations: Sequence[Migration]) -> None:
        """Make the tables. See `Database`."""
        self._lock = threading.RLock()
        self._connection = connect(":memory:")
        with self.transaction() as connection:
            migrate(connection, migrations, 0)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """See `Database.reading`."""
        with self._lock:
            try:
                yield self._connection
            except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
                raise
            except sqlite3.Error as error:
                raise refusal(error, "reading the database") from error

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[Connection]:
        """See `Database.transaction`."""
        with self.reading() as connection, committed(connection, durable=durable):
            yield connection

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            close(self._connection)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)
