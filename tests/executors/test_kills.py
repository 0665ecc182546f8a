"""Whoever is killed: nothing that was acknowledged is lost, nothing runs twice, nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from mcp_tasks.executors import survivors
from mcp_tasks.models import Exited
from mcp_tasks.ports import Ended, Gone, Supervised
from tests.executors.conftest import MakeRig
from tests.executors.rig import FULL, Rig
from tests.executors.server_process import STEPS, exit_code, output
from tests.waiting import wait_until

_TOP = str(Path(__file__).parent.parent.parent)


@contextmanager
def _server(rig: Rig, count: int, step: str = "never") -> Iterator[subprocess.Popen[bytes]]:
    """A server that starts `count` commands, in a process group of its own as a client would have it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.executors.server_process", str(rig.root), rig.mark, str(count), step],
        cwd=_TOP,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _acknowledged(process: subprocess.Popen[bytes], count: int) -> None:
    assert process.stdout is not None
    for number in range(1, count + 1):
        assert process.stdout.readline() == b"%d\n" % number


def _folder(rig: Rig, number: int) -> Path:
    return rig.root / "runs" / f"{number:04d}.1"


def _check_all_ended_right(rig: Rig, count: int) -> None:
    for number in range(1, count + 1):
        folder = _folder(rig, number)
        ended = rig.end(folder, 60)
        assert ended.finished.outcome == Exited(exit_code(number))
        assert (rig.output(folder), rig.output(folder, "stderr")) == output(number)
        assert (rig.root / f"ran-{number}").read_text() == "ran\n"


def _open_gate(rig: Rig) -> int:
    return os.open(rig.root / "gate", os.O_RDWR)


@pytest.fixture
def gated(rig: Rig) -> Rig:
    os.mkfifo(rig.root / "gate")
    return rig


@pytest.mark.campaign
@pytest.mark.parametrize("count", [1, 30, pytest.param(300, marks=pytest.mark.timeout(300))])
@pytest.mark.parametrize("how", ["kill", "terminate", "kill the group"])
def test_running_commands_do_not_notice_the_death_of_their_server(gated: Rig, how: str, count: int) -> None:
    with _server(gated, count) as server:
        _acknowledged(server, count)
        match how:
            case "kill":
                server.kill()
            case "terminate":
                server.terminate()
            case _:
                os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    for number in range(1, count + 1):
        folder = _folder(gated, number)
        wait_until(
            lambda folder=folder: isinstance(gated.executor.observe(folder), Supervised),  # type: ignore[misc]
            "the command is supervised, as it was",
        )
    gate = _open_gate(gated)
    _check_all_ended_right(gated, count)
    os.close(gate)
    wait_until(lambda: not gated.family(), "launcher, spare and supervisors are gone", 30)


@pytest.mark.parametrize("step", STEPS)
def test_a_server_that_dies_in_a_launch_has_run_the_command_whole_or_not_at_all(
    gated: Rig, step: str
) -> None:
    gate = _open_gate(gated)
    with _server(gated, 1, step) as server:
        assert server.wait(20) == -signal.SIGKILL
    seen = gated.settle(_folder(gated, 1))
    if step in ("after go", "after started"):
        _check_all_ended_right(gated, 1)
    else:
        assert isinstance(seen, Gone)
        assert not (gated.root / "ran-1").exists()
        folder = _folder(gated, 1)
        # Before the frame nobody but the server knows of the folder.
        assert list(folder.iterdir()) == [] if step == "before the frame" else not folder.exists()
    os.close(gate)
    wait_until(lambda: not gated.family(), "launcher and spare are gone")


def test_a_command_that_ended_while_no_server_lived_is_found_complete(gated: Rig) -> None:
    gate = _open_gate(gated)
    with _server(gated, 3) as server:
        _acknowledged(server, 3)
    wait_until(lambda: not gated.family(), "everything is over")
    _check_all_ended_right(gated, 3)
    os.close(gate)


def test_a_killed_supervisor_makes_the_run_gone_at_once_and_its_tree_is_ended(rig: Rig) -> None:
    folder = rig.start("echo out; sleep 600 & sleep 600", env={"MCP_TASKS_TASK": "marked"})
    rig.wait_for_output(folder, b"out")
    watched = rig.executor.watch(folder)
    assert watched is not None
    rig.supervisor(folder).kill()
    rig.wait_for_watch(watched)
    seen = rig.settle(folder)
    assert isinstance(seen, Gone)
    assert rig.output(folder) == b"out\n"
    assert rig.executor.background(folder) == []
    assert not rig.executor.cancel(folder, 0, signal.SIGTERM)


