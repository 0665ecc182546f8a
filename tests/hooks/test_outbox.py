from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

import pytest

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.hooks import FileOutbox, MemoryOutbox, Outbox
from mcp_tasks.hooks.armed import Armed, BrokenArmed, Notice, decode, encode
from mcp_tasks.models import Hook, TaskKey
from mcp_tasks.sealing import open_sealer
from mcp_tasks.settings import Settings

TASK = "0" * 35 + "a"
ARMED = Armed(
    TaskKey("owner", "session", TASK),
    1_700_000_000_000,
    (Hook("webhook", ("end", "idle"), "sealed1.x"), Hook("desktop")),
    "sealed1.y",
    (Notice("msg_1", 0, "idle", "1.5", 5, {"state": "running"}, 2, 9),),
)


@pytest.fixture(params=["file", "memory"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Outbox:
    return FileOutbox(tmp_path / "hooks") if request.param == "file" else MemoryOutbox()


def test_what_is_written_is_read_and_removed(outbox: Outbox) -> None:
    assert outbox.listing() == {}
    assert not outbox.has(TASK)
    with outbox.arming():
        outbox.write(ARMED)
        assert not outbox.nobody_arms()
    assert outbox.nobody_arms()
    assert outbox.listing() == {TASK: False}
    assert outbox.has(TASK)
    assert outbox.read(TASK) == ARMED
    outbox.keep_end(TASK, {"state": "completed"})
    outbox.keep_end(TASK, {"state": "another"})
    assert outbox.end_of(TASK) == {"state": "completed"}
    assert outbox.listing() == {TASK: True}
    outbox.remove(TASK)
    outbox.remove(TASK)
    assert outbox.listing() == {}
    assert outbox.read(TASK) is None
    assert outbox.end_of(TASK) is None


def test_one_at_a_time_has_the_right_to_tell(tmp_path: Path) -> None:
    one, other = FileOutbox(tmp_path / "hooks"), FileOutbox(tmp_path / "hooks")
    assert one.take(TASK) is None  # there is no outbox yet
    with one.arming():
        one.write(ARMED)
    held = one.take(TASK)
    assert held is not None
    assert other.take(TASK) is None
    held.close()
    again = other.take(TASK)
    assert again is not None
    again.close()


def test_what_killed_processes_left_of_a_task_is_swept_and_nothing_else(tmp_path: Path) -> None:
    outbox, other = FileOutbox(tmp_path / "hooks"), "0" * 35 + "b"
    outbox.sweep()  # there is no outbox yet
    with outbox.arming():
        outbox.write(ARMED)
    for task_id in (TASK, other):
        outbox.keep_end(task_id, {})
        (tmp_path / "hooks" / f"{task_id}.lock").touch()
    abandoned = tmp_path / "hooks" / f".{other}.json.tmp"
    abandoned.touch()
    os.utime(abandoned, (1, 1))
    outbox.sweep()
    left = sorted(path.name for path in (tmp_path / "hooks").iterdir())
    assert left == [f"{TASK}.end", f"{TASK}.json", f"{TASK}.lock", "arming.lock"]


def test_an_end_that_cannot_be_written_is_known_to_its_process(tmp_path: Path) -> None:
    outbox = FileOutbox(tmp_path / "hooks")
    with pytest.raises(StoreUnavailable):
        outbox.keep_end(TASK, {"state": "failed"})  # there is no folder
    assert outbox.end_of(TASK) == {"state": "failed"}
    outbox.remove(TASK)
    assert outbox.end_of(TASK) is None


def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    outbox = FileOutbox(tmp_path / "hooks")
    with outbox.arming():
        outbox.write(ARMED)
    outbox.keep_end(TASK, {})
    assert (tmp_path / "hooks").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / "hooks").iterdir() if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b'{"schema":"1"}', b'{"schema":1}', b'{"schema":1,"armed":{"key":5}}']
)
def test_what_cannot_be_read_is_kept_aside_and_stops_nothing(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = FileOutbox(tmp_path / "hooks")
    with outbox.arming():
        outbox.write(ARMED)
    path = tmp_path / "hooks" / f"{TASK}.json"
    path.write_bytes(data)
    path.chmod(0o600)
    with caplog.at_level(logging.WARNING):
        assert outbox.read(TASK) is None
    assert outbox.listing() == {}
    assert (tmp_path / "hooks" / f"{TASK}.json.broken").read_bytes() == data
    assert TASK in caplog.text


def test_what_a_newer_version_armed_is_left_alone(tmp_path: Path) -> None:
    outbox = FileOutbox(tmp_path / "hooks")
    with outbox.arming():
        outbox.write(ARMED)
    path = tmp_path / "hooks" / f"{TASK}.json"
    newer = json.dumps({**json.loads(path.read_bytes()), "schema": 2}).encode()
    path.write_bytes(newer)
    with pytest.raises(StoreUnavailable):
        outbox.read(TASK)
    assert path.read_bytes() == newer


def test_an_end_that_cannot_be_read_is_told_from_the_record_instead(tmp_path: Path) -> None:
    outbox = FileOutbox(tmp_path / "hooks")
    with outbox.arming():
        outbox.write(ARMED)
    for data in (b"{", b"[]"):
        (tmp_path / "hooks" / f"{TASK}.end").write_bytes(data)
        assert outbox.end_of(TASK) is None


def test_an_outbox_that_cannot_be_used_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "hooks").write_text("a file")
    outbox = FileOutbox(tmp_path / "hooks")
    with pytest.raises(StoreUnavailable):
        outbox.listing()
    with pytest.raises(StoreUnavailable), outbox.arming():
        pass
    with pytest.raises(StoreUnavailable):
        outbox.nobody_arms()


def test_the_record_is_one_line_and_shows_no_secret_when_printed() -> None:
    assert decode(encode(ARMED)) == ARMED
    assert encode(ARMED).count(b"\n") == 1
    assert "sealed1" not in repr(ARMED)
    with pytest.raises(BrokenArmed, match="1 fields"):
        decode(encode(ARMED).replace(b'"armed_at":1700000000000', b'"armed_at":"x"'))


def test_a_new_key_seals_what_is_still_to_be_told_while_others_wait(tmp_path: Path) -> None:
    sealer = open_sealer(Settings(dir=tmp_path / "state", key_file=tmp_path / "key"))
    outbox = FileOutbox(tmp_path / "hooks")
    url, secret = sealer.seal("https://example.org"), sealer.seal("hush")
    key = TaskKey("owner", "session", TASK)
    with outbox.arming():
        outbox.write(Armed(key, 5, (Hook("webhook", ("end",), url), Hook("desktop")), secret))
    assert outbox.reseal(sealer.renewed) == (0, 0)
    sealer.source.add()
    held = outbox.take(TASK)
    assert held is not None
    threading.Timer(0.2, held.close).start()
    assert outbox.reseal(sealer.renewed) == (1, 0)
    seen = outbox.read(TASK)
    assert seen is not None
    assert seen.hooks[0].target not in (None, url)
    assert sealer.unseal(seen.hooks[0].target or "") == "https://example.org"
    assert sealer.unseal(seen.secret or "") == "hush"

    def refuses(_text: str) -> str:
        raise StoreUnavailable("no key")

    assert outbox.reseal(refuses) == (0, 1)
