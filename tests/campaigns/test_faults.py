"""System calls of a running server are made to fail while it starts a command and sees it end.

strace(1) attaches to the server alone (not to launcher, supervisors or commands) and makes the calls
fail from the n-th of each thread on. Whatever fails: what is acknowledged is true, what is refused has
not run, no file is broken, the server lives and is well again within two seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.connection import Connection, ToolRefused
from tests.campaigns.rig import Ledger, all_tasks, check, end, gone, server, short_or_full
from tests.waiting import eventually, wait_until

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.timeout(3_600),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: apt-get install strace"),
]

CALLS = {
    "fsync": "EIO",
    "rename,renameat,renameat2": "EIO",
    "link,linkat": "EIO",
    "mkdir,mkdirat": "ENOSPC",
    "openat": "EMFILE",
    "openat,socketpair,pipe2": "ENFILE",
    "flock": "ENOLCK",
    "sendmsg": "EPIPE",
    "unlink,unlinkat,rmdir": "EIO",
    "newfstatat,lstat": "EIO",
    "getdents64": "EIO",
}
GROUPS = short_or_full([list(CALLS)], [[calls] for calls in CALLS])
_WELL_S = 2.0


@contextmanager
def failing(pid: int, calls: str, error: str, when: str, log: Path) -> Iterator[None]:
    """Within the block the system calls of a process fail."""
    inject = f"inject={calls}:error={error}:when={when}"
    command = ["strace", "-f", "-o", os.devnull, "-e", f"trace={calls}", "-e", inject, "-p", str(pid)]
    with open(log, "w", encoding="utf-8") as errors:
        tracer = subprocess.Popen(command, stderr=errors, stdin=subprocess.DEVNULL)
    try:

        def attached() -> bool:
            said = log.read_text()
            if tracer.poll() is not None:
                pytest.skip(f"strace cannot attach here: {said.strip()[:200]}")
            return f"Process {pid} attached" in said

        wait_until(attached, "strace is attached")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)


@dataclass
class _Sweep:
    """What was promised in the course of a sweep, to be held against what is there in the end."""

    ledger: Ledger
    number: int = 0
    durable: dict[int, str] = field(default_factory=dict)
    fleeting: set[int] = field(default_factory=set)
    refused: dict[int, str] = field(default_factory=dict)

    async def start(self, connection: Connection) -> None:
        """Start the next command, whatever comes of it."""
        number, self.number = self.number, self.number + 1
        work = self.ledger.work(number)
        try:
            view = await connection.call(
                "run_command", patience_s=60, command=work.command, key=f"task {number}", wait_ms=1_000
            )
        except ToolRefused as error:
            self.refused[number] = f"{error.code}: {error}"
            return
        if "not durable" in view.get("warning", ""):
            self.fleeting.add(number)
        else:
            self.durable[number] = view["task_id"]
        if view["state"] not in ("pending", "running"):
            # A full disk may have had no room for its output, or not even for its end. It says so.
            assert view["outcome"] in ("exited", "output_limit", "lost"), view
            assert view["outcome"] != "exited" or view["exit_code"] == work.exit_code, view

    async def is_well(self, connection: Connection) -> bool:
        """Whether a command is started durably and ends as it should, without a warning."""
        work = self.ledger.work(self.number)
        try:
            view = await connection.call(
                "run_command", command=work.command, key=f"task {self.number}", wait_ms=5_000
            )
        except ToolRefused:
            return False
        well = "warning" not in view and view["outcome"] == "exited"
        if well:
            self.durable[self.number] = view["task_id"]
        else:
            self.fleeting.add(self.number)
        self.number += 1
        return well


async def _sweep(tmp_path: Path, faults: list[tuple[str, str, str]]) -> None:
    sweep = _Sweep(Ledger(tmp_path / "ledger"))
    state = tmp_path / "state"
    async with server(state) as connection:
        assert await sweep.is_well(connection)
        for calls, error, when in faults:
            with failing(connection.pid, calls, error, when, tmp_path / "strace.log"):
                await sweep.start(connection)
            assert not gone(connection.pid), (calls, error, when)
            await eventually(lambda: sweep.is_well(connection), f"well after {error} of {calls}", _WELL_S)
            for number, task_id in list(sweep.durable.items())[-3:]:
                await check(connection, sweep.ledger.work(number), task_id)
        await end(connection, "kill")
    _no_file_is_broken(state)
    async with server(state) as connection:
        for number, task_id in sweep.durable.items():
            await check(connection, sweep.ledger.work(number), task_id)
        listed = await all_tasks(connection)
    assert {number: sweep.ledger.runs(number) for number in sweep.durable} == dict.fromkeys(sweep.durable, 1)
    assert {number: sweep.ledger.runs(number) for number in sweep.fleeting} == dict.fromkeys(
        sweep.fleeting, 1
    )
    assert {why.split(":")[0] for why in sweep.refused.values()} <= {
        "store_unavailable",
        "spawn_failed",
        "invalid_argument",
    }
    ran_though_refused = {number: why for number, why in sweep.refused.items() if sweep.ledger.runs(number)}
    assert ran_though_refused == {}
    assert {task["task_id"] for task in listed if task["state"] != "lost"} == set(sweep.durable.values())
    print(f"{len(faults)} faults: {len(sweep.durable)} durable, {len(sweep.fleeting)} not, {sweep.refused}")  # noqa: T201


def _no_file_is_broken(state: Path) -> None:
    for path in state.rglob("*.json"):
        record: Any = json.loads(path.read_bytes())
        assert isinstance(record, dict), path
    assert os.listdir(state / "quarantine") == []


@pytest.mark.parametrize("kinds", GROUPS, ids=lambda kinds: "all" if len(kinds) > 1 else kinds[0])
async def test_every_call_of_a_kind_fails_from_some_call_on(tmp_path: Path, kinds: list[str]) -> None:
    places = short_or_full((1, 4), tuple(range(1, 25)))
    await _sweep(tmp_path, [(calls, CALLS[calls], f"{place}+") for calls in kinds for place in places])


@pytest.mark.parametrize("kinds", GROUPS, ids=lambda kinds: "all" if len(kinds) > 1 else kinds[0])
async def test_one_call_of_a_kind_fails(tmp_path: Path, kinds: list[str]) -> None:
    places = short_or_full((2,), tuple(range(1, 25)))
    await _sweep(tmp_path, [(calls, CALLS[calls], str(place)) for calls in kinds for place in places])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A state directory on a small disk."""
    state = tmp_path / "state"
    state.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", str(state)]
    if os.geteuid() != 0 or subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield state
    subprocess.run(["umount", "--lazy", str(state)], check=True)


async def test_on_a_full_disk_commands_run_and_say_so_and_all_is_well_when_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    sweep = _Sweep(Ledger(tmp_path / "ledger"))
    async with server(small_disk) as connection:
        assert await sweep.is_well(connection)
        for room in short_or_full((0, 3, 40), tuple(range(60))):
            filler = small_disk / "filler"
            _fill(filler, room * 4096)
            await sweep.start(connection)
            filler.unlink()
            await eventually(lambda: sweep.is_well(connection), "well with room again", _WELL_S)
        await end(connection, "kill")
    _no_file_is_broken(small_disk)
    async with server(small_disk) as connection:
        for number, task_id in sweep.durable.items():
            view = await connection.call("poll_task", task_id=task_id)
            # Where the disk was full, its output may have had no room, or not even its end. It says so.
            assert view["outcome"] in ("exited", "output_limit", "lost"), view
            if view["outcome"] == "exited":
                await check(connection, sweep.ledger.work(number), task_id)
    for number in sweep.refused:
        assert sweep.ledger.runs(number) == 0
    assert sweep.fleeting


def _fill(filler: Path, but: int) -> None:
    """Leave `but` bytes free on the disk."""
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            file.truncate(max(0, file.tell() - but))
