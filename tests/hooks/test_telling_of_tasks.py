from __future__ import annotations

import base64
import errno
import hashlib
import hmac
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.errors import InvalidArgument, KeyConflict, NotSupported, PolicyDenied, StoreUnavailable
from mcp_tasks.hooks import TaskHooks
from mcp_tasks.hooks.armed import Armed
from mcp_tasks.requests import PlanStep, RunPlan
from mcp_tasks.stores.disk import durable
from tests.hooks.receiver import Receiver, open_receiver
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


def told_in_journal(agent: Agent) -> Sequence[dict[str, Any]]:
    journal = agent.service._desk.journal
    journal.flush()
    entries = journal.read(agent.caller.session_key, role="event", limit=1_000)
    return [
        {**entry.data, "text": entry.text, "task_id": entry.task_id}
        for entry in entries
        if str(entry.data.get("event", "")).startswith("hook_")
    ]


async def is_empty(agent: Agent) -> None:
    """Wait until nothing is left in the outbox."""

    async def empty() -> bool:
        return not agent.service._desk.hooks.waiting()

    await eventually(empty, "everything has been told")


async def test_a_webhook_is_told_of_the_end_with_the_view_of_the_task(
    agent: Agent, receiver: Receiver
) -> None:
    view = await agent.run("echo out; exit 3", label="build", hooks=[{"webhook": f"{receiver.url}/here"}])
    [got] = await receiver.has()
    assert got.path == "/here"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"].startswith("msg_")
    assert int(got.headers["webhook-timestamp"]) > 1_600_000_000
    assert got.headers["webhook-signature"].startswith("v1,")
    told = got.told
    assert told["type"] == "task.end"
    data = told["data"]
    assert data["task_id"] == view["task_id"]
    assert (data["state"], data["exit_code"], data["label"]) == ("failed", 3, "build")
    assert data["command"] == "echo out; exit 3"
    assert "stdout" not in data
    await is_empty(agent)
    [entry] = told_in_journal(agent)
    assert entry["event"] == "hook_told"
    assert entry["text"] == "webhook for end was told"
    assert entry["task_id"] == view["task_id"]
    assert entry["message_id"] == got.message_id


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"])
async def test_what_is_told_to_this_machine_goes_through_no_proxy(
    agent: Agent, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with open_receiver() as proxy:
        monkeypatch.setenv(variable, proxy.url)
        for host in ("127.0.0.1", "localhost"):
            url = receiver.url.replace("127.0.0.1", host)
            await agent.run("true", hooks=[{"webhook": f"{url}/{host}"}])
        assert {got.path for got in await receiver.has(2)} == {"/127.0.0.1", "/localhost"}
        await agent.run("true", hooks=[{"webhook": "http://far.example/told"}])
        assert (await proxy.has(1))[0].path == "http://far.example/told"


async def test_a_webhook_is_signed_with_the_secret_of_the_settings(
    tmp_path: Path, receiver: Receiver
) -> None:
    key = b"k" * 24
    secret = f"whsec_{base64.b64encode(key).decode()}"
    async with open_agent(tmp_path / "state", hook_secret=secret) as agent:
        await agent.run("true", hooks=[{"webhook": receiver.url}])
        [got] = await receiver.has()
        await is_empty(agent)
    signed = f"{got.message_id}.{got.headers['webhook-timestamp']}.".encode() + got.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"


async def test_a_command_is_given_what_happened_on_its_stdin_and_in_its_environment(
    agent: Agent, tmp_path: Path
) -> None:
    heard, said = tmp_path / "heard", tmp_path / "said"
    hook = f"cat > {heard}.part; echo $MCP_TASK_EVENT $MCP_TASK_STATE $MCP_TASK_EXIT_CODE $PWD > {said}; "
    hook += f"mv {heard}.part {heard}"
    view = await agent.run("true", cwd=str(tmp_path), hooks=[{"command": hook}])
    await is_empty(agent)
    told = json.loads(heard.read_bytes())
    assert told["data"]["task_id"] == view["task_id"]
    assert said.read_text().split() == ["end", "completed", "0", str(tmp_path)]


async def test_a_command_that_is_a_list_runs_without_a_shell(agent: Agent, tmp_path: Path) -> None:
    await agent.run("true", hooks=[{"command": ["touch", str(tmp_path / "a b;c")]}])
    await is_empty(agent)
    assert (tmp_path / "a b;c").exists()


async def test_silence_is_told_once_for_each_silence(
    agent: Agent, receiver: Receiver, tmp_path: Path
) -> None:
    hook = {"webhook": receiver.url, "idle_ms": 300, "on": ["idle"]}
    task_id = await agent.start("echo one; read x; echo two; read x", interactive=True, hooks=[hook])
    [first] = await receiver.has(1)
    assert first.told["type"] == "task.idle"
    assert first.told["data"]["state"] == "running"
    await agent.send(task_id, "", enter=True, wait_ms=0)
    _, second = await receiver.has(2)
    assert second.message_id != first.message_id
    await agent.send(task_id, "", enter=True, wait_ms=0)
    await agent.ended(task_id)
    await is_empty(agent)
    assert len(receiver.got) == 2


async def test_a_near_deadline_is_told_before_the_time_out_and_then_the_end(
    agent: Agent, receiver: Receiver
) -> None:
    hook = {"webhook": receiver.url, "before_ms": 2_000}
    await agent.run("sleep 60", timeout_ms=2_500, grace_ms=0, hooks=[hook])
    await receiver.has(2)
    near, end = receiver.got
    assert near.told["type"] == "task.deadline"
    assert near.told["data"]["state"] == "running"
    assert end.told["data"]["outcome"] == "timed_out"
    await is_empty(agent)


async def test_hooks_of_a_session_go_for_each_task_and_each_step_of_a_plan(
    agent: Agent, receiver: Receiver
) -> None:
    await agent.update(hooks=[{"webhook": receiver.url}])
    single = await agent.run("true")
    steps = (PlanStep(command="true"), PlanStep(command="exit 4"))
    plan = await agent.service.run_plan(agent.caller, RunPlan(commands=steps, wait_ms=10_000))
    told = {got.told["data"]["task_id"]: got.told["data"]["state"] for got in await receiver.has(3)}
    assert told[single["task_id"]] == "completed"
    assert sorted(told.values()) == ["completed", "completed", "failed"]
    assert plan["state"] == "failed"
    await agent.update(hooks=[])
    await agent.run("true")
    await is_empty(agent)
    assert len(receiver.got) == 3


async def test_a_session_shows_its_hooks_without_what_they_call(agent: Agent) -> None:
    view = await agent.update(
        hooks=[{"webhook": "https://example.org/s3cr3t", "idle_ms": 5}, {"command": "curl s3cr3t"}]
    )
    assert view["hooks"] == [
        {"kind": "webhook", "on": ["end", "idle"], "idle_ms": 5},
        {"kind": "command", "on": ["end"]},
    ]
    assert "s3cr3t" not in json.dumps(await agent.info())


async def test_who_comes_through_a_share_may_not_change_the_hooks_of_a_session(agent: Agent) -> None:
    token = (await agent.update(share="write"))["share"]["token"]
    with pytest.raises(PolicyDenied):
        await agent.with_share(token).update(hooks=[])


async def test_what_is_called_is_nowhere_on_disk_in_clear(tmp_path: Path, receiver: Receiver) -> None:
    async with open_agent(tmp_path / "state", hook_secret="hush-hush-hush") as agent:
        receiver.held.clear()
        hooks = [{"webhook": f"{receiver.url}/s3cr3t-path"}, {"command": "true s3cr3t-word"}]
        await agent.update(hooks=hooks)
        await agent.run("true", hooks=hooks)
        await receiver.has()
        files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
        assert any(path.parent.name == "hooks" for path in files)
        for path in files:
            data = path.read_bytes()
            assert b"s3cr3t" not in data, path
            assert b"hush-hush" not in data, path
            assert path.stat().st_mode & 0o077 == 0, path
        receiver.held.set()
        await is_empty(agent)


async def test_a_task_that_is_cleared_at_its_end_is_told_of_all_the_same(
    agent: Agent, receiver: Receiver
) -> None:
    receiver.held.clear()
    hook = {"webhook": receiver.url, "idle_ms": 50, "on": ["idle", "end"]}
    task_id = await agent.start("sleep 60", hooks=[hook])
    await receiver.has()  # it is being told of the silence while the task ends and is cleared
    await agent.clear(task_id, cancel=True)
    receiver.held.set()
    await receiver.has(2)
    [end] = receiver.of("end")
    assert end.told["data"]["state"] == "cancelled"
    await is_empty(agent)


async def test_a_start_that_is_refused_leaves_nothing_to_be_told(agent: Agent, receiver: Receiver) -> None:
    await agent.run("true", key="once")
    with pytest.raises(KeyConflict):
        await agent.run("true", key="once", hooks=[{"webhook": receiver.url}])
    with pytest.raises(NotSupported):
        await agent.run("true", pty=True, hooks=[{"webhook": receiver.url}])
    assert not agent.service._desk.hooks.waiting()


async def test_the_same_key_and_hooks_are_the_same_task_and_told_once(
    agent: Agent, receiver: Receiver
) -> None:
    hooks = [{"webhook": receiver.url}]
    first = await agent.run("true", key="once", hooks=hooks)
    again = await agent.run("true", key="once", hooks=hooks)
    assert again["task_id"] == first["task_id"]
    await is_empty(agent)
    assert len(receiver.got) == 1


async def test_hooks_work_with_the_memory_store_while_the_server_lives(
    tmp_path: Path, receiver: Receiver
) -> None:
    async with open_agent(tmp_path / "state", store="memory") as agent:
        view = await agent.run("true", hooks=[{"webhook": receiver.url}])
        [got] = await receiver.has()
        assert got.told["data"]["task_id"] == view["task_id"]
        await is_empty(agent)
    # Without that no receiver could check what it is told.
    assert os.listdir(tmp_path / "state") == ["hook_secret"]


@pytest.mark.parametrize(
    "hook",
    [
        {},
        {"webhook": "ftp://example.org"},
        {"webhook": "https://"},
        {"webhook": "https://exa mple.org"},
        {"webhook": "https://example.org:99999"},
        {"webhook": "https://[::1"},
        {"webhook": "https://example.org", "desktop": True},
        {"desktop": True, "idle_ms": 5, "on": ["end"]},
        {"desktop": True, "on": []},
        {"desktop": True, "on": ["start"]},
        {"command": ""},
        {"command": "true", "session": "s"},
        {"webhook": "https://example.org", "before_ms": 1},
        "https://example.org",
    ],
)
async def test_a_hook_that_is_not_well_formed_is_refused_without_being_repeated(
    agent: Agent, hook: object
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await agent.run("true", hooks=[hook])
    assert "exa mple" not in str(refused.value)
    assert (await agent.list())["tasks"] == []


async def test_a_task_that_ended_unseen_has_its_end_in_the_journal_when_it_is_cleared(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The background task that writes ends down is late.
    monkeypatch.setattr("mcp_tasks.keeping._SETTLE_S", 60.0)
    one, *others = [(await agent.run("exit 3"))["task_id"] for _ in range(3)]
    await agent.clear(one)
    assert (await agent.clear(all_finished=True))["cleared"]
    journal = agent.service._desk.journal
    journal.flush()
    entries = journal.read(agent.caller.session_key, role="event", limit=100)
    ends = [str(entry.task_id) for entry in entries if entry.data.get("event") == "task_ended"]
    assert sorted(ends) == sorted([one, *others])


async def test_on_a_full_disk_a_task_that_ended_unseen_is_cleared_all_the_same(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_tasks.keeping._SETTLE_S", 60.0)
    task_id = (await agent.run("true"))["task_id"]

    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(durable, "_write_temporary", full)
        assert (await agent.clear(task_id))["cleared"] == [task_id]
    assert (await agent.list())["tasks"] == []


async def test_a_session_that_is_deleted_is_told_of_all_the_same(agent: Agent, receiver: Receiver) -> None:
    receiver.held.clear()
    hooks = [{"webhook": receiver.url}]
    other = agent.of("other")
    ids = {await other.start("sleep 60", hooks=hooks) for _ in range(3)}
    await other.service.delete_session(other.caller, force=True)
    receiver.held.set()
    told = {got.told["data"]["task_id"]: got.told["data"]["state"] for got in await receiver.has(3)}
    assert told == dict.fromkeys(ids, "cancelled")
    await is_empty(agent)


async def test_what_was_told_on_a_disk_that_is_full_is_not_told_again(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In memory there is no steward, who would tell it once more: he cannot know.
    monkeypatch.setattr("mcp_tasks.hooks.courier._TROUBLE_MS", 100)
    async with open_agent(tmp_path / "state", store="memory") as agent:
        hooks = agent.service._desk.hooks
        assert isinstance(hooks, TaskHooks)
        receiver.held.clear()
        await agent.run("true", hooks=[{"webhook": receiver.url}])
        await receiver.has()
        tries: list[str] = []

        def refuses(armed: Armed) -> None:
            tries.append(armed.key.task_id)
            raise StoreUnavailable("the disk is full")

        with monkeypatch.context() as full:
            full.setattr(hooks._outbox, "write", refuses)
            receiver.held.set()

            async def several() -> bool:
                return len(tries) >= 4

            await eventually(several, "it was tried to write it down several times")
        await is_empty(agent)
        assert len(receiver.got) == 1
        assert [entry["event"] for entry in told_in_journal(agent)] == ["hook_told"]
