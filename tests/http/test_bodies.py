from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import anyio
import httpx2
import pytest

from mcp_tasks.http.bodies import is_crowded, large_bodies
from tests.http.server_process import HttpServer, running_server
from tests.http.test_transports import called

MANY = 200_000


async def crowded(body: bytes) -> bool:
    return await is_crowded(body, large_bodies())


@pytest.mark.parametrize(
    "body",
    [
        b'{"x":[' + b"[]," * MANY + b"[]]}",
        b'{"x":[' + b'"a",' * MANY + b'"a"]}',
        b"{" + b'"a":{},' * MANY + b'"b":1}',
        b"[" + b'"\\"",' * MANY + b"1]",
        b"[" + b'"\\\\",' * MANY + b"1]",
        b"[1,\n" * MANY + b"]" * MANY,
        ('["\u2222",' + "[]," * MANY + "1]").encode("utf-16"),
        b"{" + b'"":"",' * MANY + b'"":""}',
    ],
    ids=["lists", "texts", "members", "quotes", "backslashes", "depth", "utf-16", "empty texts"],
)
async def test_more_values_than_any_request_has_are_seen_without_parsing(body: bytes) -> None:
    assert await crowded(body)


@pytest.mark.parametrize(
    "value",
    [
        "[],{}," * MANY,
        '"[],' * MANY,
        '\\",\\[' * MANY,
        ["a, [b]"] * 90_000,
        {f"{number},": "{[," for number in range(90_000)},
    ],
    ids=["brackets", "quotes", "backslashes", "list", "map"],
)
async def test_what_only_stands_in_texts_is_no_value(value: Any) -> None:
    assert not await crowded(json.dumps({"x": value}).encode())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    with running_server(tmp_path_factory.mktemp("bodies") / "state") as server:
        yield server


HOSTILE = '"x":[' + "[]," * 1_300_000 + "[]]"


def mcp_body() -> str:
    body = json.dumps(called(1, "list_tasks"))
    assert body.endswith("}")
    return f"{body[:-1]},{HOSTILE}}}"


@pytest.mark.parametrize("path", ["/api/tasks", "/mcp"])
async def test_bodies_that_are_nothing_but_brackets_keep_nobody_waiting(
    server: HttpServer, path: str
) -> None:
    body = f'{{"command":"true",{HOSTILE}}}' if path != "/mcp" else mcp_body()
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    waits: list[float] = []
    answers: list[httpx2.Response] = []
    async with server.http() as http, server.http(**headers) as other, anyio.create_task_group() as group:
        assert (await http.get("/healthz")).status_code == 200

        async def flood() -> None:
            answers.append(await other.post(path, content=body.encode()))

        for _ in range(6):
            group.start_soon(flood)
        while len(answers) < 6:
            began = time.monotonic()
            assert (await http.get("/healthz")).status_code == 200
            waits.append(time.monotonic() - began)
    assert {answer.status_code for answer in answers} == {400}
    assert all("more than 100,000 values" in answer.text for answer in answers)
    assert max(waits) < 1.0


async def test_a_large_body_of_one_long_text_is_taken(server: HttpServer) -> None:
    async with server.http() as http:
        asked = {"command": "wc -c", "stdin": "[],{}," * 500_000, "wait_ms": 20_000}
        answer = await http.post("/api/tasks", json=asked)
        assert answer.status_code == 201, answer.text
        assert answer.json()["stdout"].strip() == "3000000"


async def test_who_may_only_read_is_turned_away_before_his_body_is_parsed(server: HttpServer) -> None:
    async with server.http() as owner:
        share = (await owner.patch("/api/sessions/shared", json={"share": "read"})).json()["share"]
    reader = {"Authorization": f"Bearer {share['token']}", "content-type": "application/json"}
    async with server.http(**reader) as http:
        for method, path in (("POST", "/api/tasks"), ("PATCH", "/api/sessions/shared")):
            answer = await http.request(method, path, content=b"{ no JSON")
            assert answer.status_code == 403, answer.text
            assert "this share lets you read in the session, not write" in answer.text
        assert (await http.post("/api/tasks/wait", content=b"{ no JSON")).status_code == 400
