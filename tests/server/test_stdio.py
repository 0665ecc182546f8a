"""The real server as a process of its own, from outside: over stdio and nothing else."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import mcp_types as types
import psutil
import pytest
from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError

import mcp_tasks
from mcp_tasks.server.callers import SESSION_META_KEY
from mcp_tasks.server.toolsets import STANDARD
from tests.server.test_connection import INITIALIZE, call
from tests.waiting import wait_until

ROOT = Path(mcp_tasks.__file__).parent.parent
FUZZED = 10_000 if os.environ.get("MCP_TASKS_CAMPAIGN") else 500
END_SECONDS = 5.0

Mode = Literal["legacy", "auto"]


def command_line(folder: Path) -> list[str]:
    return [sys.executable, "-m", "mcp_tasks", "serve", "--store", "json", "--dir", str(folder)]


# -- with the client of the SDK, in both eras ------------------------------------------------------


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


@asynccontextmanager
async def connected(folder: Path, mode: Mode, **env: str) -> AsyncIterator[Client]:
    command, *arguments = command_line(folder)
    environment = {**os.environ, **env}
    parameters = StdioServerParameters(command=command, args=arguments, cwd=ROOT, env=environment)
    with anyio.fail_after(60):
        async with Client(parameters, mode=mode) as client:
            yield client


async def answer(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.structured_content
    view: dict[str, Any] | None = result.structured_content
    assert view is not None
    return view


async def refusal(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    said: dict[str, Any] | None = result.structured_content
    assert said is not None
    assert set(said) == {"code", "message", "hint"}
    [content] = result.content
    assert isinstance(content, types.TextContent)
    assert content.text == f"{said['code']}: {said['message']}. {said['hint']}".rstrip()
    return said


@pytest.mark.anyio
async def test_start_poll_list_result_cancel_and_clear(tmp_path: Path, mode: Mode) -> None:
    async with connected(tmp_path, mode) as client:
        started = await answer(client, "run_command", command="echo one; sleep 60", label="job", wait_ms=0)
        assert started["state"] in ("pending", "running")
        task_id = started["task_id"]
        seen = await answer(client, "poll_task", task_id=task_id, pattern="one", wait_ms=10_000)
        assert (seen["match"]["stream"], seen["match"]["offset"]) == ("stdout", 0)
        listed = await answer(client, "list_tasks", state="active")
        assert [task["task_id"] for task in listed["tasks"]] == [task_id]
        ended = await answer(client, "cancel_task", task_id=task_id)
        assert (ended["state"], ended["outcome"]) == ("cancelled", "cancelled")
        result = await answer(client, "get_result", task_id=task_id)
        assert (result["stdout"], result["label"]) == ("one\n", "job")
        assert result["history"]
        cleared = await answer(client, "clear_task", task_id=task_id)
        assert cleared["cleared"] == [task_id]
        assert (await refusal(client, "poll_task", task_id=task_id))["code"] == "task_not_found"


@pytest.mark.anyio
async def test_input_several_and_search(tmp_path: Path, mode: Mode) -> None:
    async with connected(tmp_path, mode) as client:
        cat = await answer(client, "run_command", command="cat", interactive="true", background=True)
        echoed = await answer(client, "send_input", id=cat["task_id"], text='{"a":1}', enter=True)
        assert echoed["stdout"] == '{"a":1}\n'
        await answer(client, "send_input", task_id=cat["task_id"], eof=True)
        waited = await answer(client, "wait_tasks", task_ids=cat["task_id"], wait_ms=10_000)
        assert [task["state"] for task in waited["done"]] == ["completed"]
        found = await answer(client, "search_output", pattern="a.:1")
        assert [match["text"] for match in found["matches"]] == ['{"a":1}']


@pytest.mark.anyio
async def test_a_task_outlives_its_server_and_is_found_by_the_next(tmp_path: Path) -> None:
    async with connected(tmp_path, "legacy") as client:
        started = await answer(client, "run_command", command="sleep 1; echo done; exit 3", wait_ms=0)
    async with connected(tmp_path, "auto") as client:
        ended = await answer(client, "poll_task", task_id=started["task_id"], wait_ms=20_000)
    assert (ended["state"], ended["exit_code"], ended["stdout"]) == ("failed", 3, "done\n")


@pytest.mark.anyio
async def test_bad_input_has_its_code_and_changes_nothing(tmp_path: Path, mode: Mode) -> None:
    missing = str(tmp_path / "missing")
    refused: list[tuple[str, dict[str, Any], str, str]] = [
        ("run_command", {"command": "true", "comand": 1}, "invalid_argument", "comand"),
        ("run_command", {"command": "true", "wait_ms": "soon"}, "invalid_argument", "wait_ms"),
        ("run_command", {"command": 5}, "invalid_argument", "command"),
        ("run_command", {}, "invalid_argument", "command"),
        ("run_command", {"command": "true", "cwd": missing}, "invalid_argument", "cwd"),
        ("run_command", {"command": "true", "env": {"A": "\0"}}, "invalid_argument", "env"),
        ("run_command", {"command": "true", "timeout_ms": -1}, "invalid_argument", "timeout_ms"),
        ("run_command", {"command": "true", "wait_ms": -1}, "invalid_argument", "wait_ms"),
        ("run_command", {"command": "true", "timeout": 30}, "invalid_argument", "timeout"),
        ("run_command", {"command": "true", "pattern": "("}, "invalid_argument", "pattern"),
        ("run_command", {"command": "true", "session": "../x"}, "invalid_argument", "session"),
        ("poll_task", {"task_id": "nonsense"}, "task_not_found", "nonsense"),
        ("poll_task", {"task_id": "0" * 36}, "task_not_found", "0" * 36),
        ("poll_task", {}, "invalid_argument", "task_id"),
        ("get_result", {"task_id": "0" * 36, "limit": 10**9}, "invalid_argument", "limit"),
        ("cancel_task", {"task_id": "0" * 36, "signal": "SIGNONE"}, "invalid_argument", "signal"),
        ("clear_task", {}, "invalid_argument", "task_id"),
        ("list_tasks", {"state": "done"}, "invalid_argument", "state"),
        ("send_input", {"task_id": "0" * 36}, "invalid_argument", "text"),
        ("wait_tasks", {}, "invalid_argument", "task_ids"),
        ("search_output", {"pattern": "("}, "invalid_argument", "pattern"),
    ]
    async with connected(tmp_path / "state", mode) as client:
        for tool, arguments, code, named in refused:
            said = await refusal(client, tool, **arguments)
            assert said["code"] == code, (tool, arguments, said)
            assert named in said["message"], (tool, arguments, said)
            assert str(tmp_path / "state") not in json.dumps(said)
        with pytest.raises(MCPError):
            await client.call_tool("no_such_tool", {})
        assert (await answer(client, "list_tasks"))["tasks"] == []


@pytest.mark.anyio
async def test_a_task_of_another_session_is_as_unknown_as_one_that_never_was(tmp_path: Path) -> None:
    async with connected(tmp_path, "legacy") as client:
        task_id = (await answer(client, "run_command", command="true", session="mine"))["task_id"]
        assert (await answer(client, "poll_task", task_id=task_id))["session"] == "mine"
        other = await refusal(client, "poll_task", task_id=task_id, session="other")
        never = await refusal(client, "poll_task", task_id="0" * 36, session="other")
        assert other["message"].replace(task_id, "ID") == never["message"].replace("0" * 36, "ID")
        assert (await answer(client, "list_tasks", session="other"))["tasks"] == []


@pytest.mark.anyio
async def test_a_program_that_is_missing_is_a_failed_task_and_no_error(tmp_path: Path) -> None:
    async with connected(tmp_path, "legacy") as client:
        view = await answer(client, "run_command", command=["/no/such/program"], wait_ms=10_000)
    assert (view["state"], view["outcome"], view["error"]["code"]) == (
        "failed",
        "spawn_failed",
        "spawn_failed",
    )


@pytest.mark.anyio
async def test_a_wait_of_a_day_is_clamped_and_says_so(tmp_path: Path) -> None:
    async with connected(tmp_path, "legacy", MCP_TASKS_MAX_WAIT_MS="300") as client:
        view = await answer(client, "run_command", command="sleep 60", wait_ms=86_400_000)
        assert (view["state"], view["wait_result"], view["max_wait_ms"]) == ("running", "deadline", 300)
        await answer(client, "cancel_task", task_id=view["task_id"], grace_ms=0)


@pytest.mark.anyio
async def test_a_call_that_its_client_gives_up_leaves_the_task_alone(tmp_path: Path, mode: Mode) -> None:
    async with connected(tmp_path, mode) as client:
        with anyio.move_on_after(1):
            await client.call_tool("run_command", {"command": "sleep 60", "label": "left", "wait_ms": 20_000})
        [task] = (await answer(client, "list_tasks", label="left"))["tasks"]
        assert task["state"] == "running"
        await answer(client, "cancel_task", task_id=task["task_id"], grace_ms=0)


@pytest.mark.anyio
async def test_a_wait_reports_its_progress(tmp_path: Path) -> None:
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async with connected(tmp_path, "auto") as client:
        arguments = {"command": "sleep 60", "wait_ms": 6_000}
        result = await client.call_tool("run_command", arguments, progress_callback=hear)
        assert result.structured_content is not None
        await answer(client, "cancel_task", task_id=result.structured_content["task_id"], grace_ms=0)
    assert heard
    assert heard == sorted(set(heard))


# -- as a process ----------------------------------------------------------------------------------


class Process:
    """A server process, the lines of its stdout, and its stderr in a file."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "stderr"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command_line(folder / "state"),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.stdout:
            self._lines.put(line)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def send(self, *messages: dict[str, Any] | bytes) -> None:
        for message in messages:
            self.stdin.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
        self.stdin.flush()

    def receive(self) -> dict[str, Any]:
        return checked(self._lines.get(timeout=30))

    def answer_to(self, request_id: int | str) -> dict[str, Any]:
        while (message := self.receive()).get("id") != request_id:
            continue
        return message

    def handshake(self) -> None:
        self.send(INITIALIZE, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert "result" in self.answer_to(0)

    def rest(self) -> list[dict[str, Any]]:
        """Everything that was still on stdout when the process ended."""
        self._reader.join(10)
        return [checked(self._lines.get()) for _ in range(self._lines.qsize())]

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        self.stdout.close()
        try:
            self.stdin.close()
        except BrokenPipeError:
            return


def checked(line: bytes) -> dict[str, Any]:
    """A line of stdout, which has to be one JSON-RPC message."""
    message: dict[str, Any] = json.loads(line)
    assert message["jsonrpc"] == "2.0"
    assert "method" in message or "result" in message or "error" in message
    return message


@contextmanager
def process_in(folder: Path) -> Iterator[Process]:
    server = Process(folder)
    try:
        server.handshake()
        yield server
    finally:
        server.end()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    with process_in(tmp_path) as started:
        yield started


def test_the_log_says_what_was_found_at_the_start(server: Process) -> None:
    wait_until(lambda: "found 0 sessions and 0 tasks" in server.log, "the log tells what was found")


def test_a_megabyte_of_garbage_leaves_the_server_alive(server: Process) -> None:
    server.send(random.Random(1).randbytes(1_000_000) + b"\n", call(1, "list_tasks"))
    assert "result" in server.answer_to(1)


def test_a_hundred_megabytes_without_a_newline_cost_no_memory(server: Process) -> None:
    before = psutil.Process(server.process.pid).memory_info().rss
    for _ in range(100):
        server.send(b"x" * 1_000_000)
    server.send(b"\n", call(1, "list_tasks"))
    assert "result" in server.answer_to(1)
    assert psutil.Process(server.process.pid).memory_info().rss - before < 64 * 2**20


IDS: list[Any] = [1, 2, 3, "a", "b", "c", None, 1.5, {}, 2**70]
METHODS: list[Any] = ["initialize", "ping", "tools/list", "x", "", 5, "notifications/x"]
NO_TOOLS: list[Any] = ["no_such_tool", "", 5]
# None of the strings does any harm as a command.
VALUES: list[Any] = [None, True, -1, 0, 5, 1.5, 10**30, "", "true", "5", "[]", '["true"]', "0" * 36, "\0"]
VALUES += [[], ["true"], [[[]]], {}, {"A": "b"}, {"A": [1]}]


def fuzz(source: random.Random) -> bytes:
    """One message that is wrong in some way, or in none."""
    tool = source.choice(STANDARD)
    parameters = [*tool.request.model_fields, "timeout", "id", "background", "oops"]
    arguments = {source.choice(parameters): source.choice(VALUES) for _ in range(source.randrange(5))}
    name = source.choice(NO_TOOLS) if source.randrange(20) == 0 else tool.name
    params: Any = {"name": name, "arguments": arguments}
    message: Any = {"jsonrpc": "2.0", "id": source.choice(IDS), "method": "tools/call", "params": params}
    match source.randrange(15):
        case 0:
            params["arguments"] = source.choice(VALUES)
        case 1:
            message["method"] = source.choice(METHODS)
        case 2:
            message["params"] = source.choice(VALUES)
        case 3:
            del message[source.choice(["jsonrpc", "id", "method", "params"])]
        case 4:
            params["_meta"] = source.choice([*VALUES, {SESSION_META_KEY: source.choice(VALUES)}])
        case 5:
            message = [message] * source.randrange(3)
        case _:
            pass
    line = json.dumps(message).encode()
    place = source.randrange(len(line))
    match source.randrange(12):
        case 0:
            line = line[:place]
        case 1:
            line = line[:place] + source.randbytes(source.randrange(1, 4)) + line[place:]
        case _:
            pass
    return line.replace(b"\n", b" ") + b"\n"


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_fuzzed_messages_leave_the_server_alive_and_its_stdout_clean(server: Process) -> None:
    source = random.Random(20260728)
    for number in range(FUZZED):
        server.send(fuzz(source))
        if number % 100 == 99:
            # In step with the server, so that at the end it is seen to have coped with all of them.
            server.send(call(f"step {number}", "list_tasks", limit=1))
            assert "result" in server.answer_to(f"step {number}")
    assert server.process.poll() is None
    server.send(call("end", "run_command", command="echo well", wait_ms=20_000))
    assert server.answer_to("end")["result"]["structuredContent"]["stdout"] == "well\n"
    assert "Traceback" not in server.log


def test_a_closed_stdin_ends_the_server_and_not_the_task(server: Process, tmp_path: Path) -> None:
    server.send(call(1, "run_command", command="sleep 60", wait_ms=0))
    task_id = server.answer_to(1)["result"]["structuredContent"]["task_id"]
    server.stdin.close()
    assert server.process.wait(END_SECONDS) == 0
    server.rest()
    with process_in(tmp_path) as again:
        again.send(call(1, "cancel_task", task_id=task_id, grace_ms=0))
        assert again.answer_to(1)["result"]["structuredContent"]["state"] == "cancelled"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_server_in_the_middle_of_a_wait(
    server: Process, tmp_path: Path, number: signal.Signals
) -> None:
    server.send(call(1, "run_command", command="sleep 60", wait_ms=20_000))
    server.send(call(2, "poll_task", task_id="x"))
    server.answer_to(2)
    server.process.send_signal(number)
    assert server.process.wait(END_SECONDS) == 0
    with process_in(tmp_path) as again:
        again.send(call(1, "list_tasks", state="active"))
        tasks = again.answer_to(1)["result"]["structuredContent"]["tasks"]
        for task in tasks:
            again.send(call(2, "cancel_task", task_id=task["task_id"], grace_ms=0))
            assert again.answer_to(2)["result"]["structuredContent"]["state"] == "cancelled"


def test_the_death_of_its_parent_ends_the_server_though_stdin_stays_open(tmp_path: Path) -> None:
    script = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
child.wait()
"""
    stdin_read, stdin_write = os.pipe()
    with (tmp_path / "stderr").open("wb") as log:
        parent = subprocess.Popen(
            [sys.executable, "-c", script, *command_line(tmp_path / "state")],
            cwd=ROOT,
            stdin=stdin_read,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        log_path = tmp_path / "stderr"
        wait_until(lambda: "serving on stdio" in log_path.read_text(), "the server is ready", 30)
        parent.kill()
        parent.wait(10)
        wait_until(lambda: not server.is_running(), "the server has ended", END_SECONDS)
    finally:
        parent.kill()
        parent.wait(10)
        if parent.stdout is not None:
            parent.stdout.close()
        os.close(stdin_read)
        os.close(stdin_write)


def test_requests_on_a_pipe_that_closes_at_once_are_answered(tmp_path: Path) -> None:
    lines = [INITIALIZE, {"jsonrpc": "2.0", "method": "notifications/initialized"}]
    lines.append(call(1, "run_command", command=["echo", "hello"]))
    done = subprocess.run(
        command_line(tmp_path / "state"),
        cwd=ROOT,
        input="".join(f"{json.dumps(line)}\n" for line in lines).encode(),
        capture_output=True,
        timeout=30,
        check=True,
    )
    messages = [checked(line) for line in done.stdout.splitlines()]
    assert messages[-1]["result"]["structuredContent"]["stdout"] == "hello\n"


def test_the_log_of_a_server_without_a_client_begins_with_its_beginning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mcp_tasks", "serve", "--dir", str(tmp_path / "state")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr.index("serving on stdio") < done.stderr.index("ending: stdin is closed")
