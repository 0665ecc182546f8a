from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.clock import Clock
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import Draft, SessionKey
from mcp_tasks.stores.disk.quarantine import set_aside_in
from mcp_tasks.stores.journal.file import JournalFile
from mcp_tasks.stores.journal.folding import unpack
from mcp_tasks.stores.journal.notes import Notes
from mcp_tasks.stores.journal.words import contains, phrases_of, query_of, words_of
from tests.stores.faulty_sqlite import fail, faulty_sqlite
from tests.stores.journals import AT, KEY, draft, drafts, texts
from tests.waiting import wait_until

WRITER = """
import sys, threading
from mcp_tasks.clock import Clock
from mcp_tasks.models import Draft, SessionKey
from mcp_tasks.stores.journal.file import JournalFile

journal = JournalFile(sys.argv[1], Clock())
def write(thread):
    for n in range(int(sys.argv[3])):
        draft = Draft(SessionKey("ada", "work"), "user", f"{sys.argv[2]} {thread} {n}", n)
        journal.note(draft) if n % 4 == 3 else journal.append([draft])
threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
journal.close()
"""


@contextmanager
def opened(place: Path) -> Iterator[JournalFile]:
    place.mkdir(mode=0o700, exist_ok=True)
    journal = JournalFile(place, Clock())
    try:
        yield journal
    finally:
        journal.close()


def test_what_was_said_is_there_after_the_server_ended(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as journal:
        written = journal.append(drafts(3))
        journal.note(draft("noted"))
    with opened(tmp_path / "s") as journal:
        assert journal.read(KEY, limit=3) == written
        assert texts(journal.read(KEY))[3:] == ["noted"]
    assert (tmp_path / "s" / "journal.db").stat().st_mode & 0o777 == 0o600


def test_nothing_is_opened_or_made_before_it_is_needed(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as journal:
        assert journal.problems() == []
        assert list(journal.verify()) == []
    assert os.listdir(tmp_path / "s") == []


def test_four_processes_with_eight_threads_get_numbers_in_order(tmp_path: Path) -> None:
    place = tmp_path / "s"
    place.mkdir(mode=0o700)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(place), str(name), "12"]) for name in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4

    with opened(place) as journal:
        found = journal.read(KEY, limit=1_000)
        assert [message.seq for message in found] == list(range(1, 4 * 8 * 12 + 1))
        assert len(set(texts(found))) == 4 * 8 * 12
        for name in range(4):
            for thread in range(8):
                written = [
                    int(text.split()[2]) for text in texts(found) if text.startswith(f"{name} {thread} ")
                ]
                assert [n for n in written if n % 4 != 3] == [n for n in range(12) if n % 4 != 3]
                assert [n for n in written if n % 4 == 3] == [3, 7, 11]


