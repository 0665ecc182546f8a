"""Deadline, grace, output limits: what ends a command that goes on for too long or says too much."""

from __future__ import annotations

import os
import signal

import pytest

from mcp_tasks.models import Cancelled, Exited, OutputLimit, TimedOut
from mcp_tasks.output.captured import RunOutput
from tests.executors.rig import Rig
from tests.waiting import wait_until


def _stored(rig: Rig, folder: os.PathLike[str]) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.name.startswith("std"))


def test_a_deadline_ends_the_command_and_says_so(rig: Rig) -> None:
    _, ended = rig.run(("sleep", "60"), timeout_ms=100)
    assert ended.finished.outcome == TimedOut(None, "SIGTERM")
    assert 100 <= ended.finished.elapsed_ms < 2000


def test_a_command_that_ignores_the_request_is_killed_after_the_grace(rig: Rig) -> None:
    _, ended = rig.run("trap '' TERM; while :; do sleep 0.05; done", timeout_ms=100, grace_ms=200)
    assert ended.finished.outcome == TimedOut(None, "SIGKILL")
    assert 300 <= ended.finished.elapsed_ms < 3000


def test_a_command_may_use_the_grace_to_end_well(rig: Rig) -> None:
    script = "trap 'echo bye; exit 0' TERM; while :; do sleep 0.02; done"
    folder, ended = rig.run(script, timeout_ms=200, grace_ms=20_000)
    assert ended.finished.outcome == TimedOut(0, None)
    assert rig.output(folder) == b"bye\n"


def test_a_deadline_that_does_not_come_changes_nothing(rig: Rig) -> None:
    assert rig.run("exit 3", timeout_ms=60_000)[1].finished.outcome == Exited(3)


def test_a_deadline_in_a_century_can_be_waited_for(rig: Rig) -> None:
    folder = rig.start("read line; exit 3", timeout_ms=100 * 365 * 86_400_000, interactive=True)
    rig.executor.write_input(folder, b"\n", 1000)
    assert rig.end(folder).finished.outcome == Exited(3)


def test_a_cancel_before_the_deadline_names_the_outcome(rig: Rig) -> None:
    folder = rig.start("trap '' TERM; echo ready; while :; do sleep 0.02; done", timeout_ms=500, grace_ms=100)
    rig.wait_for_output(folder, b"ready")
    rig.executor.cancel(folder, 60_000, signal.SIGTERM)
    assert rig.end(folder).finished.outcome == Cancelled(None, "SIGKILL")


def test_the_deadline_does_not_concern_what_a_finished_command_left_running(rig: Rig) -> None:
    folder = rig.start("(sleep 0.6; echo late) & exit 0", timeout_ms=300)
    assert rig.end(folder).finished.outcome == Exited(0)
    rig.left(folder)
    assert rig.output(folder) == b"late\n"


