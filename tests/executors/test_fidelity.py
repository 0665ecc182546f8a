"""Every byte of a command's output is kept, in its stream, with the order and the time it came in."""

from __future__ import annotations

import hashlib
import itertools
import signal
import sys
from pathlib import Path

import pytest

from mcp_tasks.models import Exited
from mcp_tasks.output.captured import RunOutput
from tests.executors.rig import Rig


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _python(rig: Rig, script: str, **options: object) -> Path:
    folder, ended = rig.run((sys.executable, "-c", script), timeout=60, **options)
    assert ended.finished.outcome == Exited(0)
    return folder


def test_fifty_megabytes_without_a_newline_are_kept(rig: Rig) -> None:
    folder, ended = rig.run("head -c 52428800 /dev/zero | tr '\\0' x", timeout=60)
    assert ended.finished.outcome == Exited(0)
    wanted = hashlib.sha256()
    for _ in range(50):
        wanted.update(b"x" * (1 << 20))
    assert _digest(folder / "stdout") == wanted.hexdigest()


def test_five_million_lines_are_kept(rig: Rig) -> None:
    folder, ended = rig.run("seq 1 5000000", timeout=60)
    assert ended.finished.outcome == Exited(0)
    wanted = hashlib.sha256()
    for start in range(1, 5_000_001, 100_000):
        wanted.update("".join(f"{n}\n" for n in range(start, start + 100_000)).encode())
    assert _digest(folder / "stdout") == wanted.hexdigest()


def test_every_byte_value_is_kept_in_both_streams(rig: Rig) -> None:
    script = "import os\nfor n in range(256): os.write(1, bytes([n])); os.write(2, bytes([255 - n]))"
    folder = _python(rig, script)
    assert rig.output(folder) == bytes(range(256))
    assert rig.output(folder, "stderr") == bytes(reversed(range(256)))


def test_text_that_is_broken_or_drives_terminals_is_kept_as_it_came(rig: Rig) -> None:
    odd = b"a\rb\r\n\0\x1b[2J\xc3\xe2\x82\xff\xed\xa0\x80\xf4\x90\x80\x80\n\n\x7f\xe2\x82\xac"
    folder, _ = rig.run("cat; cat >&2 < /dev/null", stdin=odd * 1000)
    assert rig.output(folder) == odd * 1000
    assert not (folder / "stderr").exists()


def test_the_index_tells_the_order_and_the_time_of_both_streams(rig: Rig) -> None:
    script = (
        "import os, sys\n"
        "for n in range(6):\n"
        "    os.write(1 + n % 2, b'x' * (n + 1))\n"
        "    sys.stdin.readline()\n"
    )
    folder = rig.start((sys.executable, "-c", script), interactive=True)
    for n in range(6):
        stream = ("stdout", "stderr")[n % 2]
        rig.wait_for_output(folder, b"x" * sum(range(n % 2 + 1, n + 2, 2)), stream)
        rig.executor.write_input(folder, b"\n", 1000)
    rig.end(folder)
    rig.left(folder)
    chunks = rig.chunks(folder)
    assert [(stream, length) for _, stream, length in chunks] == [(1 + n % 2, n + 1) for n in range(6)]
    times = [moment for moment, _, _ in chunks]
    assert times == sorted(times)
    assert times[0] > 0


def test_the_index_adds_up_to_the_output(rig: Rig) -> None:
    script = "for n in $(seq 500); do echo out $n; echo err $n >&2; done"
    folder, _ = rig.run(script)
    for number, stream in enumerate(("stdout", "stderr"), 1):
        lengths = sum(length for _, of, length in rig.chunks(folder) if of == number)
        assert lengths == len(rig.output(folder, stream))


def test_a_chatty_command_has_less_index_than_output(rig: Rig) -> None:
    folder, _ = rig.run("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done")
    assert len(rig.chunks(folder)) * 16 * 10 < len(rig.output(folder))


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_reopening_the_streams_by_name_loses_nothing(rig: Rig, shell: str) -> None:
    script = (
        "echo one; echo two > /dev/stdout; echo three >> /dev/stdout; echo four | tee /dev/stdout;"
        "echo five > /proc/self/fd/1; echo a > /dev/stderr; echo b >&2; echo c > /dev/fd/2"
    )
    folder, ended = rig.run((shell, "-c", script))
    assert ended.finished.outcome == Exited(0)
    assert sorted(rig.output(folder).split()) == [b"five", b"four", b"four", b"one", b"three", b"two"]
    assert rig.output(folder, "stderr") == b"a\nb\nc\n"


def test_ten_megabytes_of_input_given_at_once_arrive(rig: Rig) -> None:
    pattern = bytes(itertools.islice(itertools.cycle(range(251)), 1 << 20)) * 10
    folder, _ = rig.run("cat", stdin=pattern, timeout=60)
    assert rig.output(folder) == pattern


def test_input_that_the_command_does_not_want_is_no_error(rig: Rig) -> None:
    folder, ended = rig.run("head -c 3; exec 0<&-; echo; sleep 0.1", stdin=b"abc" * 1_000_000)
    assert ended.finished.outcome == Exited(0)
    assert rig.output(folder) == b"abc\n"


def test_what_is_in_the_pipe_at_the_end_counts_though_somebody_else_holds_it(rig: Rig) -> None:
    script = "sleep 60 & head -c 900000 /dev/zero; head -c 900000 /dev/zero >&2"
    folder = rig.start(script)
    ended = rig.end(folder)
    assert (len(rig.output(folder)), len(rig.output(folder, "stderr"))) == (900_000, 900_000)
    assert ended.output_held
    rig.executor.cancel(folder, 0, signal.SIGKILL)
    rig.left(folder)


def test_output_is_read_back_exactly_while_it_grows(rig: Rig) -> None:
    folder = rig.start("seq 1 200000")
    output = RunOutput(folder)
    got = b""
    while not got.endswith(b"200000\n"):
        begin, data = output.read("stdout", len(got), 65536)
        assert begin == len(got)
        got += data
    assert got == "".join(f"{n}\n" for n in range(1, 200_001)).encode()
    rig.end(folder)


def test_a_command_that_closes_its_streams_early_is_still_watched(rig: Rig) -> None:
    folder = rig.start("exec 1>&- 2>&-; read line; exit 6", interactive=True)
    rig.executor.write_input(folder, b"\n", 5000)
    assert rig.end(folder).finished.outcome == Exited(6)


def test_a_command_may_write_to_its_own_stdout_file_or_remove_it_without_harm_to_others(rig: Rig) -> None:
    folder = rig.start("echo before; read line; echo after", interactive=True)
    rig.wait_for_output(folder, b"before")
    (folder / "stdout").unlink()
    rig.executor.write_input(folder, b"\n", 1000)
    assert rig.end(folder).finished.outcome == Exited(0)
