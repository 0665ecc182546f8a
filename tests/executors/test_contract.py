"""What every executor promises (`ports.Executor`), asked of the one that runs commands here."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from mcp_tasks.errors import InvalidArgument, NotSupported, StoreBusy, StoreUnavailable
from mcp_tasks.models import Cancelled, Exited, Signalled, SpawnFailure
from mcp_tasks.ports import Ended, Gone, Launch, Starting, Supervised
from tests.executors.conftest import MakeRig
from tests.executors.rig import Rig
from tests.waiting import wait_until


def test_a_command_runs_and_its_output_and_exit_code_are_kept(rig: Rig) -> None:
    folder, ended = rig.run("echo out; echo err >&2; exit 7")
    assert ended.finished.outcome == Exited(7)
    assert (rig.output(folder), rig.output(folder, "stderr")) == (b"out\n", b"err\n")
    assert ended.finished.run == 1
    assert ended.finished.started_at is not None
    assert (ended.background, ended.output_held) == (0, False)


def test_go_tells_the_pid_and_the_moment_of_the_start(rig: Rig) -> None:
    folder = rig.folder()
    reservation = rig.reserve(folder, rig.launch("echo $$; sleep 60"), 1)
    started = reservation.go()
    rig.wait_for_output(folder, b"\n")
    assert rig.output(folder) == b"%d\n" % (started.pid or 0)
    rig.supervisor(folder)
    seen = rig.executor.observe(folder)
    assert isinstance(seen, Supervised)
    assert seen.started_at == started.started_at
    rig.executor.cancel(folder, 0, signal.SIGKILL)
    assert rig.end(folder).finished.started_at == started.started_at


def test_a_signal_that_nobody_sent_here_is_named(rig: Rig) -> None:
    assert rig.run("kill -SEGV $$")[1].finished.outcome == Signalled("SIGSEGV")
    assert rig.run("kill -40 $$")[1].finished.outcome == Signalled("SIG40")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("no-such-program-here",), "No such file"),
        (("/etc/passwd",), "Permission denied"),
        (("/proc/self/mem/x",), "No such file"),
        (("printf", "a\0b"), "null byte"),
    ],
)
def test_a_program_that_cannot_be_started_is_an_end_that_says_why(
    rig: Rig, command: tuple[str, ...], why: str
) -> None:
    folder = rig.folder()
    reservation = rig.reserve(folder, rig.launch(command), 1)
    assert reservation.go().pid is None
    seen = rig.executor.observe(folder)
    assert isinstance(seen, Ended)
    assert isinstance(seen.finished.outcome, SpawnFailure)
    assert why in seen.finished.outcome.message
    assert seen.finished.started_at is None


def test_a_program_is_found_on_the_path_of_its_own_environment(rig: Rig) -> None:
    here = rig.root / "bin"
    here.mkdir()
    program = here / "greet"
    program.write_text("#!/bin/sh\necho hello from $0\n")
    program.chmod(0o755)
    folder, _ = rig.run(("greet",), env={"PATH": f"/nowhere:{here}:/bin"})
    assert rig.output(folder) == b"hello from %s/greet\n" % os.fsencode(here)


def test_a_relative_program_and_the_working_directory_belong_together(rig: Rig) -> None:
    here = rig.root / "work place"
    here.mkdir()
    (here / "tool").write_text("#!/bin/sh\npwd\n")
    (here / "tool").chmod(0o755)
    folder, _ = rig.run(("./tool",), cwd=str(here))
    assert rig.output(folder) == os.fsencode(here) + b"\n"


def test_a_working_directory_that_is_gone_means_that_nothing_ran(rig: Rig) -> None:
    _, ended = rig.run("echo ran", cwd=str(rig.root / "gone"))
    assert isinstance(ended.finished.outcome, SpawnFailure)


def test_a_watch_becomes_readable_when_the_run_ends_and_not_before(rig: Rig) -> None:
    folder = rig.start("read line", interactive=True)
    watched = rig.executor.watch(folder)
    assert watched is not None
    with pytest.raises(BlockingIOError):
        os.read(watched, 1)
    rig.executor.write_input(folder, b"go\n", 1000)
    rig.end(folder)
    rig.wait_for_watch(watched)
    assert rig.executor.watch(folder) is None


def test_a_run_that_is_reserved_is_starting_and_an_abandoned_one_leaves_nothing(rig: Rig) -> None:
    folder = rig.folder()
    reservation = rig.reserve(folder, rig.launch("echo ran > ran"), 1)
    assert rig.executor.observe(folder) == Starting()
    reservation.abandon()
    wait_until(lambda: not folder.exists(), "nothing of the run is left")
    assert rig.executor.observe(folder) == Gone("its supervisor ended without an exit record")
    assert not (rig.root / "ran").exists()
    reservation.abandon()


def test_an_abandoned_run_gives_its_place_back_and_can_be_reserved_again(rig: Rig) -> None:
    folder = rig.folder()
    launch = rig.launch("echo ran")
    rig.executor.park(folder, launch)
    for _ in range(3):
        rig.reserve(folder, launch, 1).abandon()
    wait_until(lambda: isinstance(rig.executor.observe(folder), Gone), "the abandoned supervisors are gone")
    assert sorted(os.listdir(folder)) == ["launch"]
    rig.start("echo ran", folder)
    assert rig.end(folder).finished.outcome == Exited(0)
    assert rig.output(folder) == b"ran\n"


def test_abandoning_after_go_changes_nothing(rig: Rig) -> None:
    folder = rig.folder()
    reservation = rig.reserve(folder, rig.launch("exit 3"), 1)
    reservation.go()
    reservation.abandon()
    assert rig.end(folder).finished.outcome == Exited(3)


def test_there_are_as_many_places_as_the_limit_says_over_all_servers(make_rig: MakeRig) -> None:
    first, second = make_rig(), make_rig()
    folders = [rig.start("sleep 60", folder=None) for rig in (first, second, first)]
    late = first.folder()
    for rig in (first, second):
        assert rig.executor.reserve(late, rig.launch("true"), rig.slots, 3) is None
    first.executor.cancel(folders[1], 0, signal.SIGKILL)
    first.end(folders[1])
    second.reserve(late, second.launch("true"), 3).go()
    assert second.end(late).finished.outcome == Exited(0)
    for folder in (folders[0], folders[2]):
        second.executor.cancel(folder, 0, signal.SIGKILL)
        second.end(folder)


def test_a_place_is_free_again_when_the_command_has_ended_though_something_of_it_lives_on(rig: Rig) -> None:
    folder = rig.start("sleep 60 & echo done")
    ended = rig.end(folder)
    assert (ended.background, ended.output_held) == (1, True)
    rig.reserve(rig.folder(), rig.launch("true"), 1).abandon()
    rig.executor.cancel(folder, 0, signal.SIGKILL)
    rig.left(folder)


def test_a_run_that_another_server_holds_cannot_be_reserved(make_rig: MakeRig) -> None:
    first, second = make_rig(), make_rig()
    folder = first.folder()
    reservation = first.executor.reserve(folder, first.launch("true"), first.slots, 9)
    assert reservation is not None
    with pytest.raises(StoreBusy):
        second.executor.reserve(folder, second.launch("true"), second.slots, 9)
    reservation.go()
    first.end(folder)


def test_a_finished_run_is_not_run_again_and_keeps_what_it_has(rig: Rig) -> None:
    folder, _ = rig.run("echo precious; exit 4")
    rig.left(folder)
    reservation = rig.reserve(folder, rig.launch("echo ran >> ran"), 1)
    with pytest.raises(StoreUnavailable):
        reservation.go()
    assert rig.output(folder) == b"precious\n"
    assert rig.end(folder).finished.outcome == Exited(4)
    assert not (rig.root / "ran").exists()


def test_what_a_killed_supervisor_left_does_not_keep_a_parked_run_from_starting(rig: Rig) -> None:
    folder = rig.folder()
    for name in ("alive", "control", "started.tmp", "exit.tmp"):
        (folder / name).touch()
    rig.start("echo fine", folder)
    assert rig.end(folder).finished.outcome == Exited(0)
    assert rig.output(folder) == b"fine\n"


def test_cancel_ends_the_command_and_names_the_signal(rig: Rig) -> None:
    folder = rig.start(("sleep", "60"))
    assert rig.executor.cancel(folder, 5000, signal.SIGINT)
    assert rig.end(folder).finished.outcome == Cancelled(None, "SIGINT")


def test_cancel_lets_a_command_end_in_its_own_way_within_the_grace(rig: Rig) -> None:
    folder = rig.start("trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    rig.wait_for_output(folder, b"ready")
    rig.executor.cancel(folder, 20_000, signal.SIGTERM)
    assert rig.end(folder).finished.outcome == Cancelled(9, None)
    assert rig.output(folder) == b"ready\nbye\n"


def test_a_second_cancel_can_only_shorten_the_grace(rig: Rig) -> None:
    folder = rig.start("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    rig.wait_for_output(folder, b"ready")
    rig.executor.cancel(folder, 3_600_000, signal.SIGTERM)
    rig.executor.cancel(folder, 0, signal.SIGTERM)
    assert rig.end(folder).finished.outcome == Cancelled(None, "SIGKILL")


def test_nobody_is_there_to_be_asked_when_the_run_is_over(rig: Rig) -> None:
    folder, _ = rig.run("true")
    rig.left(folder)
    assert not rig.executor.cancel(folder, 0, signal.SIGTERM)
    assert not rig.executor.signal(folder, signal.SIGTERM)
    assert rig.executor.background(folder) == []


def test_a_signal_reaches_the_command_and_its_group(rig: Rig) -> None:
    folder = rig.start(
        "trap 'echo one' USR1; (trap 'echo two; exit' USR1; echo ready; sleep 60 & wait) & wait; wait"
    )
    rig.wait_for_output(folder, b"ready")
    assert rig.executor.signal(folder, signal.SIGUSR1)
    rig.wait_for_output(folder, b"one")
    rig.wait_for_output(folder, b"two")
    rig.executor.cancel(folder, 0, signal.SIGKILL)
    rig.end(folder)


def test_a_signal_reaches_a_command_that_went_to_another_group(rig: Rig) -> None:
    script = (
        "import os, signal, subprocess\n"
        "other = subprocess.Popen(['sleep', '60'], process_group=0)\n"
        "os.setpgid(0, other.pid)\n"
        "signal.signal(signal.SIGUSR1, lambda *_: (print('heard', flush=True), other.kill()))\n"
        "print('ready', flush=True)\n"
        "other.wait()\n"
    )
    folder = rig.start((sys.executable, "-c", script))
    rig.wait_for_output(folder, b"ready")
    rig.executor.signal(folder, signal.SIGUSR1)
    rig.wait_for_output(folder, b"heard")
    assert rig.end(folder).finished.outcome == Exited(0)


def test_a_request_that_makes_no_sense_does_not_harm_the_command(rig: Rig) -> None:
    folder = rig.start("read line; echo $line", interactive=True)
    wait_until(lambda: rig.executor.lingers(folder), "the supervisor listens")
    with open(folder / "control", "wb") as control:
        control.writelines(
            nonsense + b"\n"
            for nonsense in (
                b"",
                b"2 cancel 0 9",
                b"1 cancel now 9",
                b"1 signal x",
                b"1 signal 999",
                b"\xff\0",
                b"1",
            )
        )
    rig.executor.signal(folder, 4096)
    rig.executor.write_input(folder, b"alive\n", 1000)
    assert rig.end(folder).finished.outcome == Exited(0)
    assert rig.output(folder) == b"alive\n"


def test_a_command_without_input_finds_its_stdin_empty(rig: Rig) -> None:
    folder, _ = rig.run("cat; echo end")
    assert rig.output(folder) == b"end\n"


def test_input_comes_from_any_server_until_one_closes_it(make_rig: MakeRig) -> None:
    first, second = make_rig(), make_rig()
    folder = first.start("cat", interactive=True)
    assert first.executor.write_input(folder, b"one ", 1000) == 4
    assert second.executor.write_input(folder, b"two ", 1000) == 4
    first.wait_for_output(folder, b"one two ")
    first.executor.close()
    assert second.executor.write_input(folder, b"three", 1000) == 5
    second.executor.close_input(folder)
    assert second.end(folder).finished.outcome == Exited(0)
    assert second.output(folder) == b"one two three"


def test_input_given_at_once_is_followed_by_input_that_is_sent(rig: Rig) -> None:
    folder = rig.start("cat", interactive=True, stdin=b"first ")
    rig.executor.write_input(folder, b"second", 1000)
    rig.executor.close_input(folder)
    rig.end(folder)
    assert rig.output(folder) == b"first second"


def test_a_command_that_does_not_read_takes_what_fits_and_no_more(rig: Rig) -> None:
    folder = rig.start("sleep 60", interactive=True)
    taken = rig.executor.write_input(folder, b"x" * (8 << 20), 200)
    assert 65536 <= taken < 8 << 20
    rig.executor.cancel(folder, 0, signal.SIGKILL)
    rig.end(folder)


def test_large_input_is_taken_while_it_is_read_and_its_end_comes_last(rig: Rig) -> None:
    folder = rig.start("sha256sum", interactive=True)
    data = os.urandom(3 << 20)
    assert rig.executor.write_input(folder, data, 20_000) == len(data)
    rig.executor.close_input(folder)
    rig.end(folder)
    import hashlib

    assert rig.output(folder).split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_command_that_is_not_interactive_takes_no_input(rig: Rig) -> None:
    folder = rig.start("sleep 60")
    with pytest.raises(NotSupported):
        rig.executor.write_input(folder, b"x", 0)
    with pytest.raises(NotSupported):
        rig.executor.close_input(folder)
    rig.executor.cancel(folder, 0, signal.SIGKILL)
    rig.end(folder)


def test_whoever_writes_to_a_command_that_closed_its_stdin_is_told_so(rig: Rig) -> None:
    folder = rig.start("exec 0<&-; echo closed; sleep 60", interactive=True)
    rig.wait_for_output(folder, b"closed")

    def refused() -> bool:
        try:
            rig.executor.write_input(folder, b"x", 100)
        except InvalidArgument:
            return True
        return False

    wait_until(refused, "writing is refused")
    rig.executor.cancel(folder, 0, signal.SIGKILL)
    rig.end(folder)


def test_input_is_refused_when_the_command_has_ended_and_left_others_running(rig: Rig) -> None:
    folder = rig.start("sleep 60 & exit 0", interactive=True)
    rig.end(folder)
    with pytest.raises(InvalidArgument):
        rig.executor.write_input(folder, b"x", 100)
    rig.executor.cancel(folder, 0, signal.SIGKILL)
    rig.left(folder)


def test_what_a_command_left_running_is_named_and_its_later_output_is_kept(rig: Rig) -> None:
    (rig.root / "gate").touch()
    folder = rig.start("(while [ -e gate ]; do sleep 0.02; done; echo late) & echo early")
    ended = rig.end(folder)
    assert ended.finished.outcome == Exited(0)
    assert (ended.background >= 1, ended.output_held) == (True, True)
    assert rig.executor.lingers(folder)
    assert any(line.endswith(" sh") for line in rig.executor.background(folder))
    (rig.root / "gate").unlink()
    rig.left(folder)
    assert rig.output(folder) == b"early\nlate\n"
    assert rig.executor.background(folder) == []


def test_cancel_of_a_finished_run_ends_what_it_left_and_changes_nothing_else(rig: Rig) -> None:
    folder = rig.start("trap '' TERM; (sleep 60; sleep 60) & setsid sleep 60 & exit 5")
    before = rig.end(folder)
    assert rig.executor.cancel(folder, 100, signal.SIGTERM)
    rig.left(folder)
    assert rig.end(folder) == before
    assert before.finished.outcome == Exited(5)


def test_tidy_takes_everything_but_output_and_exit_record(rig: Rig) -> None:
    folder, ended = rig.run("echo out", interactive=True)
    rig.left(folder)
    for name in ("alive", "control", "input", "started", "launch", "exit.tmp"):
        (folder / name).touch()
    rig.executor.tidy(folder)
    assert sorted(os.listdir(folder)) == ["chunks", "exit.json", "stdout"]
    assert rig.executor.observe(folder) == ended


def test_a_launch_is_parked_and_read_back_as_it_was(rig: Rig) -> None:
    folder = rig.folder()
    launch = Launch(
        argv=("prog", "a b", "ü\udcff"),
        cwd="/tmp/x y",
        env={"A": "1", "B\udcfe": "\n"},
        stdin=bytes(range(256)),
        interactive=True,
        timeout_ms=5,
        grace_ms=6,
        max_output_bytes=7,
        on_output_limit="keep_tail",
        min_free_bytes=8,
        lifeline=True,
    )
    rig.executor.park(folder, launch)
    assert rig.executor.is_unstarted(folder)
    parked = rig.executor.parked(folder)
    assert (tuple(parked.argv), dict(parked.env)) == (launch.argv, launch.env)
    assert (parked.stdin, parked.lifeline, parked.timeout_ms) == (launch.stdin, True, 5)
    assert (folder / "launch").stat().st_mode & 0o777 == 0o600
    with pytest.raises(StoreUnavailable):
        rig.executor.park(folder, launch)


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b'{"v": 2}', b'{"v": 1, "argv": 5}', b"\xff"])
def test_a_parked_launch_that_cannot_be_read_is_said_to_be_so(rig: Rig, content: bytes | None) -> None:
    folder = rig.folder()
    if content is not None:
        (folder / "launch").write_bytes(content)
    with pytest.raises(StoreUnavailable):
        rig.executor.parked(folder)


def test_a_parked_launch_is_gone_once_its_command_was_started(rig: Rig) -> None:
    for command in (("sleep", "60"), ("no-such-program-here",)):
        folder = rig.folder()
        launch = rig.launch(command, env={"SECRET": "hunter2"}, stdin=b"swordfish")
        rig.executor.park(folder, launch)
        rig.start(command, folder)
        assert not rig.executor.is_unstarted(folder)
        rig.executor.cancel(folder, 0, signal.SIGKILL)
        rig.end(folder)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{",
        b"[1]",
        b"{}",
        b'{"v": 1}',
        b'{"v": 1, "outcome": "fine", "exit_code": 0, "signal": null}',
        b'{"v": 1, "outcome": "exited", "exit_code": null, "signal": null, "message": "", "started_at": 1}',
        b"\xff\xfe",
    ],
)
def test_an_exit_record_that_makes_no_sense_is_never_a_success(rig: Rig, record: bytes) -> None:
    folder = rig.folder()
    (folder / "exit.json").write_bytes(record)
    assert isinstance(rig.executor.observe(folder), Gone)


def test_an_exit_record_of_a_newer_version_is_left_alone(rig: Rig) -> None:
    folder = rig.folder()
    (folder / "exit.json").write_bytes(b'{"v": 2}')
    with pytest.raises(StoreUnavailable):
        rig.executor.observe(folder)


def test_a_planted_link_or_pipe_is_not_followed(rig: Rig, tmp_path: Path) -> None:
    folder = rig.folder()
    (tmp_path / "elsewhere").write_bytes(b"{}")
    (folder / "exit.json").symlink_to(tmp_path / "elsewhere")
    (folder / "alive").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / "started")
    assert isinstance(rig.executor.observe(folder), Gone)
    assert rig.executor.background(folder) == []
    os.mkdir(folder / "control")
    assert not rig.executor.cancel(folder, 0, signal.SIGTERM)


def test_a_text_that_no_system_call_takes_is_refused_with_nothing_left(rig: Rig) -> None:
    folder = rig.folder()
    with pytest.raises(InvalidArgument):
        rig.executor.reserve(folder, rig.launch(("echo", "\ud800")), rig.slots, 1)
    assert isinstance(rig.executor.observe(folder), Gone)
