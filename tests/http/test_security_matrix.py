"""Host, Origin, token and content type, each well and evil, over every way in and each kind of address."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.http.server_process import TOKEN, HttpServer, running_server
from tests.waiting import eventually

ROWS = list(itertools.product((True, False), repeat=4))
"""Whether Host, Origin, token and content type are as they should be; the first row is the good one."""

BINDS = {
    "127.0.0.1": ("--host", "127.0.0.1"),
    "::1": ("--host", "::1"),
    "0.0.0.0": ("--host", "0.0.0.0", "--allowed-host", "tasks.test"),
    "uds": ("--uds", "{state}/../s"),
}
EXPECTED = {(True, True, True, True): (200, 201, 202), (True, True, True, False): (415,)}
EVIL_HOSTS = itertools.cycle(["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80"])
EVIL_ORIGINS = itertools.cycle(["http://evil.example", "null", "http://localhost.evil.example"])
EVIL_TOKENS = itertools.cycle(
    [
        None,
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        f"{TOKEN}",
        "Bearer",
    ]
)
EVIL_TYPES = itertools.cycle(["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])


@dataclass(frozen=True)
class Reach:
    """How a server is reached that listens at one kind of address."""

    http: httpx2.AsyncClient
    host: str

    def headers(self, row: tuple[bool, ...]) -> dict[str, str]:
        host, origin, token, kind = row
        wanted = {
            "Host": self.host if host else next(EVIL_HOSTS),
            "Origin": f"http://{self.host}" if origin else next(EVIL_ORIGINS),
            "Authorization": f"Bearer {TOKEN}" if token else next(EVIL_TOKENS),
            "Content-Type": "application/json" if kind else next(EVIL_TYPES),
            "Accept": "application/json, text/event-stream",
        }
        return {name: value for name, value in wanted.items() if value is not None}

    def good(self) -> dict[str, str]:
        return self.headers(ROWS[0])


@asynccontextmanager
async def reached(server: HttpServer, bind: str) -> AsyncIterator[Reach]:
    path = server.where.removeprefix("unix:")
    is_file = path != server.where
    port = 0 if is_file else server.port
    base = {"::1": f"http://[::1]:{port}", "uds": "http://localhost"}.get(bind, f"http://127.0.0.1:{port}")
    host = f"tasks.test:{port}" if bind == "0.0.0.0" else base.removeprefix("http://")
    transport = httpx2.AsyncHTTPTransport(uds=path) if is_file else None
    async with httpx2.AsyncClient(base_url=base, transport=transport, timeout=30) as http:
        yield Reach(http, host)


def touching(file: Path) -> dict[str, Any]:
    """A call of a tool that leaves a file, as a message of 2026-07-28: one request, no handshake."""
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "run_command",
            "arguments": {"command": ["touch", str(file)], "wait_ms": 20_000},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "matrix", "version": "1"},
            },
        },
    }


async def over_mcp(reach: Reach, row: tuple[bool, ...], file: Path) -> int:
    headers = {
        **reach.headers(row),
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "run_command",
    }
    answer = await reach.http.post("/mcp", content=json.dumps(touching(file)), headers=headers)
    return answer.status_code


async def over_sse(reach: Reach, row: tuple[bool, ...], file: Path) -> int:
    """Opens a stream that is as it should be, and posts the row to it; the stream of the row is tried too."""
    async with reach.http.stream("GET", "/sse", headers=reach.good()) as stream:
        lines = stream.aiter_lines()
        while not (line := await anext(lines)).startswith("data: "):
            continue
        path = line.removeprefix("data: ")
        answer = await reach.http.post(path, content=json.dumps(touching(file)), headers=reach.headers(row))
        if answer.status_code == 202:
            while "tools/call" not in line and '"result"' not in line:
                line = await anext(lines)
    if not all(row[:3]):
        async with reach.http.stream("GET", "/sse", headers=reach.headers(row)) as refused:
            assert refused.status_code == answer.status_code
    return answer.status_code


async def over_api(reach: Reach, row: tuple[bool, ...], file: Path) -> int:
    body = json.dumps({"command": ["touch", str(file)], "wait_ms": 20_000})
    answer = await reach.http.post("/api/tasks", content=body, headers=reach.headers(row))
    if not all(row[:3]):
        listed = await reach.http.get("/api/tasks", headers=reach.headers(row))
        assert listed.status_code == answer.status_code
    return answer.status_code


def expected(row: tuple[bool, ...]) -> tuple[int, ...]:
    host, origin, token, _ = row
    if not host:
        return (421,)
    if not origin:
        return (403,)
    return EXPECTED[True, True, True, row[3]] if token else (401,)


@pytest.mark.parametrize("bind", BINDS)
async def test_no_evil_row_reaches_a_tool(tmp_path: Path, bind: str) -> None:
    state = tmp_path / "state"
    options = [option.format(state=state) for option in BINDS[bind]]
    with running_server(state, *options) as server:
        async with reached(server, bind) as reach:
            for way in (over_mcp, over_sse, over_api):
                for row in ROWS:
                    file = tmp_path / f"{way.__name__}-{''.join('+' if well else '-' for well in row)}"
                    status = await way(reach, row, file)
                    assert status in expected(row), (way.__name__, row, status)
        log = server.log.read_text()
    assert "Traceback" not in log
    assert TOKEN not in log
    assert touched(tmp_path) == ["over_api-++++", "over_mcp-++++", "over_sse-++++"]


async def test_a_server_without_a_token_is_still_guarded_against_pages_and_foreign_names(
    tmp_path: Path,
) -> None:
    with running_server(tmp_path / "state", "--no-token") as server:
        async with reached(server, "127.0.0.1") as reach:
            for row in ROWS:
                file = tmp_path / f"over_mcp-{''.join('+' if well else '-' for well in row)}"
                headers = reach.headers(row)
                status = await over_mcp(reach, row, file)
                allowed = row[0] and row[1]
                assert (status == 200) is (allowed and row[3]), (headers, status)
            await eventually(lambda: listed(reach), "both good rows, with and without a token, are there")
    assert touched(tmp_path) == ["over_mcp-++++", "over_mcp-++-+"]


async def listed(reach: Reach) -> bool:
    answer = await reach.http.get("/api/tasks", headers={"Host": reach.host})
    return len(answer.json()["tasks"]) == 2


def touched(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("over_*"))
