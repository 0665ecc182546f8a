"""What an unfriendly machine does: planted links, other owners, clocks that jump, a server out of breath."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from mcp_tasks.connection import CallTimedOut, Connection, ToolRefused
from tests.campaigns.rig import GONE, end, server
from tests.waiting import eventually

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]

_FAKETIME = shutil.which("faketime")


async def _run(connection: Connection, command: str) -> dict[str, Any]:
    return await connection.call("run_command", command=command, wait_ms=20_000)


@pytest.mark.parametrize(
    "place", ["sessions", "slots", "active", "pending", "quarantine", "trash", "admission.lock"]
)
async def test_a_planted_link_is_not_followed(tmp_path: Path, place: str) -> None:
    state, target = tmp_path / "state", tmp_path / "target"
    async with server(state) as connection:
        await _run(connection, "true")
    target.mkdir()
    (target / "mine").write_text("precious")
    there = state / place
    if there.is_dir():
        shutil.rmtree(there)
    else:
        there.unlink(missing_ok=True)
    there.symlink_to(target / "file" if place.endswith(".lock") else target)
    with suppress(*GONE):
        async with server(state, "--max-running", "1") as connection:
            with suppress(ToolRefused):
                await connection.call("run_command", command="sleep 0.1", wait_ms=0)
                await connection.call("run_command", command="true", wait_ms=5_000)
    assert [path.name for path in target.iterdir()] == ["mine"]
    assert (target / "mine").read_text() == "precious"


async def test_a_link_in_the_place_of_a_run_file_drives_nothing(tmp_path: Path) -> None:
    state, secret = tmp_path / "state", tmp_path / "secret"
    secret.write_text("not for you\n")
    async with server(state) as connection:
        view = await _run(connection, "echo mine; exit 3")
        (stdout,) = state.rglob("stdout")
        stdout.unlink()
        stdout.symlink_to(secret)
        shown = await connection.call("get_result", task_id=view["task_id"])
        assert "not for you" not in str(shown)
        assert (shown["state"], shown["exit_code"]) == ("failed", 3)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root")
async def test_the_state_directory_of_somebody_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    os.chown(state, 4242, 4242)
    with pytest.raises((*GONE, BaseExceptionGroup)):
        async with server(state) as connection:
            await _run(connection, f"touch {tmp_path}/ran")
    assert list(state.iterdir()) == []
    assert (state.stat().st_uid, state.stat().st_mode & 0o777) == (4242, 0o755)
    assert not (tmp_path / "ran").exists()
    assert "belongs to another user" in (tmp_path / "servers.log").read_text()


async def test_two_state_directories_know_nothing_of_each_other(tmp_path: Path) -> None:
    async with server(tmp_path / "one") as one, server(tmp_path / "two") as two:
        view = await _run(one, "true")
        assert (await two.call("list_tasks"))["tasks"] == []
        with pytest.raises(ToolRefused, match="task_not_found"):
            await two.call("poll_task", task_id=view["task_id"])


@pytest.mark.skipif(_FAKETIME is None, reason="needs faketime: apt-get install faketime")
async def test_a_wall_clock_that_jumps_breaks_no_order_no_duration_and_no_deadline(tmp_path: Path) -> None:
    # libfaketime reads the offset anew for every call; CLOCK_MONOTONIC is left alone, as the kernel does.
    offset = tmp_path / "offset"
    offset.write_text("+0")
    around = {
        "LD_PRELOAD": _preload(),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    async with server(tmp_path / "state", env=around) as connection:
        ids = []
        for jump in ("+0", "-1d", "+2d", "-400d"):
            offset.write_text(jump)
            view = await _run(connection, "sleep 0.2")
            assert view["state"] == "completed"
            assert 200 <= view["elapsed_ms"] < 20_000, view
            ids.append(view["task_id"])
        running = await connection.call("run_command", command="sleep 60", wait_ms=0, timeout_ms=700)
        offset.write_text("+30d")
        view = await connection.call("poll_task", task_id=running["task_id"])
        assert view["state"] == "running"
        assert view["elapsed_ms"] < 20_000
        offset.write_text("-30d")
        view = await connection.call("poll_task", task_id=running["task_id"], wait_ms=20_000)
        assert (view["outcome"], view["state"]) == ("timed_out", "failed")
        assert 700 <= view["elapsed_ms"] < 20_000
        listed = [task["task_id"] for task in (await connection.call("list_tasks"))["tasks"]]
        assert listed == [running["task_id"], *ids[::-1]]


def _preload() -> str:
    found = [str(path) for path in Path("/usr/lib").rglob("libfaketime.so.1")]
    if not found:
        pytest.skip("libfaketime is not where it is looked for")
    return found[0]


async def test_a_client_that_gives_up_cancels_and_doubles_nothing(tmp_path: Path) -> None:
    async with server(tmp_path / "state") as connection:
        command = f"echo ran >> {tmp_path}/runs; sleep 1; echo over"
        with pytest.raises(CallTimedOut):
            await connection.call("run_command", patience_s=0.3, command=command, key="k", wait_ms=20_000)
        view = await connection.call("run_command", command=command, key="k", wait_ms=20_000)
        assert (view["state"], view["stdout"], view["reused"]) == ("completed", "over\n", True)
        for attempt in range(10):
            with suppress(CallTimedOut):
                await connection.call(
                    "run_command",
                    patience_s=0.0005 * attempt,
                    command=f"echo x >> {tmp_path}/many",
                    wait_ms=0,
                )

        many = tmp_path / "many"

        async def each_ran_once() -> bool:
            # A call that was given up may be in the middle of its start when the next one is answered.
            ran = len(many.read_text().split()) if "many" in os.listdir(tmp_path) else 0
            assert ran <= 10
            return bool((await connection.call("list_tasks"))["counts"] == {"completed": 1 + ran})

        await eventually(each_ran_once, "each task that was started is over, and has run once")
    assert (tmp_path / "runs").read_text() == "ran\n"


async def test_three_hundred_waits_at_once_leave_a_server_that_answers(tmp_path: Path) -> None:
    async with server(tmp_path / "state") as connection:
        view = await connection.call("run_command", command="read _", interactive=True, wait_ms=0)
        ends: list[str] = []

        async def wait(until: str) -> None:
            answer = await connection.call("poll_task", task_id=view["task_id"], wait_ms=25_000, until=until)
            ends.append(answer["wait_result"])

        async with anyio.create_task_group() as group:
            for number in range(300):
                group.start_soon(wait, ("exit", "output")[number % 2])
            with anyio.fail_after(20):
                other = await _run(connection, "echo meanwhile")
            assert other["stdout"] == "meanwhile\n"
            await connection.call("send_input", task_id=view["task_id"], text="\n", wait_ms=0)
        assert ends == ["exited"] * 300


async def test_a_server_without_descriptors_calls_no_living_task_lost(tmp_path: Path) -> None:
    async with server(tmp_path / "state") as connection:
        view = await connection.call("run_command", command="sleep 3; echo lived", wait_ms=0)
        process = psutil.Process(connection.pid)
        usual = process.rlimit(resource.RLIMIT_NOFILE)
        process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds(), usual[1]))
        for _ in range(50):
            with suppress(ToolRefused):
                seen = await connection.call("poll_task", task_id=view["task_id"])
                assert seen["state"] == "running"
            with suppress(ToolRefused):
                refused = await connection.call("run_command", command="true", wait_ms=0)
                assert refused["state"] != "lost"
        process.rlimit(resource.RLIMIT_NOFILE, usual)
        seen = await connection.call("poll_task", task_id=view["task_id"], wait_ms=20_000)
        assert (seen["state"], seen["stdout"]) == ("completed", "lived\n")
        assert "lost" not in (await connection.call("list_tasks"))["counts"]


async def test_a_server_that_is_stopped_holds_up_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with server(state, "--max-running", "1") as stopped, server(state, "--max-running", "1") as other:
        gate = tmp_path / "gate"
        command = f"until [ -e {gate} ]; do sleep 0.05; done"
        blocker = await stopped.call("run_command", command=command, wait_ms=0)
        waiting = await stopped.call("run_command", command="echo taken over", wait_ms=0)
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            # Only now is there a place: a server that is stopped in the middle of a start holds up that one.
            gate.touch()
            view = await other.call("poll_task", task_id=waiting["task_id"], wait_ms=20_000)
            assert (view["state"], view["stdout"]) == ("completed", "taken over\n")
            assert (await other.call("poll_task", task_id=blocker["task_id"]))["state"] == "completed"
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
        assert (await stopped.call("poll_task", task_id=waiting["task_id"]))["state"] == "completed"


async def test_a_broken_exit_record_of_one_task_leaves_the_others_in_sight(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with server(state) as connection:
        good = await _run(connection, "echo good")
        bad = await connection.call("run_command", command="sleep 60", wait_ms=0)
        (started,) = [path for path in state.rglob("started") if bad["task_id"] in str(path)]
        for content in (b"{}", b"[]", b"\0" * 100, b'{"v": 1, "outcome": "exited", "exit_code": "x"}'):
            (started.parent / "exit.json").write_bytes(content)
            listed = await connection.call("list_tasks")
            assert [task["state"] for task in listed["tasks"]] == ["running", "completed"]
        (started.parent / "exit.json").unlink()
        assert (await connection.call("cancel_task", task_id=bad["task_id"]))["state"] == "cancelled"
        assert (await connection.call("get_result", task_id=good["task_id"]))["stdout"] == "good\n"
        await end(connection, "close")
