"""cancel_task and clear_task."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import psutil
import pytest

from mcp_tasks.errors import InvalidArgument, TaskNotFinished, TaskNotFound
from tests.service.agent import Agent
from tests.waiting import eventually, wait_until

STUBBORN = "trap '' TERM INT HUP; echo up; while :; do sleep 60; done"


async def test_cancelling_a_running_task_answers_when_it_is_over(agent: Agent) -> None:
    task_id = await agent.start("echo begun; sleep 60")
    await agent.poll(task_id, pattern="begun")
    view = await agent.cancel(task_id)
    assert (view["state"], view["outcome"], view["signal"]) == ("cancelled", "cancelled", "SIGTERM")
    assert view["stdout"] == "begun\n"
    record = await agent.result(task_id)
    assert [entry["state"] for entry in record["history"]] == ["pending", "running", "cancelled"]


async def test_what_ignores_the_signal_is_killed_after_the_grace(agent: Agent) -> None:
    task_id = await agent.start(STUBBORN)
    await agent.poll(task_id, pattern="up")
    view = await agent.cancel(task_id, grace_ms=50)
    assert (view["state"], view["signal"]) == ("cancelled", "SIGKILL")


async def test_the_signal_asked_for_comes_first(agent: Agent) -> None:
    task_id = await agent.start("trap 'echo got it; exit 9' INT; echo up; while :; do sleep 0.01; done")
    await agent.poll(task_id, pattern="up")
    view = await agent.cancel(task_id, signal="SIGINT")
    assert (view["state"], view["exit_code"]) == ("cancelled", 9)
    assert view["stdout"] == "up\ngot it\n"


async def test_cancelling_takes_the_whole_tree(agent: Agent, tmp_path: Path) -> None:
    script = f"""
        sleep 61 & echo $! >> {tmp_path}/pids
        setsid sh -c 'echo $$ >> {tmp_path}/pids; exec sleep 62' &
        (setsid sh -c 'echo $$ >> {tmp_path}/pids; trap "" TERM; sleep 63; sleep 64' & )
        sh -c 'echo $$ >> {tmp_path}/pids; kill -STOP $$; sleep 65' &
        wait"""
    task_id = await agent.start(script)
    pids = tmp_path / "pids"
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 4, "the tree has grown")
    view = await agent.cancel(task_id, grace_ms=100)
    assert view["state"] == "cancelled"
    assert [pid for pid in pids.read_text().split() if psutil.pid_exists(int(pid))] == []


async def test_cancelling_a_pending_task_means_that_it_never_runs(narrow: Agent, tmp_path: Path) -> None:
    blocker = await narrow.start("sleep 60")
    waiting = await narrow.start(f"touch {tmp_path}/ran", cwd="/", key="k")
    view = await narrow.cancel(waiting)
    assert (view["state"], view["outcome"]) == ("cancelled", "cancelled")
    assert "exit_code" not in view
    await narrow.cancel(blocker)
    assert (await narrow.run("true"))["state"] == "completed"
    assert not (tmp_path / "ran").exists()
    record = await narrow.result(waiting)
    assert [entry["state"] for entry in record["history"]] == ["pending", "cancelled"]
    assert "started_at" not in record


async def test_cancelling_a_final_task_changes_nothing(agent: Agent) -> None:
    view = await agent.run("exit 3")
    before = await agent.result(view["task_id"])
    again = await agent.cancel(view["task_id"])
    assert (again["state"], again["outcome"], again["exit_code"]) == ("failed", "exited", 3)
    assert await agent.result(view["task_id"]) == before


async def test_an_end_of_its_own_counts_when_it_was_first(agent: Agent) -> None:
    for _ in range(20):
        task_id = await agent.start("exit 5")
        view = await agent.cancel(task_id)
        end = (view["state"], view.get("exit_code"))
        assert end in {("failed", 5), ("cancelled", None), ("cancelled", 5)}
        assert (await agent.result(task_id))["state"] == view["state"]


async def test_several_are_cancelled_in_one_call_in_the_order_given(agent: Agent) -> None:
    ids = tuple([await agent.start("sleep 60") for _ in range(4)])
    answer = await agent.cancel(task_ids=ids[::-1])
    assert [view["task_id"] for view in answer["tasks"]] == list(ids[::-1])
    assert {view["state"] for view in answer["tasks"]} == {"cancelled"}


async def test_one_unknown_id_among_several_cancels_none(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    with pytest.raises(TaskNotFound):
        await agent.cancel(task_ids=(task_id, "0" * 36))
    assert (await agent.poll(task_id))["state"] == "running"
    await agent.cancel(task_id)


async def test_what_cannot_be_ended_in_time_is_still_running_and_named(agent: Agent) -> None:
    task_id = await agent.start(STUBBORN)
    await agent.poll(task_id, pattern="up")
    view = await agent.patient_for(100).cancel(task_id, grace_ms=60_000)
    assert view["state"] == "running"
    assert "still alive" in view["warning"]
    assert "sh" in view["warning"]
    assert (await agent.cancel(task_id, grace_ms=0))["state"] == "cancelled"


async def test_a_supervisor_that_is_stopped_delays_the_end_and_loses_nothing(
    agent: Agent, tmp_path: Path
) -> None:
    task_id = await agent.start("echo $PPID; sleep 60")
    view = await agent.poll(task_id, pattern="[0-9]+")
    supervisor = psutil.Process(int(view["match"]["text"]))
    supervisor.send_signal(signal.SIGSTOP)
    try:
        view = await agent.patient_for(200).cancel(task_id)
        assert view["state"] == "running"
        assert "still alive" in view["warning"]
        assert (await agent.poll(task_id))["state"] == "running"
    finally:
        supervisor.send_signal(signal.SIGCONT)
    assert (await agent.ended(task_id))["state"] == "cancelled"


async def test_a_supervisor_that_is_killed_makes_the_task_lost_and_its_tree_is_ended(agent: Agent) -> None:
    task_id = await agent.start("echo $PPID; echo $$ >&2; sleep 60")
    view = await agent.poll(task_id, pattern="[0-9]+")
    await agent.poll(task_id, until="output", cursor="1-9-0", wait_ms=1)
    command = psutil.Process(int(view["match"]["text"])).children()[0]
    os.kill(int(view["match"]["text"]), signal.SIGKILL)
    view = await agent.ended(task_id)
    assert (view["state"], view["outcome"]) == ("lost", "lost")
    assert view["error"]["code"] == "lost"
    assert "exit_code" not in view
    assert view["stdout"]

    async def ended() -> bool:
        return not command.is_running() or command.status() == psutil.STATUS_ZOMBIE

    await eventually(ended, "the command of a killed supervisor is gone")


async def test_two_cancels_at_once_agree(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    states: list[str] = []

    async def cancel() -> None:
        states.append((await agent.cancel(task_id))["state"])

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(cancel)
    assert states == ["cancelled"] * 10


# -- clear_task ------------------------------------------------------------------------------------


async def test_a_cleared_task_is_gone_with_its_files(agent: Agent, tmp_path: Path) -> None:
    view = await agent.run("head -c 10000 /dev/zero")
    answer = await agent.clear(view["task_id"])
    assert answer["cleared"] == [view["task_id"]]
    assert answer["freed_bytes"] >= 10_000
    assert list((tmp_path / "state").rglob(f"*{view['task_id']}*")) == []
    for call in (agent.poll, agent.result, agent.cancel, agent.clear):
        with pytest.raises(TaskNotFound):
            await call(view["task_id"])


async def test_a_task_that_is_not_final_is_not_cleared_unless_it_is_cancelled(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    with pytest.raises(TaskNotFinished):
        await agent.clear(task_id)
    assert (await agent.poll(task_id))["state"] == "running"
    assert (await agent.clear(task_id, cancel=True))["cleared"] == [task_id]


async def test_a_pending_task_is_cleared_with_cancel(narrow: Agent) -> None:
    blocker = await narrow.start("sleep 60")
    waiting = await narrow.start("true")
    with pytest.raises(TaskNotFinished):
        await narrow.clear(waiting)
    assert (await narrow.clear(waiting, cancel=True))["cleared"] == [waiting]
    await narrow.cancel(blocker)


async def test_a_task_with_processes_in_the_background_is_cleared_only_with_cancel(
    agent: Agent, tmp_path: Path
) -> None:
    view = await agent.run(f"sleep 60 & echo $! > {tmp_path}/pid")
    with pytest.raises(TaskNotFinished, match="background"):
        await agent.clear(view["task_id"])
    assert (await agent.clear(all_finished=True))["cleared"] == []
    assert (await agent.clear(view["task_id"], cancel=True))["cleared"] == [view["task_id"]]
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


async def test_all_that_is_finished_can_be_cleared_narrowed_by_label_and_cwd(
    agent: Agent, tmp_path: Path
) -> None:
    plain = await agent.run("true")
    labelled = await agent.run("true", label="build")
    elsewhere = await agent.run("true", label="build", cwd=str(tmp_path))
    busy = await agent.start("sleep 60", label="build")

    # As somebody would type it, not as it was registered.
    answer = await agent.clear(all_finished=True, label="build", cwd=f"{tmp_path}/../{tmp_path.name}/")
    assert answer["cleared"] == [elsewhere["task_id"]]
    assert (await agent.clear(all_finished=True, label="build"))["cleared"] == [labelled["task_id"]]
    assert (await agent.clear(all_finished=True))["cleared"] == [plain["task_id"]]
    assert (await agent.list())["counts"] == {"running": 1}
    await agent.cancel(busy)


async def test_only_what_is_old_enough_is_cleared(agent: Agent) -> None:
    view = await agent.run("true")
    assert (await agent.clear(older_than_days=1.0))["cleared"] == []
    assert (await agent.clear(older_than_days=0.0))["cleared"] == [view["task_id"]]


async def test_clearing_needs_to_be_told_what(agent: Agent) -> None:
    with pytest.raises(InvalidArgument):
        await agent.clear()


async def test_a_lost_task_whose_processes_live_is_cleared_only_with_cancel(agent: Agent) -> None:
    task_id = await agent.start("echo $PPID; trap '' TERM; sleep 60 & wait")
    view = await agent.poll(task_id, pattern="[0-9]+")
    supervisor = psutil.Process(int(view["match"]["text"]))
    [command] = supervisor.children()
    launcher = supervisor.parent()
    assert launcher is not None
    for process in (launcher, supervisor):
        process.kill()
    assert (await agent.ended(task_id))["state"] == "lost"
    assert command.is_running()
    answer = await agent.clear(all_finished=True)
    assert answer["cleared"] == []
    assert "not cleared" in answer["warning"]
    with pytest.raises(TaskNotFinished, match="cancel_task"):
        await agent.clear(task_id)
    assert (await agent.clear(task_id, cancel=True))["cleared"] == [task_id]
    assert not command.is_running() or command.status() == psutil.STATUS_ZOMBIE
