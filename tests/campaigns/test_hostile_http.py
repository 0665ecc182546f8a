"""What an unfriendly client sends over HTTP: whatever it is, no answer is a 500 and no traceback is seen."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
import httpx2
import pytest

from tests.campaigns.rig import short_or_full
from tests.http.server_process import TOKEN, HttpServer, running_server
from tests.server.test_stdio import fuzz
from tests.waiting import eventually

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1_800)]

_MESSAGES: Final = short_or_full(400, 10_000)
_AT_ONCE: Final = 8
_MODERN: Final = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
_OPTIONS: Final = ("--max-wait-ms", "20", "--requests-per-second", "0", "--max-request-bytes", "64KiB")
_ODD: Final = [
    "",
    "x",
    "\xff",
    "0",
    "-1",
    "a" * 3_000,
    "2025-11-25",
    "2026-07-28",
    "null",
    "*/*",
    "run_command",
    "tools/call",
]
_PATHS: Final = [
    "/",
    "/mcp",
    "/mcp/",
    "/mcp/x",
    "/sse",
    "/messages",
    "/messages/",
    "/healthz",
    "/api",
    "/api/",
    "//",
    "/%00",
    "/..%2f",
]
_API: Final = [
    "tasks",
    "plans",
    "sessions",
    "search",
    "default",
    "history",
    "result",
    "cancel",
    "clear",
    "wait",
    "events",
    "ids",
    "%00",
    "..",
    "%2e%2e",
    "\u00e9",
    "0" * 32,
    "stdout",
    "export",
    "context",
    "openapi.json",
    "{task_id}",
    "a" * 500,
]
_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"]
_HEADERS: Final = [
    "Mcp-Session-Id",
    "Mcp-Method",
    "Mcp-Name",
    "MCP-Protocol-Version",
    "Accept",
    "Last-Event-ID",
    "Range",
    "Mcp-Tasks-Session",
    "Mcp-Tasks-Share",
    "Content-Encoding",
    "Expect",
    "If-None-Match",
    "Cookie",
    "Upgrade",
]


Sent: TypeAlias = tuple[str, str, dict[str, str], bytes]
"""Method, path, headers, body."""


class Client:
    """Sends what it is told to, and looks at every answer."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        self.statuses: dict[int, int] = {}

    async def send(self, method: str, path: str, headers: dict[str, str], content: bytes) -> None:
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        try:
            request = self._http.build_request(method, path, headers=raw, content=content)
        except httpx2.InvalidURL:
            return
        with anyio.move_on_after(30) as waited:
            try:
                answer = await self._http.send(request, stream=True)
            except httpx2.LocalProtocolError:
                return  # this client cannot send it; that bytes come which are no HTTP is tried below
            try:
                endless = method == "GET" and "event-stream" in answer.headers.get("content-type", "")
                body = b"" if endless else await answer.aread()
            finally:
                await answer.aclose()
        assert not waited.cancelled_caught, ("no answer", method, path[:80], raw, content[:400])
        self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
        shown = (method, path[:80], raw, content[:400], body[:400])
        assert answer.status_code < 500 or answer.status_code == 501, (answer.status_code, *shown)
        assert b"Traceback" not in body, shown


async def in_parallel(client: Client, shares: list[list[Sent]]) -> None:
    """Send all of them, those of a share one after the other."""

    async def worker(share: list[Sent]) -> None:
        for each in share:
            await client.send(*each)

    async with anyio.create_task_group() as group:
        for share in shares:
            group.start_soon(worker, share)


def modern(line: bytes) -> bytes:
    """The same message with what 2026-07-28 wants, where it is one."""
    try:
        message = json.loads(line)
        message["params"]["_meta"] = {**_MODERN, **(message["params"].get("_meta") or {})}
    except (ValueError, TypeError, KeyError, AttributeError):
        return line
    return json.dumps(message).encode()


def headers_for(source: random.Random, line: bytes, session: str) -> tuple[dict[str, str], bytes]:
    """Headers of either era for a message, some of them wrong."""
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if source.randrange(2):
        name = line.partition(b'"name": "')[2].partition(b'"')[0].decode("latin-1")
        headers |= {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": name}
        line = modern(line)
    else:
        headers |= {"MCP-Protocol-Version": "2025-11-25", "Mcp-Session-Id": session}
    if source.randrange(6) == 0:
        headers[source.choice(_HEADERS)] = source.choice(_ODD)
    if source.randrange(20) == 0:
        del headers[source.choice(list(headers))]
    return headers, line


async def still_well(server: HttpServer) -> None:
    async with server.mcp() as client:
        result = await client.call_tool("run_command", {"command": "echo well", "wait_ms": 20})
        assert result.structured_content is not None
        assert not result.is_error
    assert server.process.poll() is None
    assert "Traceback" not in server.log.read_text()


async def legacy_session(http: httpx2.AsyncClient) -> str:
    answer = await http.post(
        "/mcp",
        headers={"Accept": "application/json, text/event-stream"},
        json={
            "jsonrpc": "2.0",
            "id": 0,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "fuzz", "version": "1"},
            },
        },
    )
    return str(answer.headers["Mcp-Session-Id"])


