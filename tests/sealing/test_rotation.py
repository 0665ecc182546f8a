from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_tasks.clock import Clock
from mcp_tasks.executors.local import LocalExecutor
from mcp_tasks.models import Draft, Session, SessionKey, Workspace
from mcp_tasks.ports import Launch
from mcp_tasks.sealing import KeyedSealer, open_sealer
from mcp_tasks.sealing.rotation import reseal, rotate
from mcp_tasks.sealing.sealer import key_id_of
from mcp_tasks.settings import Settings
from mcp_tasks.stores.journal.file import JournalFile
from mcp_tasks.stores.json.store import JsonFileStore
from tests.stores.records import OWNER, SESSION, pending

AT = 1_700_000_000_000


class Place:
    """A store with something sealed of every kind."""

    def __init__(self, root: Path) -> None:
        self.state = root / "state"
        self.settings = Settings(dir=self.state, key_file=root / "key")
        self.sealer: KeyedSealer = open_sealer(self.settings)
        self.store = JsonFileStore(self.state)
        self.journal = JournalFile(self.state, Clock(), sealer=self.sealer)
        self.executor = LocalExecutor(sealer=self.sealer)
        self.task = pending()

    def fill(self) -> None:
        env = {"TOKEN": self.sealer.seal("hunter2"), "OTHER": self.sealer.seal("hunter3")}
        self.store.open_session(Session(SESSION, AT, workspace=Workspace(env=env)))
        self.store.open_session(Session(SessionKey(OWNER, "empty"), AT))
        self.journal.append([self.draft(f"secret {n}") for n in range(450)])
        self.journal.append([replace(self.draft("open"), sealed=False)])
        edited = self.journal.read(SESSION, limit=1)[0]
        self.journal.edit(SESSION, edited.message_id, "secret edit", AT + 1)
        self.journal.prune(SESSION, 300)
        folder = self.store.make_run_folder(self.task.key, 1)
        self.executor.park(folder, Launch(("true",), "/", {"A": "hunter4"}, stdin=b"hunter5"))
        self.store.create(self.task)

    def draft(self, text: str) -> Draft:
        return Draft(SESSION, "user", text, AT, data={"about": text}, sealed=True)

    def everything(self) -> tuple[dict[str, str], list[str], Launch]:
        env = self.store.load_session(SESSION).workspace.env
        values = {name: self.sealer.unseal(value) for name, value in env.items()}
        texts = [message.text for message in self.journal.everything(SESSION) if message.role != "summary"]
        return values, texts, self.executor.parked(self.store.run_folder(self.task.key, 1))

    def forget_old_keys(self) -> None:
        """Leave the newest key in the file, so that what has another cannot be read."""
        file = self.state.parent / "key"
        file.write_text(file.read_text().splitlines()[-1])
        assert self.sealer.source.older() == []

    def close(self) -> None:
        self.executor.close()
        self.journal.close()
        self.store.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    place.fill()
    yield place
    place.close()


def test_everything_has_the_new_key_and_reads_as_before(place: Place) -> None:
    before = place.everything()
    old = place.sealer.source.newest().key_id
    done = rotate(place.sealer, place.store, place.journal, place.executor)

    assert done.key_id == place.sealer.source.newest().key_id != old
    assert (done.sessions, done.launches, done.unreadable, done.older) == (1, 1, 0, (old,))
    assert done.messages == 451  # with the summary of those that are folded
    assert place.everything() == before
    place.forget_old_keys()
    assert place.everything() == before


def test_what_was_resealed_is_not_touched_again(place: Place) -> None:
    rotate(place.sealer, place.store, place.journal, place.executor)
    done = reseal(place.sealer, place.store, place.journal, place.executor)

    assert (done.sessions, done.messages, done.launches, done.unreadable) == (0, 0, 0, 0)


