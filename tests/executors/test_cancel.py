"""Cancel ends the whole tree, whatever its shape, before anybody is told that it is over."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from mcp_tasks.models import Cancelled, Exited
from mcp_tasks.ports import Ended
from tests.executors.rig import FULL, Rig
from tests.executors.shapes import SHAPES
from tests.waiting import wait_until

_TIMES = 20 if FULL else 3


def _marked(rig: Rig, name: str) -> tuple[str, str]:
    mark = f"{rig.mark}-shape"
    return SHAPES[name].replace("MARK", mark), mark


@pytest.mark.campaign
@pytest.mark.parametrize("shape", SHAPES)
def test_no_process_survives_the_end_of_a_cancelled_run(rig: Rig, shape: str) -> None:
    command, mark = _marked(rig, shape)
    for _ in range(_TIMES):
        folder = rig.start(command)
        rig.wait_for_output(folder, b"ready")
        rig.executor.cancel(folder, 50, signal.SIGTERM)
        ended = rig.end(folder)
        assert rig.survivors(mark) == []
        assert isinstance(ended.finished.outcome, Cancelled)
        assert ended.background == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_no_process_survives_a_kill_without_grace(rig: Rig, shape: str) -> None:
    command, mark = _marked(rig, shape)
    folder = rig.start(command)
    rig.wait_for_output(folder, b"ready")
    rig.executor.cancel(folder, 0, signal.SIGKILL)
    rig.end(folder)
    assert rig.survivors(mark) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_the_tree_of_a_killed_supervisor_is_ended_by_the_launcher(rig: Rig, shape: str) -> None:
    command, mark = _marked(rig, shape)
    folder = rig.start(command)
    rig.wait_for_output(folder, b"ready")
    rig.supervisor(folder).kill()
    wait_until(lambda: not rig.survivors(mark), "the tree is gone", 2)
    rig.settle(folder)


def test_what_a_finished_command_left_in_the_background_is_ended_on_request(rig: Rig) -> None:
    for name in SHAPES:
        command, mark = _marked(rig, name)
        folder = rig.start(f"({command}) & read line; exit 2", interactive=True)
        rig.wait_for_output(folder, b"ready")
        rig.executor.write_input(folder, b"\n", 1000)
        ended = rig.end(folder)
        assert ended.finished.outcome == Exited(2), name
        assert ended.background >= 1, name
        rig.executor.cancel(folder, 50, signal.SIGTERM)
        rig.left(folder)
        assert rig.survivors(mark) == [], name


def test_cancel_that_races_with_the_end_tells_the_one_or_the_other(rig: Rig) -> None:
    outcomes = set()
    for n in range(60 if FULL else 20):
        folder = rig.start(f"sleep 0.0{n % 4}; exit 3")
        rig.executor.cancel(folder, 1000, signal.SIGTERM)
        outcome = rig.end(folder).finished.outcome
        assert outcome in (Exited(3), Cancelled(None, "SIGTERM"), Cancelled(3, None))
        outcomes.add(type(outcome))
    assert Cancelled in outcomes


def test_an_end_that_came_before_the_cancel_counts_though_the_output_is_still_held(rig: Rig) -> None:
    folder = rig.start("(while :; do echo noise; sleep 0.01; done) & exit 8")
    supervised = rig.supervisor(folder)
    wait_until(
        lambda: (
            not any(child.name() == "sh" and child.status() == "zombie" for child in supervised.children())
        ),
        "the command has been reaped",
    )
    rig.end(folder)
    rig.executor.cancel(folder, 0, signal.SIGTERM)
    rig.left(folder)
    assert rig.end(folder).finished.outcome == Exited(8)


_RESPAWN = (
    "import os, sys, time\n"
    "deadline = time.monotonic() + 60\n"
    "for _ in range({count}):\n"
    "    if not os.fork():\n"
    "        while time.monotonic() < deadline:\n"
    "            {step}\n"
    "            if os.fork(): os._exit(0)\n"
    "        os._exit(0)\n"
    "print('ready', flush=True)\n"
    "time.sleep(60)\n"
)


@pytest.mark.parametrize(
    ("count", "step"),
    [(100, "time.sleep(0.02)"), (20, "pass"), (10, "os.setpgid(0, 0); time.sleep(0.005)")],
    ids=["many", "restless", "in ever new groups"],
)
def test_a_tree_that_replaces_itself_all_the_time_is_ended(rig: Rig, count: int, step: str) -> None:
    mark = f"{rig.mark}-respawn"
    folder = rig.start((sys.executable, "-c", _RESPAWN.format(count=count, step=step), mark))
    rig.wait_for_output(folder, b"ready")
    rig.executor.cancel(folder, 0, signal.SIGKILL)
    rig.end(folder, 15)
    assert rig.survivors(mark) == []


def test_a_stopped_supervisor_ends_its_command_once_it_goes_on(rig: Rig) -> None:
    folder = rig.start("sleep 600")
    supervisor = rig.supervisor(folder)
    supervisor.suspend()
    rig.executor.cancel(folder, 0, signal.SIGKILL)
    assert not isinstance(rig.executor.observe(folder), Ended)
    supervisor.resume()
    assert rig.end(folder).finished.outcome == Cancelled(None, "SIGKILL")


def test_a_supervisor_that_is_told_to_end_ends_its_command_and_says_so(rig: Rig) -> None:
    folder = rig.start("trap 'exit 4' TERM; echo ready; while :; do sleep 0.02; done")
    rig.wait_for_output(folder, b"ready")
    rig.supervisor(folder).terminate()
    assert rig.end(folder).finished.outcome == Cancelled(4, None)


def test_a_supervisor_is_not_impressed_by_hangups_and_interrupts(rig: Rig) -> None:
    folder = rig.start("read line; exit 5", interactive=True)
    supervisor = rig.supervisor(folder)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
        os.kill(supervisor.pid, number)
    rig.executor.write_input(folder, b"\n", 1000)
    assert rig.end(folder).finished.outcome == Exited(5)
