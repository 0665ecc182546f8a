"""A database file is opened safely, shared, lifted to the newest version, and replaced where it is broken."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from mcp_tasks.codec import NewerSchema
from mcp_tasks.errors import StoreBusy, StoreUnavailable
from mcp_tasks.stores.database import connections
from mcp_tasks.stores.database.database import Damaged, Database, MemoryDatabase
from tests.stores import faulty_os
from tests.stores.faulty_sqlite import fail, faulty_sqlite

ONE = (
    "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT UNIQUE)",
    "CREATE INDEX named ON things (name)",
)
TWO = ("ALTER TABLE things ADD COLUMN colour TEXT", "INSERT INTO things (name, colour) VALUES ('new', 'red')")

Open = Callable[..., Database]


@pytest.fixture
def problems() -> list[str]:
    return []


@pytest.fixture
def opened(tmp_path: Path, problems: list[str]) -> Iterator[Open]:
    """Opens the database of the test; closes it in the end."""
    (tmp_path / "quarantine").mkdir()
    every: list[Database] = []

    def open_it(*migrations: tuple[str, ...], tables: tuple[str, ...] = ("things",)) -> Database:
        database = Database(
            tmp_path / "a.db",
            migrations or (ONE,),
            quarantine=tmp_path / "quarantine",
            report=problems.append,
            tables=tables,
        )
        every.append(database)
        return database

    yield open_it
    for database in every:
        database.close()


def put(database: Database | MemoryDatabase, *names: str) -> None:
    with database.transaction() as connection:
        connection.executemany("INSERT INTO things (name) VALUES (?)", [(name,) for name in names])


def names(database: Database | MemoryDatabase) -> list[str]:
    with database.reading() as connection:
        rows = connection.execute("SELECT name FROM things NOT INDEXED ORDER BY id").fetchall()
    return [name for (name,) in rows]


def quarantined(tmp_path: Path) -> list[str]:
    return sorted(path.name.partition("a.db")[1:][0] for path in (tmp_path / "quarantine").iterdir())


def descriptors(place: Path) -> int:
    return sum(str(place) in file.path for file in psutil.Process().open_files())


def test_what_is_written_is_there_when_it_is_opened_anew(opened: Open, tmp_path: Path) -> None:
    database = opened()
    put(database, "a", "b")
    database.close()
    assert names(opened()) == ["a", "b"]


def test_all_its_files_are_for_their_owner_only(opened: Open, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        put(opened(), "a")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert {path.name for path in files} == {"a.db", "a.db-wal", "a.db-shm", "a.db.lock"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_files_that_were_open_to_others_are_closed(opened: Open, tmp_path: Path, problems: list[str]) -> None:
    opened().close()
    (tmp_path / "a.db").chmod(0o644)
    assert names(opened()) == []
    assert (tmp_path / "a.db").stat().st_mode & 0o777 == 0o600
    assert problems == ["the file 'a.db' was open to others (mode 0644); now 0600"]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_planted_link_is_refused_and_nothing_is_written_through_it(
    opened: Open, tmp_path: Path, suffix: str
) -> None:
    opened().close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    (tmp_path / f"a.db{suffix}").unlink(missing_ok=True)
    (tmp_path / f"a.db{suffix}").symlink_to(elsewhere)
    with pytest.raises(StoreUnavailable, match="link"):
        opened()
    assert elsewhere.read_bytes() == b"mine"


def test_a_planted_link_in_place_of_the_lock_is_refused(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "a.db.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable):
        opened()
    assert not (tmp_path / "elsewhere").exists()


def test_the_database_of_another_program_is_refused_and_left_as_it_is(opened: Open, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as other:
        other.execute("CREATE TABLE theirs (x)")
    before = (tmp_path / "a.db").read_bytes()
    with pytest.raises(StoreUnavailable, match="another program"):
        opened()
    assert (tmp_path / "a.db").read_bytes() == before


def test_a_newer_version_is_refused_and_left_as_it_is(opened: Open, tmp_path: Path) -> None:
    opened(ONE, TWO).close()
    before = (tmp_path / "a.db").read_bytes()
    with pytest.raises(NewerSchema, match="schema 2, this one knows 1"):
        opened(ONE)
    assert (tmp_path / "a.db").read_bytes() == before


def test_an_older_version_is_lifted_once(opened: Open) -> None:
    put(opened(ONE), "a")
    for _ in range(2):
        database = opened(ONE, TWO)
        with database.reading() as connection:
            rows = connection.execute("SELECT name, colour FROM things ORDER BY id").fetchall()
        assert rows == [("a", None), ("new", "red")]


def test_a_lift_that_fails_changes_nothing(opened: Open) -> None:
    put(opened(ONE), "a")
    with pytest.raises(StoreUnavailable):
        opened(ONE, (TWO[0], "INSERT INTO nowhere VALUES (1)"))
    database = opened(ONE, TWO)
    assert names(database) == ["a", "new"]


def test_eight_threads_and_two_openings_lose_nothing(opened: Open) -> None:
    databases = [opened(), opened()]

    def work(thread: int) -> None:
        for number in range(20):
            put(databases[thread % 2], f"{thread}-{number}")
            assert f"{thread}-{number}" in names(databases[(thread + 1) % 2])

    with ThreadPoolExecutor(8) as pool:
        for one in [pool.submit(work, thread) for thread in range(8)]:
            one.result()
    assert len(names(databases[0])) == 160


def test_connections_do_not_grow_with_the_threads_that_have_been(opened: Open, tmp_path: Path) -> None:
    database = opened()
    put(database, "a")
    before = descriptors(tmp_path)
    for _ in range(20):
        thread = threading.Thread(target=names, args=(database,))
        thread.start()
        thread.join()
    assert descriptors(tmp_path) == before
    database.close()
    assert descriptors(tmp_path) == 0
    with pytest.raises(StoreUnavailable, match="closed"):
        names(database)
    with pytest.raises(StoreUnavailable, match="closed"):
        put(database, "b")


def test_a_connection_in_use_is_closed_when_it_is_given_back(opened: Open, tmp_path: Path) -> None:
    database = opened()
    with database.reading() as connection:
        database.close()
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    assert descriptors(tmp_path) == 0


def test_a_block_that_raises_leaves_nothing(opened: Open) -> None:
    database = opened()
    with suppress(KeyError), database.transaction() as connection:
        connection.execute("INSERT INTO things (name) VALUES ('a')")
        raise KeyError
    with pytest.raises(sqlite3.IntegrityError):
        put(database, "b", "b")
    assert names(database) == []
    put(database, "c")
    assert names(database) == ["c"]


def test_a_database_that_another_program_keeps_locked_is_busy(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_BUSY_SECONDS", 0.05)
    database = opened()
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match="locked"):
            put(database, "a")
        assert names(database) == []
    put(database, "a")
    assert names(database) == ["a"]


def test_a_database_that_was_removed_is_made_again(opened: Open, tmp_path: Path) -> None:
    for write in (True, False):
        database = opened()
        put(database, "a")
        for path in tmp_path.glob("a.db*"):
            path.unlink()
        if write:
            put(database, "b")
        assert names(database) == (["b"] if write else [])
        database.close()


def spoil_head(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x" * 100)


def spoil_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 12)
        file.write(os.urandom(4096 * 2))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    path.write_bytes(b"no database at all\n" * 1000)


@pytest.mark.parametrize(
    ("when", "spoil"),
    [
        *(("before it is opened", spoil) for spoil in (spoil_head, spoil_middle, empty, cut, overwrite)),
        *(("while it is open", spoil) for spoil in (spoil_middle, empty, cut)),
    ],
)
def test_a_broken_database_is_set_aside_and_what_can_be_read_goes_on(
    opened: Open, tmp_path: Path, problems: list[str], spoil: Callable[[Path], None], when: str
) -> None:
    database = opened()
    many = [f"{number:06d}{'x' * 200}" for number in range(1000)]
    put(database, *many)
    database.close()
    users = [opened(), opened()] if when == "while it is open" else []
    spoil(tmp_path / "a.db")
    before = (tmp_path / "a.db").read_bytes()
    database, reader = users or [opened(), opened()]
    try:
        left = names(database)
    except Damaged:
        left = names(database)
    assert set(left) <= set(many)
    assert (len(left) > 300) == (spoil in (spoil_middle, cut))
    put(database, "new")
    assert names(reader) == [*left, "new"]
    (kept,) = (path for path in (tmp_path / "quarantine").iterdir() if path.name.endswith("a.db"))
    assert kept.read_bytes() == before
    assert any("was set aside as quarantine/" in problem for problem in problems)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    database.close()
    assert names(opened()) == [*left, "new"]


def test_who_has_a_broken_one_open_goes_on_with_the_new_one(opened: Open, tmp_path: Path) -> None:
    writer, other = opened(), opened()
    put(writer, *(f"{number}{'x' * 200}" for number in range(1000)))
    assert len(names(other)) == 1000
    writer.close()
    other.close()  # the last one moves all from the log into the file
    writer, late = opened(), opened()
    spoil_middle(tmp_path / "a.db")
    with pytest.raises(Damaged):
        names(writer)
    put(late, "late")
    assert names(writer)[-1] == "late"


@pytest.mark.parametrize("number", [5, 28])
def test_a_disk_that_refuses_is_no_broken_database(
    opened: Open, tmp_path: Path, problems: list[str], number: int
) -> None:
    database = opened()
    put(database, "a")
    at = 0
    while True:
        at += 1
        refused = ""
        with faulty_sqlite(at, fail(number)) as faults:
            try:
                put(database, f"b{at}")
            except StoreUnavailable as error:
                refused = str(error)
        assert (f"b{at}" in names(database)) == (not refused), faults.hit
        assert str(tmp_path) not in refused
        if not faults.hit:
            break
    assert at > 3
    assert problems == []
    assert quarantined(tmp_path) == []


def test_a_disk_that_is_full_when_a_database_is_made_leaves_nothing(opened: Open, tmp_path: Path) -> None:
    with faulty_sqlite(0, fail(28)), pytest.raises(StoreUnavailable, match="full"):
        opened()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db.lock", "quarantine"]
    put(opened(), "a")


def test_what_a_killed_process_left_of_making_one_goes(opened: Open, tmp_path: Path) -> None:
    for name in (".a.db.0123.tmp", ".a.db.0123.tmp-wal"):
        (tmp_path / name).write_bytes(b"x")
    opened()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_one_in_memory_does_the_same_for_as_long_as_it_lives() -> None:
    database = MemoryDatabase((ONE, TWO))
    put(database, "a")
    with suppress(KeyError), database.transaction() as connection:
        connection.execute("INSERT INTO things (name) VALUES ('b')")
        raise KeyError
    with pytest.raises(sqlite3.IntegrityError):
        put(database, "a")
    with pytest.raises(StoreUnavailable), database.reading() as connection:
        connection.execute("SELECT * FROM nowhere")

    def work(thread: int) -> None:
        for number in range(20):
            put(database, f"{thread}-{number}")

    with ThreadPoolExecutor(8) as pool:
        for one in [pool.submit(work, thread) for thread in range(8)]:
            one.result()
    assert names(database)[:2] == ["new", "a"]
    assert len(names(database)) == 162
    database.close()


@pytest.mark.parametrize("number", [5, 28])
@pytest.mark.parametrize("broken", [False, True])
def test_failing_at_any_system_call_while_it_is_opened_it_loses_nothing(
    opened: Open, tmp_path: Path, number: int, broken: bool
) -> None:
    at = 0
    while True:
        at += 1
        for path in tmp_path.glob("a.db*"):
            path.unlink()
        if broken:
            database = opened()
            put(database, *(f"{row}{'x' * 200}" for row in range(200)))
            database.close()
            cut(tmp_path / "a.db")
        with faulty_os.faulty(at, faulty_os.fail(number)) as faults, suppress(StoreUnavailable):
            names(opened())
        database = opened()
        with suppress(Damaged):
            names(database)
        assert (len(names(database)) > 50) == broken, faults.hit
        assert (
            not [path for path in tmp_path.iterdir() if path.name.startswith(".")] or faults.hit == "unlink"
        )
        database.close()
        if not faults.hit:
            break
    assert at > 5


def test_a_connection_that_is_in_a_transaction_or_would_not_sync_is_used_no_more(opened: Open) -> None:
    database = opened()
    put(database, "one")
    with database.reading() as connection:
        connection.execute("BEGIN")
    with database.reading() as connection:
        connection.is_sound = False
    assert database._idle == []
    put(database, "two")
    assert names(database) == ["one", "two"]
