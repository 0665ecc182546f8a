from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.errors import NotSupported
from mcp_tasks.hooks import TaskHooks
from mcp_tasks.hooks.pace import Pace
from tests.hooks.receiver import Receiver, open_receiver
from tests.hooks.test_telling_of_tasks import is_empty, told_in_journal
from tests.leaks import processes_of
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

QUICK = Pace(first_ms=40, longest_ms=200, give_up_ms=60_000, programs=3, command_s=0.5, notify_s=5.0)


def sleeping(folder: Path) -> list[int]:
    found = []
    for pid in processes_of(folder):
        with suppress(OSError):
            found += [pid] if b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes() else []
    return found


def pace_of(agent: Agent, pace: Pace) -> None:
    hooks = agent.service._desk.hooks
    assert isinstance(hooks, TaskHooks)
    hooks._pace = pace


@pytest.fixture
async def quick(tmp_path: Path) -> AsyncIterator[Agent]:
    """A server that tries again soon, and gives up soon; in memory, where no steward keeps another pace."""
    async with open_agent(tmp_path / "state", store="memory") as agent:
        pace_of(agent, QUICK)
        yield agent
        await agent.end_everything()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def events(agent: Agent) -> Sequence[tuple[Any, ...]]:
    await is_empty(agent)
    return [(entry["event"], entry["attempts"], entry["text"]) for entry in told_in_journal(agent)]


async def test_a_webhook_that_fails_is_called_again_under_the_same_id_with_the_same_body(
    quick: Agent, receiver: Receiver
) -> None:
    receiver.statuses = [500, 404, 301]
    await quick.run("true", hooks=[{"webhook": receiver.url}])
    got = await receiver.has(4)
    assert len({(one.message_id, one.body) for one in got}) == 1
    assert await events(quick) == [
        ("hook_failed", 1, "webhook for end could not be told: HTTP 500, and is tried again"),
        ("hook_told", 4, "webhook for end was told after 4 attempts"),
    ]


async def test_a_redirect_is_not_followed(quick: Agent, receiver: Receiver) -> None:
    with open_receiver() as other:
        receiver.statuses, receiver.headers = [307], {"location": other.url}
        await quick.run("true", hooks=[{"webhook": receiver.url}])
        await receiver.has(2)
        await is_empty(quick)
        assert other.got == []


async def test_a_receiver_that_wants_no_more_is_not_called_again(quick: Agent, receiver: Receiver) -> None:
    receiver.statuses = [410]
    await quick.run("true", hooks=[{"webhook": receiver.url}])
    assert await events(quick) == [
        ("hook_failed", 1, "webhook for end could not be told: HTTP 410, and is given up")
    ]
    assert len(receiver.got) == 1


async def test_a_receiver_that_says_when_to_come_again_is_left_alone_until_then(
    quick: Agent, receiver: Receiver
) -> None:
    receiver.statuses, receiver.headers = [503], {"retry-after": "1"}
    await quick.run("true", hooks=[{"webhook": receiver.url}])
    first, second = await receiver.has(2)
    apart = int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"])
    assert apart >= 1
    await is_empty(quick)


async def test_where_nobody_listens_it_is_told_once_somebody_does(quick: Agent) -> None:
    port = free_port()
    view = await quick.run("true", hooks=[{"webhook": f"http://127.0.0.1:{port}/"}])

    async def failed() -> bool:
        return bool(told_in_journal(quick))

    await eventually(failed, "the first attempt has failed")
    with open_receiver(port) as receiver:
        [got] = await receiver.has()
        assert got.told["data"]["task_id"] == view["task_id"]
        await is_empty(quick)
    first, *_ = await events(quick)
    assert "ConnectError" in first[2]
    assert str(port) not in first[2]


async def test_a_webhook_is_given_up_in_the_end_and_the_journal_says_so(quick: Agent) -> None:
    pace_of(quick, Pace(first_ms=50, longest_ms=400, give_up_ms=2_000, at_least=1))
    await quick.run("true", hooks=[{"webhook": f"http://127.0.0.1:{free_port()}/"}])
    *_, (event, attempts, text) = await events(quick)
    assert (event, attempts > 1) == ("hook_failed", True)
    assert text.endswith(f"after {attempts} attempts, and is given up")


async def test_a_webhook_is_tried_a_few_times_however_long_the_machine_was_off(
    quick: Agent, receiver: Receiver
) -> None:
    pace_of(quick, Pace(first_ms=10, longest_ms=20, give_up_ms=0, at_least=4))
    receiver.statuses = [503, 503, 503, 503, 503]
    await quick.run("true", hooks=[{"webhook": receiver.url}])
    *_, (event, attempts, _) = await events(quick)
    assert (event, attempts, len(receiver.got)) == ("hook_failed", 4, 4)