@pytest.mark.parametrize("limit", [1, 4096, 100_000, 3_000_000])
def test_at_the_limit_exactly_the_first_bytes_are_kept(rig: Rig, limit: int) -> None:
    folder, ended = rig.run("seq 1 2000000", max_output_bytes=limit, grace_ms=100)
    assert isinstance(ended.finished.outcome, OutputLimit)
    assert f"limit of {limit} bytes" in ended.finished.outcome.message
    wanted = "".join(f"{n}\n" for n in range(1, limit // 2 + 2)).encode()[:limit]
    assert rig.output(folder) == wanted


def test_the_limit_is_over_both_streams(rig: Rig) -> None:
    script = "head -c 600 /dev/zero; read line; head -c 600 /dev/zero >&2; sleep 60"
    folder = rig.start(script, max_output_bytes=1000, interactive=True)
    rig.wait_for_output(folder, b"\0" * 600)
    rig.executor.write_input(folder, b"\n", 1000)
    assert isinstance(rig.end(folder).finished.outcome, OutputLimit)
    assert (len(rig.output(folder)), len(rig.output(folder, "stderr"))) == (600, 400)


def test_output_of_just_the_limit_is_no_reason_to_end(rig: Rig) -> None:
    folder, ended = rig.run("head -c 5000 /dev/zero", max_output_bytes=5000)
    assert ended.finished.outcome == Exited(0)
    assert len(rig.output(folder)) == 5000


def test_output_past_the_limit_is_no_success_even_when_the_command_has_ended_already(rig: Rig) -> None:
    _, ended = rig.run("head -c 5001 /dev/zero; exit 0", max_output_bytes=5000)
    assert isinstance(ended.finished.outcome, OutputLimit)


def test_a_command_that_ignores_the_end_for_its_output_is_killed(rig: Rig) -> None:
    script = "trap '' TERM PIPE; while :; do echo noise; done"
    folder, ended = rig.run(script, max_output_bytes=100_000, grace_ms=200)
    assert isinstance(ended.finished.outcome, OutputLimit)
    assert ended.finished.outcome.signal == "SIGKILL"
    assert _stored(rig, folder) == 100_000


@pytest.mark.parametrize("limit", [1, 16, 17, 1000, 65_536, 1_000_000])
def test_head_and_tail_are_kept_and_never_more_than_the_limit(rig: Rig, limit: int) -> None:
    wanted = "".join(f"{n}\n" for n in range(1, 500_001)).encode()
    folder, ended = rig.run("seq 1 500000", max_output_bytes=limit, on_output_limit="keep_tail")
    assert ended.finished.outcome == Exited(0)
    assert _stored(rig, folder) <= max(limit, 16)
    output = RunOutput(folder)
    assert output.size("stdout") == len(wanted)
    holes = output.holes("stdout")
    assert len(holes) == 1
    assert holes[0][0] == max(limit, 16) // 2
    begin, head = output.read("stdout", 0, limit)
    assert (begin, head) == (0, wanted[: min(limit, len(head))])
    begin, tail = output.read("stdout", holes[0][0], limit)
    assert begin == holes[0][1]
    assert tail == wanted[begin : begin + len(tail)]
    assert begin + len(tail) == len(wanted) or limit == 1
    assert len(wanted) - holes[0][1] >= max(1, 3 * (max(limit, 16) // 16))


def test_the_tail_of_each_stream_is_kept(rig: Rig) -> None:
    script = "for n in $(seq 3000); do echo out $n; echo error $n >&2; done"
    folder, _ = rig.run(script, max_output_bytes=16_384, on_output_limit="keep_tail")
    output = RunOutput(folder)
    assert _stored(rig, folder) <= 16_384
    for stream, word in (("stdout", "out"), ("stderr", "error")):
        wanted = "".join(f"{word} {n}\n" for n in range(1, 3001)).encode()
        size = output.size(stream)  # type: ignore[arg-type]
        assert size == len(wanted)
        _, tail = output.read(stream, size - 500, 500)  # type: ignore[arg-type]
        assert tail == wanted[-500:]


def test_the_disk_never_holds_more_than_the_limit_while_the_command_runs(rig: Rig) -> None:
    limit = 200_000
    folder = rig.start("yes | head -c 200000000", max_output_bytes=limit, on_output_limit="keep_tail")
    most = 0

    def over() -> bool:
        nonlocal most
        stored = 0
        for entry in os.scandir(folder):
            if entry.name.startswith("std"):
                try:
                    stored += entry.stat().st_size
                except FileNotFoundError:
                    continue
        most = max(most, stored)
        return not rig.executor.lingers(folder)

    wait_until(over, "the command is over", 30)
    assert 0 < most <= limit
    assert RunOutput(folder).size("stdout") == 200_000_000


def test_a_short_output_under_keep_tail_is_whole(rig: Rig) -> None:
    folder, _ = rig.run("seq 1 100", max_output_bytes=100_000, on_output_limit="keep_tail")
    assert RunOutput(folder).holes("stdout") == []
    assert rig.output(folder) == "".join(f"{n}\n" for n in range(1, 101)).encode()


def test_the_index_counts_what_was_dropped_too(rig: Rig) -> None:
    folder, _ = rig.run("seq 1 500000", max_output_bytes=65_536, on_output_limit="keep_tail")
    assert sum(length for _, _, length in rig.chunks(folder)) == RunOutput(folder).size("stdout")


def test_a_command_is_ended_when_too_little_of_the_disk_is_left_free(rig: Rig) -> None:
    _, ended = rig.run("echo x; sleep 60", min_free_bytes=1 << 60)
    assert isinstance(ended.finished.outcome, OutputLimit)
    assert "bytes free" in ended.finished.outcome.message


def test_a_command_that_says_nothing_needs_no_free_disk(rig: Rig) -> None:
    assert rig.run("exit 2", min_free_bytes=1 << 60)[1].finished.outcome == Exited(2)
