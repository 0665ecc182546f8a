from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import CommandLine
from tests.http.server_process import HttpServer, running_server
from tests.remote.conftest import OPTIONS, elsewhere
from tests.remote.faults import cutting
from tests.waiting import wait_until

COUNT = """
i=0
while [ $i -lt 400 ]; do
    i=$((i+1)); echo line $i; echo oh $i >&2
    if [ $i = 200 ]; then read x < GATE; fi
done
exit 3
"""
EXPECTED = b"".join(b"line %d\n" % number for number in range(1, 401))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "stdout", tmp_path / "stderr"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """What a command waits at until something is written into it."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


@contextmanager
def watching(
    line: CommandLine, files: tuple[Path, Path], *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that is looked at while it runs."""
    with files[0].open("wb") as out, files[1].open("wb") as err:
        process = subprocess.Popen(
            line.arguments(*arguments), stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=line.env
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def restarted(server: HttpServer, told: Path) -> Iterator[HttpServer]:
    """Kill the server, wait until the client has noticed, and start another at the same place."""
    server.end(signal.SIGKILL)
    wait_until(lambda: b"trying again" in told.read_bytes(), "the client has noticed", 30)
    state = server.log.with_suffix("")
    with running_server(state, *OPTIONS, "--port", str(server.port)) as again:
        yield again


def test_following_goes_on_at_the_byte_where_it_was_when_the_server_was_killed(
    far: CommandLine, near: CommandLine, server: HttpServer, files: tuple[Path, Path], gate: Path
) -> None:
    task = far.run(COUNT.replace("GATE", str(gate)))
    with watching(far, files, "logs", "--follow", task) as process:
        wait_until(lambda: b"line 200\n" in files[0].read_bytes(), "some of it is shown", 30)
        with restarted(server, files[1]):
            gate.write_text("go\n")
            assert process.wait(60) == 0

    assert files[0].read_bytes() == EXPECTED
    said = files[1].read_bytes().splitlines()
    [lost] = [line for line in said if b"is lost" in line]
    [again] = [line for line in said if b"again after" in line]
    assert b"trying again" in lost
    assert b"at byte" in again
    errors = b"".join(line + b"\n" for line in said if line.startswith(b"oh"))
    assert errors == near("logs", "--stream", "stderr", task).stderr


def test_a_command_that_is_waited_for_runs_once_and_its_end_is_told_though_the_server_was_killed(
    far: CommandLine, near: CommandLine, server: HttpServer, files: tuple[Path, Path], gate: Path
) -> None:
    with watching(far, files, "run", "--wait", COUNT.replace("GATE", str(gate))) as process:
        wait_until(lambda: b"line 200\n" in files[0].read_bytes(), "it runs", 30)
        with restarted(server, files[1]):
            gate.write_text("go\n")
            assert process.wait(60) == 3

    assert files[0].read_bytes() == EXPECTED
    assert len(near.json("ps")["tasks"]) == 1


def test_a_wait_goes_on_when_the_server_was_killed(
    far: CommandLine, near: CommandLine, server: HttpServer, files: tuple[Path, Path], gate: Path
) -> None:
    task = far.run(f"read x < {gate}; exit 5")
    with watching(far, files, "wait", task) as process:
        wait_until(lambda: psutil.Process(process.pid).net_connections(), "it waits", 30)
        with restarted(server, files[1]):
            wait_until(lambda: b"again after" in files[1].read_bytes(), "it waits again", 30)
            gate.write_text("go\n")
            assert process.wait(60) == 5

    assert task.encode() in files[0].read_bytes()
    assert b"going on with the wait" in files[1].read_bytes()


@pytest.mark.parametrize("passed", [0, 40])
def test_a_command_whose_answer_was_lost_is_not_started_twice(
    server: HttpServer, tmp_path: Path, near: CommandLine, passed: int
) -> None:
    with cutting(server.port) as cuts:
        cuts.asked, cuts.passed = [b"POST /api/tasks ", b"POST /api/plans "], passed
        far = elsewhere(tmp_path, f"http://127.0.0.1:{cuts.port}")
        done = far("run", "--json", "--cwd", str(tmp_path), "echo once >> once")
        plan = tmp_path / "plan.json"
        plan.write_text('["echo plan >> once"]')
        far("sessions", "update", "--cwd", str(tmp_path))
        far("plan", "run", "--wait", str(plan))
        assert len(cuts.made) == 2

    tasks = near.json("ps")["tasks"]
    assert len(tasks) == 2
    assert b"reused" not in done.stdout
    near("wait", *(task["task_id"] for task in tasks))
    assert sorted((tmp_path / "once").read_text().split()) == ["once", "plan"]


def test_input_whose_answer_was_lost_is_not_typed_twice(
    server: HttpServer, tmp_path: Path, near: CommandLine
) -> None:
    task = near.run("--interactive", "cat")
    with cutting(server.port) as cuts:
        cuts.asked = [f"POST /api/tasks/{task}/input ".encode()]
        far = elsewhere(tmp_path, f"http://127.0.0.1:{cuts.port}")
        lost = far("input", task, "hello", code=4)

    assert b"whether it was done is not known" in lost.stderr
    near("input", task, "--eof", "bye")
    near("wait", task)
    assert near("logs", task).stdout == b"hello\nbye\n"


def test_an_export_goes_on_at_the_byte_where_it_was(
    server: HttpServer, tmp_path: Path, near: CommandLine
) -> None:
    for number in range(4):
        near("journal", "add", "-", stdin=f"{number}é".encode() * 50_000)
    with cutting(server.port) as cuts:
        cuts.asked = [b"GET /api/sessions/default/export?format=markdown&offset=262"] * 2
        cuts.passed = 10_000
        far = elsewhere(tmp_path, f"http://127.0.0.1:{cuts.port}")
        done = far("journal", "export")
        assert not cuts.asked

    head, _, body = done.stdout.partition(b"## Tasks")
    assert body == near("journal", "export").stdout.partition(b"## Tasks")[2]
    assert head.startswith(b"# Session default")
    assert b"going on with the export at byte 262" in done.stderr