async def test_fuzzed_messages_over_streamable_http_meet_no_500(tmp_path: Path) -> None:
    source = random.Random(20260728)
    with running_server(tmp_path / "state", *_OPTIONS) as server:
        async with server.http() as http:
            client = Client(http)
            shares: list[list[Sent]] = []
            for _ in range(_AT_ONCE):
                # One request at a time in a session: the SDK answers one of two that have the same id.
                session = await legacy_session(http)
                shares.append([_posted(source, session) for _ in range(_MESSAGES // _AT_ONCE)])
            await in_parallel(client, shares)
        assert client.statuses.get(200, 0) > _MESSAGES / 4, client.statuses
        await still_well(server)


def _posted(source: random.Random, session: str) -> Sent:
    headers, line = headers_for(source, fuzz(source), session)
    method = source.choice(_METHODS) if source.randrange(30) == 0 else "POST"
    if method == "DELETE":
        headers.pop("Mcp-Session-Id", None)  # the session is needed to the end
    return method, "/mcp", headers, line


async def test_fuzzed_messages_over_sse_meet_no_500(tmp_path: Path) -> None:
    source = random.Random(20260729)
    with running_server(tmp_path / "state", *_OPTIONS, transport="sse") as server:
        async with server.http() as http, anyio.create_task_group() as group:
            heard = 0
            paths: list[str] = []
            opened = anyio.Event()

            async def listen() -> None:
                nonlocal heard
                async with http.stream("GET", "/sse") as stream:
                    async for line in stream.aiter_lines():
                        assert "Traceback" not in line
                        if line.startswith("data: /messages/"):
                            paths.append(line.removeprefix("data: "))
                            opened.set()
                        heard += line.startswith("data: {")

            group.start_soon(listen)
            await opened.wait()
            client = Client(http)
            requests: list[Sent] = []
            for _ in range(_MESSAGES):
                headers, line = headers_for(source, fuzz(source), "")
                path = paths[0]
                if source.randrange(20) == 0:
                    path = source.choice(
                        ["/messages/", "/messages/?session_id=x", f"{path[:-1]}0", f"{path}&x=1"]
                    )
                requests.append(("POST", path, headers, line))
            await in_parallel(client, [requests[number::_AT_ONCE] for number in range(_AT_ONCE)])
            assert client.statuses.get(202, 0) > _MESSAGES / 2, client.statuses

            async def answered() -> bool:
                return heard > _MESSAGES / 8

            await eventually(answered, "answers come on the stream", 60)
            group.cancel_scope.cancel()
        assert server.process.poll() is None
        assert "Traceback" not in server.log.read_text()


async def test_fuzzed_requests_of_every_path_meet_no_500(tmp_path: Path) -> None:
    source = random.Random(20260730)
    with running_server(tmp_path / "state", *_OPTIONS) as server:
        async with server.http() as http:
            client = Client(http)
            shares = [[_request(source) for _ in range(_MESSAGES // _AT_ONCE)] for _ in range(_AT_ONCE)]
            await in_parallel(client, shares)
        assert len(client.statuses) > 4, client.statuses
        await still_well(server)


def _request(source: random.Random) -> Sent:
    if source.randrange(4):
        path = "/api/" + "/".join(source.choice(_API) for _ in range(source.randrange(1, 5)))
    else:
        path = source.choice(_PATHS)
    if source.randrange(2):
        names = [
            "session",
            "limit",
            "cursor",
            "wait_ms",
            "offset",
            "state",
            "x",
            "pattern",
            "tail_lines",
            "%ff",
            "task_id",
        ]
        path += "?" + "&".join(
            f"{source.choice(names)}={source.choice(_ODD[:9])}" for _ in range(source.randrange(4))
        )
    headers = {source.choice(_HEADERS): source.choice(_ODD) for _ in range(source.randrange(3))}
    headers.setdefault(
        "Content-Type", source.choice(["application/json", "application/json", "text/plain", "x"])
    )
    message: Any = json.loads(_sound(source))
    arguments = message["params"]["arguments"]
    body = (
        json.dumps(arguments).encode() if source.randrange(5) else source.randbytes(source.randrange(1, 40))
    )
    return source.choice(_METHODS), path, headers, source.choice([body, body, b""])


def _sound(source: random.Random) -> bytes:
    """A fuzzed message that is still JSON with arguments."""
    while True:
        line = fuzz(source)
        try:
            json.loads(line)["params"]["arguments"]
        except (ValueError, TypeError, KeyError):
            continue
        return line


async def test_bytes_that_are_no_http_leave_the_server_as_it_is(tmp_path: Path) -> None:
    source = random.Random(20260731)
    head = f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += "Content-Type: application/json\r\n"
    texts = [
        "GET / HTTP/9.9\r\n\r\n",
        "GET\r\n\r\n",
        "\r\n" * 50,
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        f"{head}Content-Length: -1\r\n\r\n",
        f"{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{{}}",
        f"{head}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        f"{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        f"{head}Transfer-Encoding: gzip\r\n\r\n",
        f"{head}X: {'x' * 100_000}\r\n\r\n",
        f"GET /{'x' * 70_000} HTTP/1.1\r\n\r\n",
        f"{head}Host: evil.example\r\n\r\n",
        "GET http://evil.example/mcp HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /mcp HTTP/1.0\r\n\r\n",
        f"{head}Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n",
        f"{head}Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        f"{head}Content-Length: 10\r\n\r\n{{}}",
    ]
    pieces = [b"\x16\x03\x01\x02\x00", *(text.encode() for text in texts)]
    with running_server(tmp_path / "state", *_OPTIONS) as server:
        for number in range(short_or_full(100, 2_000)):
            sent = pieces[number] if number < len(pieces) else source.randbytes(source.randrange(1, 2_000))
            answered = await anyio.to_thread.run_sync(_said_to, server.port, sent)
            assert b" 500 " not in answered.partition(b"\r\n")[0], (sent[:200], answered)
            assert b"Traceback" not in answered
            if b"evil.example" in sent:
                assert b" 200 " not in answered.partition(b"\r\n")[0]
        await still_well(server)


def _said_to(port: int, sent: bytes) -> bytes:
    """What the server says to some bytes, after which nothing more is sent."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65_536):
                heard += piece
        except (ConnectionError, BrokenPipeError):
            return heard
    return heard
