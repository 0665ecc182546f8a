"""What the machine refuses: room on the disk, processes, descriptors, system calls that fail."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from mcp_tasks.errors import SpawnFailed, StoreUnavailable, TasksError
from mcp_tasks.models import Exited, OutputLimit, SpawnFailure
from mcp_tasks.ports import Ended, Gone
from tests.executors.conftest import MakeRig
from tests.executors.rig import FULL, Rig
from tests.waiting import wait_until

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, or changes its user")


# -- system calls that fail ------------------------------------------------------------------------


@cache
def _can_inject() -> bool:
    if shutil.which("strace") is None:
        return False
    probe = ["strace", "-qq", "-e", "inject=getppid:error=EIO", "-o", os.devnull, "true"]
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0


def _sweep() -> Iterator[tuple[str, str, str]]:
    """System call, error, and which: the n-th in a process, or those on one file of the run."""
    for error in ("ENOSPC", "EIO"):
        for name in ("stdout", "stderr", "chunks", "started.tmp"):
            yield "write", error, name
    # At least as often as a supervisor makes each of them in a short run.
    calls = {"pwrite64": 2, "fsync": 4, "fdatasync": 3, "rename": 3, "ftruncate": 2, "fallocate": 2}
    for call, times in calls.items():
        for when in range(1, times + 1):
            for error in ("ENOSPC", "EIO") if FULL else (("ENOSPC", "EIO")[when % 2],):
                yield call, error, str(when)
    for call, error in (("mknodat", "ENOSPC"), ("pidfd_open", "EMFILE"), ("poll", "EINTR")):
        for when in (1, 2) if FULL else (1,):
            yield call, error, str(when)


# Writes by writev(2), so that no write(2) of the command itself is hit.
_WRITER = "import os; os.writev(1, [b'out' * 100]); os.writev(2, [b'err' * 100])"


@pytest.mark.campaign
@pytest.mark.parametrize(("call", "error", "which"), list(_sweep()))
def test_a_system_call_that_fails_never_makes_a_false_success(
    make_rig: MakeRig, tmp_path: Path, call: str, error: str, which: str
) -> None:
    if not _can_inject():
        pytest.skip("strace cannot inject faults here")
    folder = tmp_path / "runs" / "fault.1"
    folder.mkdir(parents=True)
    where: tuple[str, ...]
    if which.isdigit():
        where = ("-e", f"inject={call}:error={error}:when={which}")
    else:
        where = ("-e", f"inject={call}:error={error}", "-P", str(folder / which))
    rig = make_rig(before=("strace", "-D", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", *where))
    try:
        rig.start((sys.executable, "-S", "-c", _WRITER), folder)
    except TasksError:
        # Refused, so it did not run and left nothing.
        wait_until(lambda: not (folder / "alive").exists(), "the supervisor has left")
        assert not (folder / "exit.json").exists()
        assert rig.output(folder) == b""
        return
    seen = rig.settle(folder)
    if (folder / "exit.json").exists():
        assert json.loads((folder / "exit.json").read_bytes())["v"] == 1
    if isinstance(seen, Ended) and seen.finished.outcome == Exited(0):
        assert (rig.output(folder), rig.output(folder, "stderr")) == (b"out" * 100, b"err" * 100)
        assert which not in ("stdout", "stderr")
    else:
        assert isinstance(seen, Gone) or isinstance(seen.finished.outcome, OutputLimit)


# -- a full disk -----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(place)],
        check=False,
        capture_output=True,
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@root_only
def test_a_full_disk_ends_the_command_and_its_exit_code_is_not_lost(
    small_disk: Path, make_rig: MakeRig
) -> None:
    rig = make_rig(root=small_disk)
    folder, ended = rig.run(
        "trap 'exit 9' TERM; while :; do echo 0123456789012345678901234567890; done", cwd="/"
    )
    assert isinstance(ended.finished.outcome, OutputLimit)
    assert ended.finished.outcome.exit_code == 9
    assert "No space left" in ended.finished.outcome.message
    assert rig.output(folder) == (b"0123456789012345678901234567890\n" * 40_000)[: len(rig.output(folder))]


@root_only
def test_a_disk_that_somebody_else_fills_loses_no_exit_code(small_disk: Path, make_rig: MakeRig) -> None:
    rig = make_rig(root=small_disk)
    folder = rig.start("read line; exit 6", cwd="/", interactive=True)
    wait_until((folder / "exit.tmp").exists, "there is room for the exit record")
    wait_until((folder / "started").exists, "the supervisor has said who it is")
    with contextlib.suppress(OSError), open(small_disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)
    rig.executor.write_input(folder, b"\n", 1000)
    assert rig.end(folder).finished.outcome == Exited(6)


@root_only
def test_a_command_on_a_full_disk_is_refused_or_ended_but_no_success(
    small_disk: Path, make_rig: MakeRig
) -> None:
    rig = make_rig(root=small_disk)
    folder = rig.folder()
    with contextlib.suppress(OSError), open(small_disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 512)
    try:
        rig.start("sleep 60", folder, cwd="/")
    except StoreUnavailable:
        return
    seen = rig.settle(folder)
    assert isinstance(seen, Gone) or isinstance(seen.finished.outcome, OutputLimit)


def test_a_limit_on_the_size_of_files_is_told_and_not_fatal(make_rig: MakeRig) -> None:
    rig = make_rig(before=("prlimit", "--fsize=20000"))
    if shutil.which("prlimit") is None:
        pytest.skip("there is no prlimit here")
    folder, ended = rig.run("head -c 100000 /dev/zero; sleep 60")
    assert isinstance(ended.finished.outcome, OutputLimit)
    assert rig.output(folder) == b"\0" * 20_000


# -- no processes, no descriptors ------------------------------------------------------------------


@contextlib.contextmanager
def _descriptors(limit: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_server_without_descriptors_calls_no_run_lost_and_starts_none(rig: Rig) -> None:
    folder = rig.start("read line; exit 3", interactive=True)
    late = rig.folder()
    taken: list[int] = []
    with _descriptors(256):
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(StoreUnavailable):
            rig.executor.observe(folder)
        with pytest.raises(StoreUnavailable):
            rig.executor.watch(folder)
        with pytest.raises(StoreUnavailable):
            rig.executor.cancel(folder, 0, signal.SIGKILL)
        with pytest.raises(StoreUnavailable):
            rig.executor.write_input(folder, b"x", 0)
        with pytest.raises(StoreUnavailable):
            rig.executor.park(late, rig.launch("true"))
        # One descriptor after the other becomes free: at no point is more than is there taken for granted.
        while taken:
            os.close(taken.pop())
            try:
                reservation = rig.executor.reserve(late, rig.launch("exit 4"), rig.slots, 9)
            except StoreUnavailable:
                continue
            assert reservation is not None
            reservation.go()
            break
        for descriptor in taken:
            os.close(descriptor)
    assert rig.end(late).finished.outcome == Exited(4)
    rig.executor.write_input(folder, b"\n", 1000)
    assert rig.end(folder).finished.outcome == Exited(3)


def test_a_server_with_very_many_descriptors_can_write_input(rig: Rig) -> None:
    folder = rig.start("head -c 300000 | wc -c", interactive=True)
    with _descriptors(4096):
        taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1500)]
        try:
            assert rig.executor.write_input(folder, b"x" * 300_000, 10_000) == 300_000
        finally:
            for descriptor in taken:
                os.close(descriptor)
    assert rig.end(folder).finished.outcome == Exited(0)
    assert rig.output(folder).strip() == b"300000"


@pytest.mark.parametrize("limit", range(8, 24, 1 if FULL else 5))
def test_a_launcher_with_few_descriptors_starts_commands_whole_or_not_at_all(
    make_rig: MakeRig, limit: int
) -> None:
    if shutil.which("prlimit") is None:
        pytest.skip("there is no prlimit here")
    rig = make_rig(before=("prlimit", f"--nofile={limit}"))
    folder = rig.folder()
    try:
        rig.start("echo ran; exit 3", folder)
    except (SpawnFailed, StoreUnavailable):
        wait_until(lambda: isinstance(rig.executor.observe(folder), Gone), "nobody holds the run")
        assert not (folder / "stdout").exists()
        return
    seen = rig.settle(folder)
    assert isinstance(seen, Ended)
    if seen.finished.outcome == Exited(3):
        assert rig.output(folder) == b"ran\n"
    else:
        assert isinstance(seen.finished.outcome, (SpawnFailure, OutputLimit))


def test_a_command_for_which_there_is_no_process_has_not_run(make_rig: MakeRig) -> None:
    if not _can_inject():
        pytest.skip("strace cannot inject faults here")
    # posix_spawn(3) makes a process by clone3(2), fork(2) of the launcher by clone(2).
    inject = ("-e", "trace=clone3", "-e", "inject=clone3:error=EAGAIN")
    rig = make_rig(before=("strace", "-D", "-f", "-qq", "-o", os.devnull, *inject))
    _, ended = rig.run("true")
    if ended.finished.outcome == Exited(0):
        pytest.skip("this C library starts processes in another way")
    assert isinstance(ended.finished.outcome, SpawnFailure)
    assert "temporarily unavailable" in ended.finished.outcome.message


def test_a_launcher_that_cannot_be_started_means_that_nothing_ran(make_rig: MakeRig) -> None:
    for before in (("/nowhere/python",), ("false",)):
        rig = make_rig(before=before)
        with pytest.raises(SpawnFailed):
            rig.executor.warm_up()
        folder = rig.folder()
        with pytest.raises(SpawnFailed):
            rig.start("true", folder)
        assert os.listdir(folder) == []
        assert isinstance(rig.executor.observe(folder), Gone)
        # The place is free again.
        assert rig.executor._slots.taken(rig.slots, 9) == 0


def test_a_launcher_that_takes_nothing_is_given_up_in_bounded_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_tasks.executors.link._SEND_S", 0.3)
    monkeypatch.setattr("mcp_tasks.executors.reservation._ANSWER_S", 0.3)
    rig.executor.warm_up()
    wait_until(lambda: len(rig.family()) == 2, "launcher and spare are there")
    stopped = rig.family()
    for process in stopped:
        process.suspend()
    small, large = rig.folder(), rig.folder()
    with pytest.raises(SpawnFailed):
        rig.start("echo ran >> ran", small)
    with pytest.raises(SpawnFailed):
        rig.start("cat >> ran", large, stdin=b"x" * (4 << 20))
    # The line is given up with what was half sent, so the next one works.
    assert rig.run("exit 2")[1].finished.outcome == Exited(2)
    for process in stopped:
        process.resume()
    wait_until(lambda: not any(process.is_running() for process in stopped), "the stopped ones have left")
    assert not (rig.root / "ran").exists()
    assert not small.exists()


def test_many_threads_start_at_once(rig: Rig) -> None:
    folders: list[Path] = []

    def start(number: int) -> None:
        folders.append(rig.start(f"echo {number}; exit {number}"))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = {rig.end(folder).finished.outcome for folder in folders}
    assert codes == {Exited(number) for number in range(30)}


# -- time ------------------------------------------------------------------------------------------


_LEAP = """
import sys
import time
real = time.time_ns
jumps = iter([0] + [10**9 * 86_400 * n for n in (-400, 400, -30, 4000)] * 50)
time.time_ns = lambda: real() + next(jumps)
time.time = lambda: time.time_ns() / 1e9
index = sys.argv.index("-c")
sys.argv[:] = sys.argv[index:]
code = sys.argv.pop(1)
exec(compile(code, "<launcher>", "exec"))
"""


def test_a_clock_that_jumps_moves_neither_deadline_nor_duration(make_rig: MakeRig, tmp_path: Path) -> None:
    leaping = tmp_path / "leaping.py"
    leaping.write_text(_LEAP)
    rig = make_rig(before=(sys.executable, str(leaping)))
    _, ended = rig.run("sleep 60", timeout_ms=300)
    assert ended.finished.outcome.kind == "timed_out"
    assert 300 <= ended.finished.elapsed_ms < 5000
    assert ended.finished.started_at is not None
    assert ended.finished.ended_at - ended.finished.started_at == ended.finished.elapsed_ms
