"""The parts of an executor that other machines need, and that this one can be made to need."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcp_tasks.executors import exit_record, launcher, spawning, survivors, tree, wire, writeback
from mcp_tasks.executors.capture import CHUNK, Capture, OutputFull
from mcp_tasks.executors.feed import Feed
from mcp_tasks.executors.readiness import Readiness
from mcp_tasks.executors.slots import Slots


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


MakeCapture = Callable[..., Capture]


@pytest.fixture
def make_capture(folder: int) -> Iterator[MakeCapture]:
    """Makes a capture into the folder, whose files are closed afterwards as its process would."""
    made: list[Capture] = []

    def make(limit: int = 0, *, keep_tail: bool = False) -> Capture:
        made.append(Capture(folder, limit, keep_tail=keep_tail, min_free=0))
        return made[-1]

    yield make
    for capture in made:
        for file in (*capture._files, capture._index):
            if file is not None:
                os.close(file)


@pytest.fixture
def sleeper() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a shell with a child of its own; both are ended afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*, session: bool = False) -> subprocess.Popen[bytes]:
        command = ["/bin/sh", "-c", "sleep 600 & echo $!; wait"]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=session))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            for pid in (*tree.descendants(process.pid), process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _line(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


# -- process trees ---------------------------------------------------------------------------------


def test_a_tree_is_found_by_ps_where_there_is_no_proc(
    sleeper: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = sleeper(session=True)
    child = _line(process)
    monkeypatch.setattr(tree, "_LINUX", False)
    assert not tree.become_subreaper()
    assert tree.children(process.pid) == []
    assert tree.descendants(process.pid) == [child]
    assert {process.pid, child} <= set(tree.descendants(os.getpid()))
    # Of a process whose parent has gone, the group is what is left.
    assert tree.descendants(child, process.pid) == [process.pid]
    tree.kill([child], process.pid)
    assert process.wait(10) == 0


def test_without_a_list_of_children_all_processes_are_asked_for_their_parent(
    sleeper: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = sleeper()
    child = _line(process)
    read = tree._read

    def without_list(path: str) -> bytes:
        if path.endswith("/children"):
            raise FileNotFoundError(errno.ENOENT, "no such list")
        return read(path)

    monkeypatch.setattr(tree, "_read", without_list)
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    assert tree.children(process.pid) == [child]


def test_a_process_that_is_not_below_the_root_is_never_signalled(
    sleeper: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = sleeper()
    child = _line(process)
    tree.signal_process(process.pid, signal.SIGKILL, child)
    tree.kill([process.pid], child)
    tree.signal_process(1, signal.SIGKILL, os.getpid())
    tree.signal_process(2**22 + 1, signal.SIGKILL, os.getpid())
    tree.kill([2**22 + 1], os.getpid())
    assert process.poll() is None


def test_the_group_of_whoever_asks_is_spared(sleeper: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = sleeper()
    tree.kill([_line(process)], os.getpid())
    assert process.wait(10) == 0


def test_survivors_of_nobody_are_none() -> None:
    assert survivors.below(2**22 + 1) == []
    assert survivors.below(-1) == []
    assert survivors.marked("no-task-has-this-id") == []


# -- output ----------------------------------------------------------------------------------------


def _take(capture: Capture, stream: int, data: bytes, at: int = 0) -> None:
    capture.take(stream, memoryview(data), at)


def test_an_index_that_was_cut_short_ends_at_its_last_whole_record(
    make_capture: MakeCapture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = make_capture()
    _take(capture, 0, b"abc", 1)
    _take(capture, 1, b"de", 2)
    real = os.write
    monkeypatch.setattr(
        os, "write", lambda file, data: real(file, data[:5]) if len(data) == 16 else real(file, data)
    )
    _take(capture, 0, b"f", 3)
    monkeypatch.setattr(os, "write", real)
    _take(capture, 1, b"g", 4)
    capture.sync()
    assert (tmp_path / "chunks").read_bytes() == CHUNK.pack(1, 1, 3)
    assert (tmp_path / "stdout").read_bytes() == b"abcf"


def test_short_writes_lose_nothing(
    make_capture: MakeCapture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:3]))
    capture = make_capture(11)
    with pytest.raises(OutputFull):
        _take(capture, 0, b"0123456789abcdef")
    _take(capture, 0, b"nobody wants this")
    assert (tmp_path / "stdout").read_bytes() == b"0123456789a"


def test_an_index_that_cannot_be_made_is_no_reason_to_fail(make_capture: MakeCapture, tmp_path: Path) -> None:
    (tmp_path / "chunks").mkdir()
    capture = make_capture()
    for n in range(4):
        _take(capture, n % 2, b"x", n)
    capture.sync()
    assert (tmp_path / "stdout").read_bytes() == b"xx"


def test_a_planted_output_file_is_not_written_to(make_capture: MakeCapture, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "stdout").symlink_to(tmp_path / "elsewhere")
    capture = make_capture()
    with pytest.raises(OutputFull, match="could not be written"):
        _take(capture, 0, b"x")
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_a_segment_that_somebody_removed_is_not_missed(make_capture: MakeCapture, tmp_path: Path) -> None:
    capture = make_capture(160, keep_tail=True)
    for n in range(60):
        _take(capture, n % 2, b"0123456789")
        for name in os.listdir(tmp_path):
            if "." in name and n == 40:
                (tmp_path / name).unlink()
    (tmp_path / "stdout").unlink()
    capture.sync()
    assert capture.sizes == [300, 300]


def test_writeback_is_a_help_that_may_be_missing(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    writeback.begin_writeback(folder, 0, 1 << 20)
    writeback._sync_file_range.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    writeback.begin_writeback(folder, 0, 1 << 20)
    writeback._sync_file_range.cache_clear()


# -- exit record -----------------------------------------------------------------------------------


def test_room_for_the_record_is_written_where_it_cannot_be_reserved(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    record = exit_record.ExitRecord(folder)
    record.make_room()
    assert (tmp_path / "exit.tmp").stat().st_size == 4096
    record.write(outcome="exited", message='say "\\ü€\U0001f600\n"', exit_code=None, held=True)
    written = json.loads((tmp_path / "exit.json").read_bytes())
    assert written == {
        "v": 1,
        "outcome": "exited",
        "message": 'say "\\ü€\U0001f600\n"',
        "exit_code": None,
        "held": True,
    }
    assert not (tmp_path / "exit.tmp").exists()


def test_a_record_whose_room_fails_is_written_anew(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = exit_record.ExitRecord(folder)
    record.make_room()
    real, calls = os.pwrite, []

    def short(file: int, data: bytes, at: int) -> int:
        calls.append(data)
        return real(file, data[: 5 if len(calls) == 1 else None], at)

    monkeypatch.setattr(os, "pwrite", short)
    record.write(outcome="exited")
    assert len(calls) == 2
    assert json.loads((tmp_path / "exit.json").read_bytes())["outcome"] == "exited"


def test_a_record_that_cannot_be_written_is_not_there(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    record = exit_record.ExitRecord(folder)
    record.make_room()
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="broken"):
        record.write(outcome="exited")
    assert not (tmp_path / "exit.json").exists()


# -- starting and feeding --------------------------------------------------------------------------


def test_nothing_cannot_be_started() -> None:
    with pytest.raises(ValueError, match="no program"):
        spawning.spawn([], [], {}, [])


def test_a_pipe_is_as_wide_as_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawning, "_PIPE_SIZE", 1 << 40)
    for end in spawning.output_pipe():
        os.close(end)
    monkeypatch.delattr(fcntl, "F_SETPIPE_SZ")
    for end in spawning.output_pipe():
        os.close(end)


def test_input_after_its_end_is_not_waited_for() -> None:
    readiness = Readiness()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    feed = Feed(readiness, writer, b"given", None)
    feed.begin()
    while select.select([reader], [], [], 0)[0] == []:
        readiness.wait(1000)
    feed.end()
    readiness.wait(0)
    assert os.read(reader, 100) == b"given"
    assert os.read(reader, 100) == b""
    feed.close()
    feed.end()
    os.close(reader)


def test_a_handler_that_was_stopped_by_an_earlier_one_is_not_called() -> None:
    readiness = Readiness()
    pipes = [os.pipe() for _ in range(2)]
    called = []

    def stop_all(which: int) -> None:
        called.append(which)
        for reader, _ in pipes:
            readiness.off(reader)

    for which, (reader, writer) in enumerate(pipes):
        readiness.on(reader, lambda which=which: stop_all(which))  # type: ignore[misc]
        os.write(writer, b"x")
    readiness.wait(1000)
    readiness.wait(0)
    assert len(called) == 1
    for ends in pipes:
        for end in ends:
            os.close(end)


# -- places and frames -----------------------------------------------------------------------------


def test_places_are_counted_by_their_locks(tmp_path: Path) -> None:
    slots, others = Slots(), Slots()
    held = [slots.take(tmp_path, 3), others.take(tmp_path, 3)]
    assert None not in held
    assert slots.taken(tmp_path, 3) == 2
    held.append(slots.take(tmp_path, 3))
    assert slots.take(tmp_path, 3) is None
    assert others.take(tmp_path, 3) is None
    for descriptor in held:
        os.close(descriptor or 0)
    assert slots.taken(tmp_path, 3) == 0


def test_a_planted_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        Slots().take(tmp_path, 1)
    assert not (tmp_path / "elsewhere").exists()


def test_half_a_frame_is_no_launch() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\0\0\0\x09abc")
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            wire.receive(theirs)


def test_a_frame_arrives_with_its_descriptors_however_large_it_is(tmp_path: Path) -> None:
    import threading

    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "file").open("wb") as file:
        message = {"stdin": b"x" * 5_000_000, "n": 1}
        sender = threading.Thread(target=wire.send, args=(ours, message, [file.fileno(), file.fileno()]))
        sender.start()
        received = wire.receive(theirs)
        sender.join()
        assert received is not None
        got, descriptors = received
        assert got == message
        assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
        for descriptor in descriptors:
            assert os.fstat(descriptor).st_ino == os.fstat(file.fileno()).st_ino
            os.close(descriptor)
        ours.shutdown(socket.SHUT_WR)
        assert wire.receive(theirs) is None


def test_a_launcher_without_processes_goes_on_when_there_are_some_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair()

    def refuse(*_: object) -> int:
        raise OSError(errno.EAGAIN, "no more")

    with ours:
        server = launcher.Launcher(theirs)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fork", refuse)
            server._fork()
            patch.setattr(os, "pipe", refuse)
            server._fork()
        assert server._baton is None
        assert server._supervisors == set()
        server._stop_serving()
        for end in (server._wakeup, server._wakeup_writer):
            os.close(end)


def test_the_words_of_signals(tmp_path: Path) -> None:
    assert exit_record.signal_name(None) is None
    assert exit_record.signal_name(signal.SIGKILL) == "SIGKILL"
    assert exit_record.signal_name(44) == "SIG44"
