"""send_input: text, end of file and signals for a running command."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_tasks.errors import InvalidArgument, LimitReached, NotSupported
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually


async def test_an_answer_to_the_input_is_in_the_view(agent: Agent) -> None:
    task_id = await agent.start("echo hello; cat", interactive=True)
    await agent.poll(task_id, pattern="hello")
    view = await agent.send(task_id, "ping\n", pattern="ping")
    assert (view["wait_result"], view["stdout"], view["state"]) == ("matched", "ping\n", "running")
    view = await agent.send(task_id, "pong", enter=True)
    assert (view["wait_result"], view["stdout"]) == ("idle", "pong\n")
    view = await agent.send(task_id, eof=True)
    assert (view["state"], view["wait_result"]) == ("completed", "exited")


async def test_input_works_after_the_server_was_restarted(tmp_path: Path) -> None:
    async with open_agent(tmp_path) as agent:
        task_id = await agent.start("cat; echo closed", interactive=True)
    async with open_agent(tmp_path) as agent:
        view = await agent.send(task_id, "over the gap\n", eof=True, until="exit")
        assert (view["state"], view["stdout"]) == ("completed", "over the gap\nclosed\n")


async def test_a_long_text_arrives_whole(agent: Agent) -> None:
    task_id = await agent.start("wc -c", interactive=True)
    view = await agent.send(task_id, "x" * 1_000_000, eof=True, until="exit")
    assert view["stdout"].strip() == "1000000"


async def test_a_signal_reaches_the_command_and_is_no_cancel(agent: Agent) -> None:
    task_id = await agent.start("trap 'echo hup' HUP; echo up; while :; do sleep 0.01; done")
    await agent.poll(task_id, pattern="up")
    view = await agent.send(task_id, signal="SIGHUP", pattern="hup")
    assert (view["state"], view["stdout"]) == ("running", "hup\n")
    view = await agent.send(task_id, signal="SIGKILL", until="exit")
    assert (view["state"], view["outcome"], view["signal"]) == ("failed", "signalled", "SIGKILL")


async def test_a_task_that_is_not_interactive_takes_only_signals(agent: Agent) -> None:
    task_id = await agent.start("sleep 60")
    await agent.poll(task_id, wait_ms=1)
    with pytest.raises(NotSupported, match="interactive"):
        await agent.send(task_id, "text")
    with pytest.raises(NotSupported, match="interactive"):
        await agent.send(task_id, eof=True)
    assert (await agent.send(task_id, signal="SIGTERM", until="exit"))["signal"] == "SIGTERM"


async def test_input_that_nobody_reads_any_more_is_refused(agent: Agent) -> None:
    task_id = await agent.start("exec 0<&-; echo closed; sleep 60", interactive=True)
    await agent.poll(task_id, pattern="closed")

    async def refused() -> bool:
        try:
            await agent.send(task_id, "x", wait_ms=0)
        except InvalidArgument as error:
            return "closed" in error.message
        return False

    await eventually(refused, "input to a closed stdin is refused")
    await agent.cancel(task_id)


async def test_input_after_end_of_file_is_refused(agent: Agent) -> None:
    task_id = await agent.start("cat; echo over; sleep 60", interactive=True)
    await agent.send(task_id, eof=True, pattern="over")
    with pytest.raises(InvalidArgument, match="closed"):
        await agent.send(task_id, "more")
    await agent.cancel(task_id)


async def test_a_finished_task_takes_nothing(agent: Agent) -> None:
    view = await agent.run("true", interactive=True)
    with pytest.raises(InvalidArgument, match="over"):
        await agent.send(view["task_id"], "x")


async def test_a_pending_task_takes_nothing_yet(narrow: Agent) -> None:
    blocker = await narrow.start("sleep 60")
    waiting = await narrow.start("cat", interactive=True)
    with pytest.raises(InvalidArgument, match="pending"):
        await narrow.send(waiting, "x")
    await narrow.cancel(task_ids=(blocker, waiting))


async def test_a_command_that_does_not_read_takes_what_fits_and_the_rest_is_refused(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_tasks.service.tasks.conversing._WAIT_MS", 200)
    task_id = await agent.start("sleep 60", interactive=True)
    with pytest.raises(LimitReached, match="of 3000000 bytes"):
        await agent.send(task_id, "x" * 3_000_000)
    await agent.cancel(task_id)


async def test_secret_input_is_in_no_file_but_what_the_command_prints(agent: Agent, tmp_path: Path) -> None:
    task_id = await agent.start("read word; echo ${#word}", interactive=True)
    view = await agent.send(task_id, "open-sesame", enter=True, secret=True, until="exit")
    assert view["stdout"] == "11\n"
    for path in (tmp_path / "state").rglob("*"):
        assert not path.is_file() or b"open-sesame" not in path.read_bytes(), path
