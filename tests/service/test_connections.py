"""Who is attached to a session, who was, and how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from mcp_tasks.connection import Connection, connect, serve_command, surroundings
from mcp_tasks.service import Client
from mcp_tasks.service.sessions.connections import Attendance
from tests.service.agent import Agent, open_agent
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


def _attended(agent: Agent, attendance: Attendance, client: Client) -> Agent:
    return agent._as(served_in=lambda key: attendance.saw(key, client))


async def _connections(agent: Agent, count: int) -> list[dict[str, str]]:
    async def there() -> list[dict[str, str]] | None:
        found: list[dict[str, str]] = (await agent.info()).get("connections", [])
        return found if len(found) == count else None

    found = await eventually(there, f"{count} connections are known")
    assert found is not None
    return found


async def test_a_client_is_known_from_its_first_call_and_seen_to_go(agent: Agent) -> None:
    attendance = agent.service.attend("stdio")
    guest = _attended(agent, attendance, Client("editor", "1.2"))
    await guest.list()  # the session is not there yet, and reading makes none
    await guest.run("true")
    await guest.run("true")
    [connection] = await _connections(agent, 1)
    assert (connection["client"], connection["version"], connection["transport"]) == (
        "editor",
        "1.2",
        "stdio",
    )
    assert "ended" not in connection
    await anyio.to_thread.run_sync(attendance.close)
    [connection] = await _connections(agent, 1)
    assert connection["ended"] == "closed"
    assert connection["ended_at"] >= connection["began_at"]


async def test_each_session_knows_who_worked_in_it(agent: Agent) -> None:
    first, second = agent.service.attend("stdio"), agent.service.attend("stdio")
    await _attended(agent.of("a"), first, Client("one", "1")).run("true")
    await _attended(agent.of("b"), first, Client("one", "1")).run("true")
    await _attended(agent.of("b"), second, Client("two", "2")).run("true")
    assert [c["client"] for c in await _connections(agent.of("a"), 1)] == ["one"]
    assert {c["client"] for c in await _connections(agent.of("b"), 2)} == {"one", "two"}
    for attendance in (first, second):
        await anyio.to_thread.run_sync(attendance.close)


async def test_a_client_with_a_long_name_or_many_sessions_does_not_fill_the_store(agent: Agent) -> None:
    attendance = agent.service.attend("stdio")
    for number in range(105):
        await agent.of(f"s{number}").update(title="x")
        attendance.saw(agent.of(f"s{number}").caller.session_key, Client("n" * 10_000, "v" * 10_000))
    assert len(attendance._open) == 100
    [connection] = await _connections(agent.of("s0"), 1)
    assert len(connection["client"]) == 200
    await anyio.to_thread.run_sync(attendance.close)


async def test_a_client_that_is_seen_again_is_noted_once_a_minute(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    attendance = agent.service.attend("stdio")
    await agent.run("true")
    key, client = agent.caller.session_key, Client("editor", "1")
    attendance.saw(key, client)
    [first] = await _connections(agent, 1)
    clock = agent.service._desk.clock
    later = clock.now_ms() + 61_000
    monkeypatch.setattr(clock, "now_ms", lambda: later)
    attendance.saw(key, client)

    async def seen_again() -> bool:
        [connection] = await _connections(agent, 1)
        return connection["seen_at"] > first["seen_at"] and connection["began_at"] == first["began_at"]

    await eventually(seen_again, "the client was seen again")
    await anyio.to_thread.run_sync(attendance.close)


_CLIENT = """
import sys
from pathlib import Path
import anyio
from mcp_tasks.service import Client
from tests.service.agent import open_agent

async def main():
    async with open_agent(Path(sys.argv[1])) as agent:
        attendance = agent.service.attend("stdio")
        await agent.update(title="x")
        attendance.saw(agent.caller.session_key, Client("doomed", "1"))
        agent.service._desk.records.finish()
        print("ready", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def _doomed(state: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _CLIENT, str(state)], stdout=subprocess.PIPE)


async def test_the_connections_of_a_server_that_was_killed_are_lost(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with _doomed(state) as process:
        assert process.stdout is not None
        assert await anyio.to_thread.run_sync(process.stdout.readline) == b"ready\n"
        async with open_agent(state) as agent:
            [connection] = await _connections(agent, 1)
            assert "ended" not in connection
            process.kill()
            await anyio.to_thread.run_sync(process.wait)

            async def swept() -> bool:
                found = agent.service._desk.journal.connections(agent.caller.owner)
                return found[0].ended == "lost" and list((state / "servers").iterdir()) == []

            await eventually(swept, "the sweep has found the lost connection")
            [connection] = await _connections(agent, 1)
            assert (connection["client"], connection["ended"]) == ("doomed", "lost")


async def _told(connection: Connection) -> dict[str, str]:
    """The connection as the client itself is told of it."""

    async def known() -> dict[str, str] | None:
        found = (await connection.call("session_info")).get("connections", [])
        return found[0] if found else None

    told = await eventually(known, "the connection is known")
    assert told is not None
    return told


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_real_client_over_stdio_is_known_until_it_closes(tmp_path: Path, mode: str) -> None:
    state = tmp_path / "state"
    around = {**surroundings(tmp_path), "MCP_TASKS_MIN_FREE_BYTES": "0"}
    async with connect(serve_command(state, "--tools", "full"), around, mode=mode) as connection:
        await connection.call("run_command", command="true", wait_ms=20_000)
        told = await _told(connection)
        assert told["client"]
        assert told["transport"] == "stdio"
        assert "ended" not in told
    async with open_agent(state) as agent:

        async def ended() -> bool:
            return (await _connections(agent, 1))[0].get("ended") == "closed"

        await eventually(ended, "the end of the connection is known")


async def test_a_real_server_that_is_killed_leaves_a_lost_connection(tmp_path: Path) -> None:
    state = tmp_path / "state"
    around = {**surroundings(tmp_path), "MCP_TASKS_MIN_FREE_BYTES": "0"}
    async with connect(serve_command(state, "--tools", "full"), around) as connection:
        await connection.call("update_session", title="x")
        await _told(connection)
        os.kill(connection.pid, signal.SIGKILL)
    async with open_agent(state) as agent:
        [told] = await _connections(agent, 1)
        assert told["ended"] == "lost"