async def test_a_command_that_fails_is_run_again_a_few_times(quick: Agent, tmp_path: Path) -> None:
    count = tmp_path / "count"
    await quick.run("true", hooks=[{"command": f"echo x >> {count}; test $(wc -l < {count}) = 2"}])
    assert [event[:2] for event in await events(quick)] == [("hook_failed", 1), ("hook_told", 2)]
    await quick.run("true", hooks=[{"command": "exit 7"}])
    last = (await events(quick))[-1]
    assert last == (
        "hook_failed",
        3,
        "command for end could not be told: exit code 7 after 3 attempts, and is given up",
    )


async def test_a_command_that_cannot_be_started_is_given_up(quick: Agent, tmp_path: Path) -> None:
    await quick.run("true", hooks=[{"command": [str(tmp_path / "none")]}])
    *_, (event, attempts, text) = await events(quick)
    assert (event, attempts) == ("hook_failed", 3)
    assert "it could not be started (No such file or directory)" in text


async def test_a_command_that_hangs_is_killed_with_all_that_it_started(quick: Agent, tmp_path: Path) -> None:
    pace_of(quick, Pace(first_ms=40, programs=1, command_s=0.5))
    hook = f"cd {tmp_path}; setsid sleep 1000 & sleep 1000 & exec sleep 1000"
    await quick.run("true", hooks=[{"command": hook}])
    *_, (event, _, text) = await events(quick)
    assert (event, "not over within 0.5 s" in text) == ("hook_failed", True)

    async def gone() -> bool:
        return not sleeping(tmp_path)

    await eventually(gone, "nothing of the hook lives")


async def test_a_command_that_does_not_read_what_it_is_given_is_no_failure(quick: Agent) -> None:
    await quick.run("true " + "x" * 900, hooks=[{"command": "exec <&-; exit 0"}])
    assert [event[0] for event in await events(quick)] == ["hook_told"]


async def test_commands_of_hooks_inherit_no_secret_of_the_server_and_count_for_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TOKEN", "KEY", "SHARE", "HOOK_SECRET", "TASK"):
        monkeypatch.setenv(f"MCP_TASKS_{name}", "a secret that is long enough")
    monkeypatch.delenv("MCP_TASKS_SHARE")
    async with open_agent(tmp_path / "state") as agent:
        await agent.run("true", hooks=[{"command": f"env > {tmp_path / 'env'}"}])
        await is_empty(agent)
    told = (tmp_path / "env").read_text()
    assert "MCP_TASK_EVENT=end" in told
    assert "MCP_TASKS_" not in told.replace("MCP_TASKS_DIR", "")


async def test_where_the_folder_of_the_task_is_gone_its_hook_runs_at_home(
    quick: Agent, tmp_path: Path
) -> None:
    folder, said = tmp_path / "folder", tmp_path / "said"
    folder.mkdir()
    await quick.run("rmdir $PWD", cwd=str(folder), hooks=[{"command": f"pwd > {said}"}])
    await is_empty(quick)
    assert said.read_text().strip() == str(Path.home().resolve())


async def test_a_notification_is_shown_by_the_program_for_it(
    quick: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tmp_path / "shown"
    program = tmp_path / "bin" / "notify-send"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nfor word; do echo "$word"; done > {shown}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    view = await quick.run("exit 2", label="nightly", hooks=[{"desktop": True}])
    assert [event[0] for event in await events(quick)] == ["hook_told"]
    *_, title, detail = shown.read_text().splitlines()
    assert title == "nightly failed"
    assert detail == f"exit code 2, task {view['task_id']}"


async def test_where_the_program_for_notifications_has_gone_it_is_given_up_at_once(
    quick: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "notify-send"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    await quick.run(f"rm {program}", hooks=[{"desktop": True}])
    assert [event[:2] for event in await events(quick)] == [("hook_failed", 1)]


async def test_where_there_is_no_desktop_a_notification_is_refused_at_once(
    quick: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotSupported, match=r"hooks\[1\]"):
        await quick.run("true", hooks=[{"desktop": True}])
    assert (await quick.list())["tasks"] == []


async def test_while_the_key_is_away_it_waits_and_is_told_when_it_is_back(
    tmp_path: Path, receiver: Receiver
) -> None:
    key = tmp_path / "key"
    async with open_agent(tmp_path / "state", key_file=key) as agent:
        pace_of(agent, QUICK)
        task_id = await agent.start("read x", interactive=True, hooks=[{"webhook": receiver.url}])
        key.rename(tmp_path / "away")
        await agent.send(task_id, eof=True, wait_ms=0)
        await agent.ended(task_id)

        async def failed() -> bool:
            return bool(told_in_journal(agent))

        await eventually(failed, "the first attempt has failed")
        assert receiver.got == []
        (tmp_path / "away").rename(key)
        await receiver.has()
        await is_empty(agent)