def test_a_rotation_that_was_stopped_goes_on_where_it_was(place: Place) -> None:
    before = place.everything()
    place.sealer.source.add()
    calls = 0

    def stopping(sealed: str) -> str | None:
        nonlocal calls
        calls += 1
        if calls > 500:
            raise KeyboardInterrupt
        return place.sealer.renewed(sealed)

    with pytest.raises(KeyboardInterrupt):
        place.journal.reseal(stopping)
    assert place.everything() == before
    done = reseal(place.sealer, place.store, place.journal, place.executor)
    assert 0 < done.messages < 451
    assert place.everything() == before


def test_what_cannot_be_unsealed_is_counted_and_stays(place: Place) -> None:
    foreign = KeyedSealer(type(place.sealer.source)(place.state.parent / "other"))  # type: ignore[call-arg]
    lost = foreign.seal("lost")
    session = place.store.load_session(SESSION)
    env = {**session.workspace.env, "LOST": lost}
    place.store.replace_session(replace(session, workspace=Workspace(env=env)))
    done = rotate(place.sealer, place.store, place.journal, place.executor)

    assert (done.sessions, done.unreadable) == (0, 1)
    assert place.store.load_session(SESSION).workspace.env == env


def test_with_keys_of_the_environment_everything_gets_the_last_of_them(place: Place, tmp_path: Path) -> None:
    before = place.everything()
    key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    sealer = open_sealer(Settings(dir=place.state, key=key, key_file=tmp_path / "key"))
    journal = JournalFile(place.state, Clock(), sealer=sealer)
    executor = LocalExecutor(sealer=sealer)
    done = rotate(sealer, place.store, journal, executor)

    assert done.key_id == sealer.source.newest().key_id
    assert done.unreadable == 0
    texts = [message.text for message in journal.everything(SESSION) if message.role != "summary"]
    assert texts == before[1]
    assert executor.parked(place.store.run_folder(place.task.key, 1)) == before[2]
    executor.close()
    journal.close()


def test_a_server_that_works_on_meanwhile_loses_nothing(place: Place) -> None:
    other = open_sealer(place.settings)
    journal = JournalFile(place.state, Clock(), sealer=other)
    stop = threading.Event()
    written: list[str] = []

    def work() -> None:
        while not stop.is_set():
            text = f"written {len(written)}"
            journal.append([place.draft(text)])
            written.append(text)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(3):
            assert rotate(place.sealer, place.store, place.journal, place.executor).unreadable == 0
    finally:
        stop.set()
        worker.join(30)
    reseal(place.sealer, place.store, place.journal, place.executor)
    place.forget_old_keys()

    texts = [message.text for message in place.journal.everything(SESSION)]
    assert [text for text in texts if text.startswith("written")] == written
    assert key_id_of(other.seal("x")) == place.sealer.source.newest().key_id
    journal.close()


def test_without_the_old_key_all_stays_as_it_is_and_is_counted(place: Place, tmp_path: Path) -> None:
    before = place.everything()
    stranger = open_sealer(Settings(dir=place.state, key_file=tmp_path / "another"))
    executor = LocalExecutor(sealer=stranger)
    done = reseal(stranger, place.store, place.journal, executor)
    executor.close()

    assert (done.sessions, done.messages, done.launches) == (0, 0, 0)
    assert done.unreadable == 1 + 300 + 1 + 1  # session, live messages, one body of folded ones, launch
    assert place.everything() == before


def test_a_session_that_changes_meanwhile_keeps_the_change(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = place.store.sessions()
    session = place.store.load_session(SESSION)
    place.store.replace_session(replace(session, title="changed meanwhile"))
    gone = Session(SessionKey(OWNER, "gone"), AT, workspace=session.workspace)
    place.sealer.source.add()
    with monkeypatch.context() as patch:
        patch.setattr(place.store, "sessions", lambda: [gone, *stale])
        done = reseal(place.sealer, place.store, place.journal, place.executor)

    assert (done.sessions, done.unreadable) == (1, 0)
    assert place.store.load_session(SESSION).title == "changed meanwhile"
    assert place.sealer.renewed_values(place.store.load_session(SESSION).workspace.env) is None
