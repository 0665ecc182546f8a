from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from tests.campaigns.rig import end, server
from tests.hooks.receiver import Receiver
from tests.hooks.test_restarts import key_of, nobody_left

pytestmark = pytest.mark.anyio


def holds(path: Path) -> bool:
    with suppress(FileNotFoundError):  # it has been told since
        return path.is_file() and b"h1dden" in path.read_bytes()
    return False


@pytest.mark.parametrize("store", ["json", "sqlite"])
async def test_no_url_and_no_command_of_a_hook_is_in_any_file_or_answer(
    tmp_path: Path, receiver: Receiver, store: str
) -> None:
    state, env = tmp_path / "state", {**key_of(tmp_path), "MCP_TASKS_HOOK_SECRET": "h1dden-signing-key"}
    hooks = [
        {"webhook": f"{receiver.url}/h1dden-path?h1dden=query"},
        {"command": "true h1dden-word"},
        {"command": ["true", "h1dden-argument"]},
        '{"webhook": "http://user:h1dden@127.0.0.1:9/h1dden", "nothing": 1}',
    ]
    async with server(state, "--store", store, "--tools", "full", env=env) as connection:
        answers = [
            await connection.call("update_session", hooks=hooks[:3]),
            await connection.call("run_command", command="true", hooks=hooks[:3]),
            await connection.call("run_command", command="true", hooks=json.dumps(hooks[:2])),
        ]
        for wrong in (hooks, hooks[3], "http://127.0.0.1/h1dden", [["h1dden"]]):
            with pytest.raises(Exception, match=r"hooks") as refused:
                await connection.call("run_command", command="true", hooks=wrong)
            answers.append({"refused": str(refused.value)})
        await receiver.has(4)
        answers += [
            await connection.call("session_info"),
            await connection.call("read_journal", limit=100),
            await connection.call("export_session", format="json"),
        ]
        assert "h1dden" not in json.dumps(answers)
        found = [path for path in state.rglob("*") if holds(path)]
        await end(connection, "terminate")
    assert found == []
    await nobody_left(tmp_path)
    assert [path for path in (*state.rglob("*"), tmp_path / "servers.log") if holds(path)] == []