def test_notes_of_a_killed_process_were_written_within_a_moment(tmp_path: Path) -> None:
    place = tmp_path / "s"
    place.mkdir(mode=0o700)
    code = WRITER.split("def write", maxsplit=1)[0] + (
        "journal.note(Draft(SessionKey('ada', 'work'), 'user', 'noted', 1))\nsys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(place)], stdin=subprocess.PIPE) as process:
        with opened(place) as journal:
            wait_until(lambda: texts(journal.read(KEY)) == ["noted"], "the note is written")
        process.kill()
    with opened(place) as journal:
        assert texts(journal.read(KEY)) == ["noted"]


@pytest.mark.parametrize("damage", ["foreign", "empty", "zeroed"])
def test_a_damaged_journal_is_set_aside_and_a_new_one_begun(tmp_path: Path, damage: str) -> None:
    place = tmp_path / "s"
    with opened(place) as journal:
        journal.append(drafts(300))
    file = place / "journal.db"
    whole = file.read_bytes()
    broken = {"foreign": b"not a database " * 999, "empty": b"", "zeroed": bytes(len(whole))}[damage]
    file.write_bytes(broken)

    with opened(place) as journal:
        told = " ".join(journal.problems())
        assert "journal.db could not be read and was set aside as quarantine/" in told, told
        assert journal.read(KEY) == []
        assert journal.append(drafts(1))[0].seq == 1
        assert list(journal.verify()) == []
    kept = [
        path.read_bytes() for path in (place / "quarantine").iterdir() if path.name.endswith("journal.db")
    ]
    assert kept == [broken]
    assert [one.original for one in set_aside_in(place)] == ["journal.db"]


def test_a_damaged_journal_is_told_once_and_as_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "s"
    with opened(place) as journal:
        journal.append(drafts(3))
    (place / "journal.db").write_bytes(b"not a database " * 999)

    with opened(place) as journal:
        assert journal.read(KEY) == []
        assert journal.active_at([KEY]) == {}

    [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "journal.db could not be read and was set aside" in told


def test_a_journal_on_a_full_disk_says_so_once_and_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "s"
    with opened(place) as journal:
        journal.append(drafts(3))

    def full(name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return fail(errno.ENOSPC)(name, real, args) if "write" in name else real(*args)

    with faulty_sqlite(0, full), opened(place) as journal:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="the disk is full"):
                journal.active_at([KEY])
        journal.touch(KEY, AT)
        journal.flush()

    [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told.endswith("opening the database failed: the disk is full (ENOSPC)")


def test_of_a_journal_with_a_broken_page_the_rest_is_taken_over(tmp_path: Path) -> None:
    place = tmp_path / "s"
    with opened(place) as journal:
        journal.append(drafts(3_000))
        journal.search(KEY, "message")
        journal.prune(KEY, 2_900)
    file = place / "journal.db"
    whole = bytearray(file.read_bytes())
    middle = whole.find(b"message 2000") // 4096 * 4096
    whole[middle : middle + 4096] = os.urandom(4096)
    file.write_bytes(whole)

    with opened(place) as journal:
        told = list(journal.verify())
        assert told or journal.problems()
        found = list(journal.everything(KEY))
        assert len(found) > 2_000
        assert [message.seq for message in found] == sorted(message.seq for message in found)
        assert journal.append(drafts(1))[0].seq > 2_900
        assert texts(journal.search(KEY, "2999")) == ["message 2999"]


def test_a_damaged_body_of_folded_messages_is_named(tmp_path: Path) -> None:
    place = tmp_path / "s"
    with opened(place) as journal:
        journal.append(drafts(1_200))
        journal.prune(KEY, 10)
        with journal.tables().transaction() as connection:
            connection.execute("UPDATE fold SET body = x'00' WHERE id = (SELECT min(id) FROM fold)")
            connection.execute("UPDATE fold SET messages = 1 WHERE id = (SELECT max(id) FROM fold)")
        damaged, missing = journal.verify()
        assert "damaged" in damaged
        assert "missing" in missing
        with pytest.raises(StoreUnavailable, match="damaged"):
            list(journal.everything(KEY))
        assert len(journal.read(KEY, role="user")) == 10
    with pytest.raises(StoreUnavailable):
        unpack(b"{}")


def test_a_journal_of_a_newer_version_is_left_as_it_is_and_told(tmp_path: Path) -> None:
    place = tmp_path / "s"
    with opened(place) as journal:
        journal.append(drafts(1))
    file = place / "journal.db"
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = file.read_bytes()

    with opened(place) as journal:
        assert "newer version" in journal.problems()[0]
        assert "newer version" in next(iter(journal.verify()))
        journal.note(draft("lost"))
        journal.flush()
        with pytest.raises(StoreUnavailable, match="newer version"):
            journal.append(drafts(1))
    assert file.read_bytes() == before


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as journal:
        pass
    journal.note(draft("late"))
    journal.touch(KEY, AT)
    with pytest.raises(StoreUnavailable, match="closed"):
        journal.append(drafts(1))
    assert journal.problems() == [
        "1 entries of journals were left out, more than can be written",
    ]


# -- the queue of notes ------------------------------------------------------------------------


class Disk:
    """Takes what is written unless it is full or slow."""

    def __init__(self) -> None:
        self.full = False
        self.free = threading.Event()
        self.free.set()
        self.written: list[str] = []
        self.used: dict[SessionKey, int] = {}

    def __call__(self, drafts: Sequence[Draft], used: Mapping[SessionKey, int]) -> None:
        self.free.wait(10)
        if self.full:
            raise StoreUnavailable("the disk is full")
        self.written += [one.text for one in drafts]
        self.used |= used


def test_a_full_disk_keeps_nobody_waiting_and_what_was_noted_comes_later() -> None:
    disk = Disk()
    notes = Notes(disk)
    disk.full = True
    notes.add(draft("one"))
    notes.used(KEY, AT)
    notes.flush()
    assert notes.problems() == ["entries of journals cannot be written: the disk is full"]
    assert notes.used_at() == {KEY: AT}

    disk.full = False
    notes.add(draft("two"))
    notes.flush()
    assert disk.written == ["one", "two"]
    assert disk.used == {KEY: AT}
    assert notes.problems() == []
    notes.close()


def test_what_cannot_be_written_at_the_end_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    disk.full = True
    notes = Notes(disk)
    notes.add(draft("one"))
    notes.add(lambda: draft("two"))
    began = time.monotonic()
    notes.close()

    assert time.monotonic() - began < 5
    assert "2 entries of journals could not be written: the disk is full" in caplog.text


def test_more_than_can_be_written_is_left_out_and_counted() -> None:
    disk = Disk()
    disk.free.clear()
    notes = Notes(disk, most_waiting=10)
    for n in range(25):
        notes.add(draft(str(n)))
    assert "were left out" in notes.problems()[0]
    disk.free.set()
    notes.close()

    assert disk.written[:10] == [str(n) for n in range(10)]


def test_a_defect_in_writing_loses_its_batch_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()

    def write(drafts: Sequence[Draft], used: Mapping[SessionKey, int]) -> None:
        if any(one.text == "poison" for one in drafts):
            raise ZeroDivisionError
        disk(drafts, used)

    notes = Notes(write)
    notes.add(draft("poison"))
    notes.flush()
    notes.add(draft("fine"))
    notes.flush()
    notes.close()

    assert disk.written == ["fine"]
    assert "1 are lost" in caplog.text


def test_many_notes_are_written_in_batches_and_in_order() -> None:
    disk = Disk()
    notes = Notes(disk)
    for n in range(3_500):
        notes.add(draft(str(n)))
    notes.flush()
    notes.flush()

    assert disk.written == [str(n) for n in range(3_500)]
    notes.close()


# -- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("-- ... !", []),
        ("One, two_three", ["one", "two", "three"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("naïve Ünder", ["naive", "under"]),
        ("日本 2024", ["日本", "2024"]),
    ],
)
def test_words_are_runs_of_letters_and_digits(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_a_query_is_made_of_quoted_strings_alone() -> None:
    assert query_of(phrases_of('a "b AND c* -- a')) == '"a" AND """b" AND "AND" AND "c*"'
    assert len(phrases_of(" ".join(str(n) for n in range(1_000)))) == 64


def test_a_phrase_is_found_where_its_words_stand_in_a_row() -> None:
    assert contains("see test_login.py there", ["test_login.py"])
    assert not contains("login test py", ["test_login.py"])


FULL = """
import resource, sys
from mcp_tasks.clock import Clock
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import Draft, SessionKey
from mcp_tasks.stores.journal.file import JournalFile

def draft(text): return Draft(SessionKey("ada", "work"), "user", text, 1)
def allow(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
journal = JournalFile(sys.argv[1], Clock())
journal.append([draft("before")])
allow(1)
try:
    journal.append([draft("refused")])
except StoreUnavailable as error:
    print(error.message)
journal.note(draft("noted"))
journal.flush()
print(journal.problems())
print([message.text for message in journal.search(SessionKey("ada", "work"), "before")])
allow(resource.RLIM_INFINITY)
journal.append([draft("after")])
journal.flush()
print(sorted(message.text for message in journal.read(SessionKey("ada", "work"))))
journal.close()
"""


def test_a_full_disk_refuses_messages_and_loses_none_that_were_noted(tmp_path: Path) -> None:
    place = tmp_path / "s"
    place.mkdir(mode=0o700)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(place)], capture_output=True, text=True, check=False, timeout=60
    )
    refused, problems, found, read = done.stdout.splitlines()

    assert "writing to the database failed" in refused
    assert "cannot be written" in problems
    assert found == "['before']"
    assert read == "['after', 'before', 'noted']"


def test_a_session_that_was_just_used_is_never_taken_for_one_that_was_not(tmp_path: Path) -> None:
    journal = JournalFile(tmp_path, Clock())
    seen: list[tuple[int | None, int | None]] = []
    real = journal._append

    def slow(*args: Any, **kwargs: Any) -> Any:
        # Taken out of what waits, and not in the database yet.
        seen.append((journal.active_at([KEY]).get(KEY), journal.figures(KEY).active_at))
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_append", slow)
        journal.touch(KEY, 7)
        journal.flush()
    assert seen == [(7, 7)]
    assert journal.active_at([KEY]) == {KEY: 7}
    journal.close()
