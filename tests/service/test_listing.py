"""list_tasks, get_result and the isolation of sessions."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from mcp_tasks.errors import InvalidArgument, TaskNotFound
from tests.service.agent import Agent, open_agent

RECORD = {
    *("task_id", "session", "state", "outcome", "exit_code", "elapsed_ms", "stdout_bytes", "stderr_bytes"),
    *("next_cursor", "command", "cwd", "created_at", "started_at", "ended_at"),
}


async def test_the_newest_comes_first_without_output(agent: Agent, tmp_path: Path) -> None:
    first = await agent.run("echo one", label="l", cwd=str(tmp_path))
    second = await agent.run("true")
    answer = await agent.list()
    assert [task["task_id"] for task in answer["tasks"]] == [second["task_id"], first["task_id"]]
    newest, oldest = answer["tasks"]
    assert set(newest) == RECORD
    assert set(oldest) == RECORD | {"label", "last_output_at"}
    assert (oldest["command"], oldest["cwd"], oldest["label"]) == ("echo one", str(tmp_path), "l")
    assert answer["counts"] == {"completed": 2}
    assert "next_cursor" not in answer


async def test_pages_follow_each_other_and_new_tasks_do_not_shift_them(agent: Agent) -> None:
    ids = [(await agent.run("true"))["task_id"] for _ in range(7)]
    seen: list[str] = []
    page = await agent.list(limit=3)
    while True:
        seen += [task["task_id"] for task in page["tasks"]]
        if "next_cursor" not in page:
            break
        await agent.run("true")
        page = await agent.list(limit=3, cursor=page["next_cursor"])
    assert seen == ids[::-1]


async def test_a_cursor_of_another_kind_is_refused(agent: Agent) -> None:
    with pytest.raises(InvalidArgument, match="cursor"):
        await agent.list(cursor="1-0-0")


async def test_tasks_are_found_by_state_label_and_directory(narrow: Agent, tmp_path: Path) -> None:
    done = (await narrow.run("true", label="a"))["task_id"]
    failed = (await narrow.run("false", cwd=str(tmp_path)))["task_id"]
    running = await narrow.start("sleep 60", label="a")
    pending = await narrow.start("true", label="b")

    async def ids(**options: str) -> set[str]:
        return {task["task_id"] for task in (await narrow.list(**options))["tasks"]}

    assert await ids() == {done, failed, running, pending}
    assert await ids(state="active") == {running, pending}
    assert await ids(state="running") == {running}
    assert await ids(state="pending") == {pending}
    assert await ids(state="failed") == {failed}
    assert await ids(label="a") == {done, running}
    assert await ids(label="a", state="active") == {running}
    assert await ids(cwd=str(tmp_path)) == {failed}
    answer = await narrow.list(state="failed")
    assert answer["counts"] == {"completed": 1, "failed": 1, "running": 1, "pending": 1}
    await narrow.cancel(task_ids=(running, pending))


async def test_the_record_has_the_moments_in_order_and_the_whole_history(agent: Agent) -> None:
    view = await agent.run("echo a; exit 2", label="l")
    record = await agent.result(view["task_id"])
    moments = [record[name] for name in ("created_at", "started_at", "last_output_at", "ended_at")]
    assert all(moment.endswith("Z") and len(moment) == 24 for moment in moments)
    assert record["created_at"] <= record["started_at"] <= record["ended_at"]
    assert [entry["state"] for entry in record["history"]] == ["pending", "running", "failed"]
    assert record["history"][-1]["reason"] == "exit code 2"
    assert (record["command"], record["label"]) == ("echo a; exit 2", "l")


async def test_a_result_before_the_end_is_the_view_as_it_is(agent: Agent) -> None:
    task_id = await agent.start("echo so far; sleep 60")
    await agent.poll(task_id, pattern="so far")
    record = await agent.result(task_id)
    assert (record["state"], record["stdout"]) == ("running", "so far\n")
    assert "ended_at" not in record
    await agent.cancel(task_id)


async def test_every_byte_comes_back_page_by_page(agent: Agent) -> None:
    view = await agent.run("head -c 600000 /dev/urandom | tee /dev/stderr", wait_ms=20_000)
    collected = {"stdout": b"", "stderr": b""}
    for stream in collected:
        offset = 0
        while True:
            page = await agent.result(
                view["task_id"], stream=stream, offset=offset, limit=262_144, encoding="base64"
            )
            data = base64.b64decode(page.get(stream, ""))
            collected[stream] += data
            offset += len(data)
            if not page.get("more"):
                break
    assert len(collected["stdout"]) == 600_000
    assert collected["stdout"] == collected["stderr"]


async def test_lines_and_ranges_and_cursors_read_parts(agent: Agent) -> None:
    task_id = (await agent.run("seq 1 1000; echo e >&2"))["task_id"]
    assert (await agent.result(task_id, head_lines=2, stream="stdout"))["stdout"] == "1\n2\n"
    assert (await agent.result(task_id, tail_lines=2, stream="stdout"))["stdout"] == "999\n1000\n"
    page = await agent.result(task_id, stream="stdout", offset=2, limit=4)
    assert (page["stdout"], page["shown"], page["more"]) == ("2\n3\n", {"stdout": [2, 6]}, True)
    assert "stderr" not in page
    rest = await agent.result(task_id, cursor=page["next_cursor"], limit=8)
    assert rest["stdout"].startswith("4\n5\n")
    with pytest.raises(InvalidArgument, match="base64"):
        await agent.result(task_id, head_lines=2, encoding="base64")


async def test_a_long_result_shows_head_and_tail_and_says_what_is_left_out(agent: Agent) -> None:
    view = await agent.run("seq 1 100000")
    record = await agent.result(view["task_id"])
    assert record["stdout"].startswith("1\n2\n")
    assert record["stdout"].endswith("99999\n100000\n")
    assert record["truncated"]
    start, end = record["gap"]["stdout"]
    assert end - start == record["omitted_bytes"]
    assert record["shown"]["stdout"] == [0, record["stdout_bytes"]]


async def test_show_none_says_how_much_there_is(agent: Agent) -> None:
    view = await agent.run("echo hidden", show="none")
    assert "stdout" not in view
    assert (view["stdout_bytes"], view["more"]) == (7, True)
    assert (await agent.poll(view["task_id"], cursor=view["next_cursor"]))["stdout"] == "hidden\n"


async def test_reading_with_cursors_shows_every_byte_once(agent: Agent) -> None:
    view = await agent.run("seq 1 20000; seq 1 3000 >&2", show="none")
    out, err, cursor = "", "", view["next_cursor"]
    while True:
        page = await agent.poll(view["task_id"], cursor=cursor, max_bytes=5_000)
        out, err = out + page.get("stdout", ""), err + page.get("stderr", "")
        cursor = page["next_cursor"]
        if not page.get("more"):
            break
    assert out == "".join(f"{n}\n" for n in range(1, 20_001))
    assert err == "".join(f"{n}\n" for n in range(1, 3_001))


async def test_a_lost_answer_loses_no_output(agent: Agent) -> None:
    view = await agent.run("echo once", show="none")
    first = await agent.poll(view["task_id"], cursor=view["next_cursor"])
    second = await agent.poll(view["task_id"], cursor=view["next_cursor"])
    assert first["stdout"] == second["stdout"] == "once\n"


# -- sessions --------------------------------------------------------------------------------------


async def test_a_named_session_sees_only_its_own_tasks_in_the_same_words(agent: Agent) -> None:
    task_id = (await agent.of("mine").run("true"))["task_id"]
    said = set()
    for other in (agent.of("theirs"), agent.of("mine", owner="somebody-else"), agent.of("never-used")):
        for call in (other.poll, other.result, other.cancel, other.clear):
            with pytest.raises(TaskNotFound) as refused:
                await call(task_id)
            said.add(str(refused.value))
        with pytest.raises(TaskNotFound):
            await other.send(task_id, "x")
        with pytest.raises(TaskNotFound):
            await other.wait(task_id)
        with pytest.raises(TaskNotFound):
            await other.search("x", task_id=task_id)
        assert (await other.list())["tasks"] == []
    with pytest.raises(TaskNotFound) as refused:
        await agent.of("mine").poll("0" * 36)
    said.add(str(refused.value).replace("0" * 36, task_id))
    assert len(said) == 1


async def test_where_nobody_names_a_session_an_id_is_found_in_any(agent: Agent) -> None:
    task_id = (await agent.of("mine").run("echo there"))["task_id"]
    assert (await agent.poll(task_id))["session"] == "mine"
    assert (await agent.result(task_id))["stdout"] == "there\n"
    assert (await agent.list())["tasks"] == []
    with pytest.raises(TaskNotFound):
        await agent.of("default", owner="somebody-else", named=False).poll(task_id)


async def test_reading_makes_no_session(agent: Agent, tmp_path: Path) -> None:
    other = agent.of("never-used")
    assert await other.list() == {"tasks": [], "counts": {}}
    assert (await other.search("x"))["matches"] == []
    assert (await other.clear(all_finished=True))["cleared"] == []
    assert list((tmp_path / "state").rglob("*never-used*")) == []


@pytest.mark.parametrize("task_id", ["", "x", "../../../etc/passwd", "0" * 35, "0" * 36 + "\n", "A" * 36])
async def test_what_is_no_id_is_not_found(agent: Agent, task_id: str) -> None:
    with pytest.raises(TaskNotFound):
        await agent.poll(task_id)


async def test_tasks_are_listed_in_the_order_of_their_start_though_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_agent(tmp_path) as agent:
        first = (await agent.run("true"))["task_id"]
        monkeypatch.setattr("mcp_tasks.clock.Clock.now_ms", lambda self: 1_000_000)
        second = (await agent.run("true"))["task_id"]
        third = await agent.run("sleep 0.05")
        assert third["elapsed_ms"] >= 50
        listed = [task["task_id"] for task in (await agent.list())["tasks"]]
        assert listed == [third["task_id"], second, first]
