"""What a command gets from its supervisor, and what is left on the disk: nothing that is not meant."""

from __future__ import annotations

import os
import signal
import stat
import sys
from pathlib import Path

import pytest

from mcp_tasks.ports import Gone
from tests.executors.conftest import MakeRig
from tests.executors.rig import Rig
from tests.waiting import wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@linux
@pytest.mark.parametrize("interactive", [False, True])
def test_a_command_has_three_descriptors_and_no_more(rig: Rig, interactive: bool) -> None:
    script = (
        "import os\n"
        "names = sorted(os.listdir('/proc/self/fd'))\n"
        "print([name for name in names if os.path.exists('/proc/self/fd/' + name)])"
    )
    folder, _ = rig.run((sys.executable, "-c", script), interactive=interactive)
    assert rig.output(folder) == b"['0', '1', '2']\n"


@linux
def test_signals_are_neither_ignored_nor_blocked(rig: Rig) -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGUSR1, signal.SIGALRM)}
    try:
        folder, _ = rig.run(("cat", "/proc/self/status"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    lines = [line.split() for line in rig.output(folder).splitlines()]
    names = (b"SigIgn:", b"SigBlk:", b"SigPnd:", b"SigCgt:")
    found = {line[0]: int(line[1], 16) for line in lines if line[0] in names}
    # posix_spawn(3) of the GNU C library leaves its own two signals, 32 and 33, ignored.
    found[b"SigIgn:"] &= ~(3 << 31)
    assert found == {b"SigIgn:": 0, b"SigBlk:": 0, b"SigPnd:": 0, b"SigCgt:": 0}


@linux
def test_what_a_server_has_set_for_itself_is_passed_on_unchanged(rig: Rig) -> None:
    script = (
        "umask; cat /proc/self/oom_score_adj /proc/self/cgroup; ulimit -a; nice; cat /proc/self/timerslack_ns"
    )
    folder, _ = rig.run(("bash", "-c", script))
    import subprocess

    assert (
        rig.output(folder) == subprocess.run(["bash", "-c", script], check=True, capture_output=True).stdout
    )


@linux
def test_a_command_leads_its_own_process_group_in_a_session_without_a_terminal(rig: Rig) -> None:
    script = "import os; print(os.getpid() == os.getpgrp(), os.getsid(0) == os.getppid())\nopen('/dev/tty')"
    folder, ended = rig.run((sys.executable, "-c", script))
    assert rig.output(folder) == b"True True\n"
    assert b"/dev/tty" in rig.output(folder, "stderr")
    assert ended.finished.outcome.kind == "exited"


def test_nothing_of_environment_or_input_is_ever_on_the_disk(rig: Rig) -> None:
    secret, password = "hunter2-in-the-environment", b"swordfish-on-stdin"
    folder = rig.start(
        "read line; read line", interactive=True, env={"SECRET": secret}, stdin=password + b"\n"
    )
    rig.executor.write_input(folder, password, 1000)
    wait_until((folder / "started").exists, "the supervisor has written what it writes")

    def stored() -> bytes:
        return b"".join(path.read_bytes() for path in rig.root.rglob("*") if path.is_file())

    assert secret.encode() not in stored()
    assert password not in stored()
    rig.executor.write_input(folder, b"\n", 1000)
    rig.end(folder)
    rig.left(folder)
    assert secret.encode() not in stored()
    assert password not in stored()


def test_everything_in_a_run_folder_is_for_its_owner_alone(rig: Rig) -> None:
    before = os.umask(0)
    try:
        folder = rig.start(
            "seq 1 50000; echo x >&2; read line",
            interactive=True,
            max_output_bytes=4096,
            on_output_limit="keep_tail",
        )
        rig.wait_for_output(folder, b"x", "stderr") if (folder / "stderr").exists() else None
        wait_until((folder / "exit.tmp").exists, "there is room for the exit record")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert {"alive", "control", "input", "started", "exit.tmp"} <= set(modes)
    assert set(modes.values()) == {0o600}
    rig.executor.write_input(folder, b"\n", 1000)
    rig.end(folder)


def test_a_run_that_is_over_leaves_output_and_exit_record(rig: Rig) -> None:
    folder, _ = rig.run("echo x; echo y >&2", interactive=True)
    rig.left(folder)
    assert sorted(os.listdir(folder)) == ["chunks", "exit.json", "stderr", "stdout"]
    quiet, _ = rig.run("true")
    rig.left(quiet)
    assert os.listdir(quiet) == ["exit.json"]


def test_a_supervisor_uses_no_files_of_its_own_after_the_end_and_no_zombie_stays(make_rig: MakeRig) -> None:
    rig = make_rig()
    for _ in range(5):
        rig.left(rig.run("true")[0])
    wait_until(lambda: len(rig.family()) == 2, "there are the launcher and one spare")


def test_a_server_that_lets_go_takes_its_launcher_along_once_the_last_command_has_ended(
    make_rig: MakeRig,
) -> None:
    rig, other = make_rig(), make_rig()
    folder = rig.start("read line; echo $line", interactive=True)
    rig.executor.close()
    wait_until(lambda: len(rig.family()) == 2, "the spare is gone; launcher and supervisor stay")
    other.executor.write_input(folder, b"still here\n", 1000)
    other.end(folder)
    assert other.output(folder) == b"still here\n"
    wait_until(lambda: not rig.family(), "the launcher is gone")


def test_on_a_lifeline_the_command_ends_with_its_server_and_takes_its_folder_along(make_rig: MakeRig) -> None:
    rig, other = make_rig(), make_rig()
    folders = [
        rig.start("sleep 600", lifeline=True),
        rig.start("trap '' TERM; echo ready; while :; do sleep 0.05; done", lifeline=True, grace_ms=100),
        rig.start("sleep 600 & exit 0", lifeline=True),
    ]
    rig.wait_for_output(folders[1], b"ready")
    rig.end(folders[2])
    rig.executor.close()
    for folder in folders:
        wait_until(lambda folder=folder: not folder.exists(), "the run folder is gone")  # type: ignore[misc]
        assert isinstance(other.executor.observe(folder), Gone)
    wait_until(lambda: not rig.family(), "launcher and supervisors are gone")


@linux
def test_idle_supervisors_use_no_processor(rig: Rig) -> None:
    folders = [rig.start(("sleep", "600")) for _ in range(50)]
    wait_until(lambda: len(rig.family()) == 52, "all supervisors and the spare are there")
    for folder in folders:
        rig.supervisor(folder)
    pids = [process.pid for process in rig.family()]

    def switches() -> int:
        total = 0
        for pid in pids:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if "ctxt_switches" in line:
                    total += int(line.split()[1])
        return total

    quiet = [switches()]

    def settled() -> bool:
        quiet.append(switches())
        return len(quiet) > 20 and quiet[-1] == quiet[-20]

    # Nineteen looks in a row, 50 ms apart, at which nobody had moved.
    wait_until(settled, "no supervisor has run for a second", 10)
    for folder in folders:
        rig.executor.cancel(folder, 0, signal.SIGKILL)
    for folder in folders:
        rig.end(folder)