def test_what_a_killed_supervisor_left_is_named_when_no_launcher_lives(rig: Rig) -> None:
    folder = rig.folder()
    rig.start("echo out; exec sleep 600", folder, env={"MCP_TASKS_TASK": folder.name.partition(".")[0]})
    rig.wait_for_output(folder, b"out")
    supervisor = rig.supervisor(folder)
    (command,) = supervisor.children()
    rig.launcher().kill()
    supervisor.kill()
    assert isinstance(rig.settle(folder), Gone)
    assert rig.executor.background(folder) == [f"{command.pid} sleep"]
    command.kill()


def test_running_commands_do_not_notice_the_death_of_the_launcher(rig: Rig) -> None:
    folders = [rig.start("read line; exit 5", interactive=True) for _ in range(3)]
    rig.launcher().kill()
    for folder in folders:
        rig.executor.write_input(folder, b"\n", 1000)
        assert rig.end(folder).finished.outcome == Exited(5)


def test_starts_go_on_though_launcher_or_spare_are_killed_each_time(rig: Rig) -> None:
    rig.executor.warm_up()
    for n in range(6):
        rig.run("true")
        rig.run("true")
        wait_until(lambda: len(rig.family()) == 2, "launcher and spare are there")
        launcher = rig.launcher()
        victims = [launcher, *launcher.children()][n % 2 :] if n % 3 else [launcher]
        for victim in victims:
            victim.kill()
        folder, ended = rig.run(f"echo {n}; exit {n}")
        assert ended.finished.outcome == Exited(n)
        assert rig.output(folder) == b"%d\n" % n


def test_a_reserved_run_whose_supervisor_is_killed_is_started_by_another(rig: Rig) -> None:
    rig.executor.warm_up()
    wait_until(lambda: len(rig.family()) == 2, "launcher and spare are there")
    launcher = rig.launcher()
    for process in (launcher, *launcher.children()):
        process.suspend()
    wait_until(lambda: all(one.status() == "stopped" for one in rig.family()), "both have stopped")
    folder = rig.folder()
    reservation = rig.reserve(folder, rig.launch("echo ran >> ran; exit 3"))
    for process in (*launcher.children(), launcher):
        process.kill()
    reservation.go()
    assert rig.end(folder).finished.outcome == Exited(3)
    assert (rig.root / "ran").read_text() == "ran\n"


def test_a_killed_spare_leaves_no_trace(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.executor.warm_up()
    wait_until(lambda: len(rig.family()) == 2, "launcher and spare are there")
    (spare,) = rig.launcher().children()
    spare.kill()
    wait_until(lambda: not rig.family(), "the launcher has nothing left to do")
    assert rig.run("exit 1")[1].finished.outcome == Exited(1)


def test_a_launcher_that_is_told_to_end_waits_for_its_supervisors(rig: Rig) -> None:
    folder = rig.start("read line; exit 4", interactive=True)
    rig.launcher().terminate()
    rig.executor.write_input(folder, b"\n", 1000)
    assert rig.end(folder).finished.outcome == Exited(4)
    assert rig.run("exit 2")[1].finished.outcome == Exited(2)


@pytest.mark.campaign
def test_random_kills_of_supervisors_lose_nothing_but_their_own_runs(rig: Rig) -> None:
    chance = random.Random(11)
    folders = [
        rig.start(f"sleep 0.{chance.randrange(10)}; echo {n}; exit {n % 7}")
        for n in range(100 if FULL else 20)
    ]
    victims = set(chance.sample(range(len(folders)), len(folders) // 4))
    for n in victims:
        # Some have ended already, and have taken the file along that says who their supervisor was.
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            psutil.Process(json.loads((folders[n] / "started").read_text())["supervisor"]).kill()
    for n, folder in enumerate(folders):
        seen = rig.settle(folder)
        assert isinstance(seen, Ended) or n in victims
        if isinstance(seen, Ended):
            assert seen.finished.outcome == Exited(n % 7)
            assert rig.output(folder) == b"%d\n" % n


def test_what_outlived_launcher_and_supervisor_is_ended_when_asked_for(rig: Rig) -> None:
    folder = rig.folder()
    mark = folder.name.partition(".")[0]
    rig.start("trap '' TERM; sleep 300 & sleep 300", folder=folder, env={"MCP_TASKS_TASK": mark})
    for process in (rig.launcher(), *rig.family()):
        process.kill()
    wait_until(lambda: isinstance(rig.executor.observe(folder), Gone), "nobody watches the command")
    assert survivors.marked(mark)
    assert rig.executor.end_survivors(folder) == []
    assert survivors.marked(mark) == []
