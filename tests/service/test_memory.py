"""The memory store, and tasks that live in memory because the store cannot be written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mcp_tasks.errors import StoreUnavailable, TaskNotFound
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.memory.temporary import remove_stale_folders
from tests.service.agent import Agent, open_agent


def _left() -> list[str]:
    return os.listdir(tempfile.gettempdir())


async def test_with_the_memory_store_everything_works_and_nothing_is_left(tmp_path: Path) -> None:
    async with open_agent(tmp_path, store="memory") as agent:
        view = await agent.run("echo hi", key="k")
        assert (view["state"], view["stdout"]) == ("completed", "hi\n")
        assert (await agent.run("echo hi", key="k"))["reused"]
        assert (await agent.list())["counts"] == {"completed": 1}
        held = (await agent.info())["in_memory"]
        assert (held["sessions"], held["tasks"], held["evicted"]) == (1, 1, 0)
        assert (await agent.clear(view["task_id"]))["cleared"] == [view["task_id"]]
        assert _left() != []
    assert _left() == []
    assert os.listdir(tmp_path) == []


async def test_with_the_memory_store_commands_end_with_the_server(tmp_path: Path) -> None:
    async with open_agent(tmp_path, store="memory", max_running=1) as agent:
        task_id = await agent.start(
            f"trap 'touch {tmp_path}/told; exit' TERM; echo $$; while :; do sleep 0.01; done"
        )
        pid = int((await agent.poll(task_id, pattern="[0-9]+"))["stdout"])
        await agent.start(f"touch {tmp_path}/pending-ran")
    assert not psutil.pid_exists(pid)
    assert os.listdir(tmp_path) == ["told"]
    assert _left() == []


async def test_an_old_folder_of_a_killed_server_is_removed_and_one_in_use_is_not(
    tmp_path: Path, stale: str, new: str
) -> None:
    async with open_agent(tmp_path, store="memory") as agent:
        await agent.run("true")
        remove_stale_folders()
        assert stale not in _left()
        assert new in _left()
        assert (await agent.run("echo still here"))["stdout"] == "still here\n"


@pytest.fixture
def stale() -> str:
    """What a killed server has left."""
    folder = Path(tempfile.gettempdir(), "mcp-tasks-memory-stale")
    (folder / "sessions" / "x").mkdir(parents=True)
    (folder / "lock").touch()
    return folder.name


@pytest.fixture
def new() -> Iterator[str]:
    """What a server has made a moment ago and not locked yet."""
    folder = Path(tempfile.gettempdir(), "mcp-tasks-memory-new")
    folder.mkdir()
    yield folder.name
    folder.rmdir()


# -- the store cannot be written -------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A full disk. Undo this patch, and it is well again."""
    _break(monkeypatch, tmp_path)
    return monkeypatch


async def test_when_the_store_cannot_be_written_the_command_runs_and_the_answer_says_what_that_means(
    agent: Agent, broken: pytest.MonkeyPatch
) -> None:
    view = await agent.run("echo ran anyway")
    assert (view["state"], view["stdout"]) == ("completed", "ran anyway\n")
    assert "not durable" in view["warning"]
    assert "not durable" in (await agent.result(view["task_id"]))["warning"]
    assert [task["task_id"] for task in (await agent.list())["tasks"]] == [view["task_id"]]

    broken.undo()
    durable_one = await agent.run("echo well again")
    assert "warning" not in durable_one
    assert {task["task_id"] for task in (await agent.list())["tasks"]} == {
        view["task_id"],
        durable_one["task_id"],
    }
    assert (await agent.clear(all_finished=True))["freed_bytes"] > 0
    with pytest.raises(TaskNotFound):
        await agent.poll(view["task_id"])


async def test_a_task_that_is_not_durable_is_waited_for_cancelled_and_found_by_key(
    agent: Agent, broken: pytest.MonkeyPatch
) -> None:
    task_id = await agent.start("echo up; sleep 60", key="k")
    assert (await agent.poll(task_id, pattern="up"))["state"] == "running"
    assert (await agent.run("echo up; sleep 60", key="k", wait_ms=0))["task_id"] == task_id
    assert (await agent.cancel(task_id))["state"] == "cancelled"


async def test_tasks_that_are_not_durable_end_with_the_server(
    tmp_path: Path, broken: pytest.MonkeyPatch
) -> None:
    broken.undo()
    async with open_agent(tmp_path / "state") as agent:
        await agent.run("true")
        _break(broken, tmp_path)
        task_id = await agent.start("echo $$; sleep 60")
        pid = int((await agent.poll(task_id, pattern="[0-9]+"))["stdout"])
        broken.undo()
    assert not psutil.pid_exists(pid)
    assert _left() == []
    async with open_agent(tmp_path / "state") as agent:
        assert (await agent.list())["counts"] == {"completed": 1}


async def test_when_nothing_can_be_kept_anywhere_the_store_is_unavailable_and_nothing_runs(
    agent: Agent, broken: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nowhere(prefix: str) -> str:
        raise OSError(28, os.strerror(28))

    broken.setattr(tempfile, "mkdtemp", nowhere)
    with pytest.raises(StoreUnavailable):
        await agent.run(f"touch {tmp_path}/ran")
    broken.undo()
    assert (await agent.run("true"))["state"] == "completed"
    assert not (tmp_path / "ran").exists()
    assert (await agent.list())["counts"] == {"completed": 1}


async def test_what_would_have_to_wait_is_refused_when_the_store_cannot_be_written(
    narrow: Agent, tmp_path: Path, broken: pytest.MonkeyPatch
) -> None:
    broken.undo()
    blocker = await narrow.start("sleep 60")
    _break(broken, tmp_path)
    with pytest.raises(StoreUnavailable):
        await narrow.run(f"touch {tmp_path}/ran")
    broken.undo()
    await narrow.cancel(blocker)
    assert (await narrow.list())["counts"] == {"cancelled": 1}
    assert not (tmp_path / "ran").exists()


def _break(patch: pytest.MonkeyPatch, place: Path) -> None:
    real = durable._write_temporary

    def full(folder: str, name: str, data: bytes) -> str:
        if folder.startswith(str(place)):
            raise OSError(28, os.strerror(28))
        return real(folder, name, data)

    patch.setattr(durable, "_write_temporary", full)
