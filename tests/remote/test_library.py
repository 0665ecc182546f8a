from __future__ import annotations

import pytest

from mcp_tasks import TasksError, open_remote_tasks
from tests.http.server_process import TOKEN, HttpServer


async def test_a_program_works_on_a_server_elsewhere_as_it_does_here(server: HttpServer) -> None:
    async with open_remote_tasks(server.where, token=TOKEN, session="far", tell=pytest.fail) as tasks:
        task = await tasks.run(["sh", "-c", r"printf 'a\0b\377'; echo oops >&2; sleep 1; exit 3"], wait_ms=0)
        done = await tasks.wait(task["task_id"])
        assert (done["state"], done["exit_code"], done["session"]) == ("failed", 3, "far")
        assert b"".join([piece async for piece in tasks.output(task["task_id"])]) == b"a\0b\xff"
        assert b"".join([piece async for piece in tasks.output(task["task_id"], "stderr")]) == b"oops\n"
        assert [one["task_id"] for one in (await tasks.list())["tasks"]] == [task["task_id"]]
        with pytest.raises(TasksError) as refused:
            await tasks.poll("0" * 36)
        assert refused.value.code == "task_not_found"
        with pytest.raises(ValueError, match="stdout or stderr"):
            await anext(tasks.output(task["task_id"], "neither"))


async def test_a_program_s_token_is_that_of_the_environment_unless_it_gives_one(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_TASKS_TOKEN", TOKEN)
    async with open_remote_tasks(server.where) as tasks:
        assert (await tasks.list())["tasks"] == []
    async with open_remote_tasks(server.where, token="another-token-that-is-long-enough") as tasks:
        with pytest.raises(TasksError) as refused:
            await tasks.list()
    assert refused.value.code == "policy_denied"
