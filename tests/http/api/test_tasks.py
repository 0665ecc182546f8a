"""Tasks and plans over the API."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx2
import pytest

from tests.http.api.asking import given, refused, started
from tests.http.server_process import HttpServer, running_server


async def test_a_task_is_started_looked_at_read_and_removed(api: httpx2.AsyncClient) -> None:
    response = await api.post("/api/tasks", json={"command": "echo out; echo err >&2", "wait_ms": 20_000})
    view = given(response, 201)
    assert (view["state"], view["stdout"], view["stderr"]) == ("completed", "out\n", "err\n")
    place = response.headers["location"]
    assert place == f"/api/tasks/{view['task_id']}"
    assert given(await api.get(place))["state"] == "completed"
    assert given(await api.get(f"{place}/result"))["command"] == "echo out; echo err >&2"
    assert [task["task_id"] for task in given(await api.get("/api/tasks"))["tasks"]] == [view["task_id"]]
    assert given(await api.delete(place))["cleared"] == [view["task_id"]]
    refused(await api.get(place), 404, "task_not_found")


async def test_a_start_with_the_same_key_is_the_same_task_and_not_created_again(
    api: httpx2.AsyncClient,
) -> None:
    first = await api.post("/api/tasks", json={"command": "true", "key": "once"})
    again = await api.post("/api/tasks", json={"command": "true", "key": "once"})
    assert given(first, 201)["task_id"] == given(again, 200)["task_id"]
    refused(await api.post("/api/tasks", json={"command": "false", "key": "once"}), 409, "key_conflict")


async def test_a_running_task_takes_input_is_not_removed_and_is_ended(api: httpx2.AsyncClient) -> None:
    task_id = await started(api, "cat", interactive=True, wait_ms=0)
    heard = await api.post(f"/api/tasks/{task_id}/input", json={"text": "hello", "enter": True})
    assert given(heard)["stdout"] == "hello\n"
    refused(await api.delete(f"/api/tasks/{task_id}"), 409, "task_not_finished")
    ended = given(await api.post(f"/api/tasks/{task_id}/cancel"))
    assert ended["state"] == "cancelled"
    other = await started(api, "sleep 60", wait_ms=0)
    assert given(await api.delete(f"/api/tasks/{other}", params={"cancel": "true"}))["cleared"] == [other]


async def test_several_tasks_are_waited_for_ended_and_removed_together(api: httpx2.AsyncClient) -> None:
    quick, slow = await started(api, "echo done"), await started(api, "sleep 60", wait_ms=0)
    waited = given(await api.post("/api/tasks/wait", json={"task_ids": [quick, slow]}))
    assert waited["open"] == [slow]
    given(await api.post("/api/tasks/cancel", json={"task_ids": [quick, slow]}))
    assert len(given(await api.post("/api/tasks/clear", json={"all_finished": True}))["cleared"]) == 2


async def test_a_wait_that_nobody_stays_for_is_given_up_and_the_task_runs_on(
    api: httpx2.AsyncClient,
) -> None:
    task_id = await started(api, "sleep 60", wait_ms=0)
    with pytest.raises(httpx2.ReadTimeout):
        await api.get(f"/api/tasks/{task_id}", params={"wait_ms": 20_000}, timeout=0.3)
    assert given(await api.get(f"/api/tasks/{task_id}"))["state"] == "running"
    given(await api.post(f"/api/tasks/{task_id}/cancel"))


async def test_output_is_searched_and_ids_are_completed(api: httpx2.AsyncClient) -> None:
    task_id = await started(api, "printf 'one\\ntwo\\n'")
    found = given(await api.get("/api/search", params={"pattern": "tw."}))
    assert [(match["task_id"], match["line"]) for match in found["matches"]] == [(task_id, 2)]
    assert given(await api.get(f"/api/ids/{task_id[:-2]}")) == {"task_id": task_id}
    refused(await api.get("/api/ids/nothing-like-it"), 404, "task_not_found")


async def test_a_plan_is_registered_and_found_again(api: httpx2.AsyncClient) -> None:
    steps = [{"command": "echo 1", "name": "first"}, {"command": "echo 2", "after": ["first"]}]
    plan = {"name": "two", "commands": steps, "wait_ms": 20_000}
    response = await api.post("/api/plans", json=plan)
    plan_id = given(response, 201)["plan_id"]
    assert given(await api.get(response.headers["location"]))["plan_id"] == plan_id
    assert [each["plan_id"] for each in given(await api.get("/api/plans"))["plans"]] == [plan_id]
    assert given(await api.get(f"/api/ids/{plan_id[:-2]}", params={"kind": "plan"})) == {"plan_id": plan_id}
    refused(await api.get("/api/plans/none"), 404, "plan_not_found")


async def test_tasks_are_listed_by_page(api: httpx2.AsyncClient) -> None:
    ids = [await started(api, "true", label=str(number)) for number in range(3)]
    page = given(await api.get("/api/tasks", params={"limit": 2}))
    rest = given(await api.get("/api/tasks", params={"limit": 2, "cursor": page["next_cursor"]}))
    assert [task["task_id"] for task in page["tasks"] + rest["tasks"]] == ids[::-1]
    assert "next_cursor" not in rest


async def test_raw_output_is_exact_whole_and_in_part(api: httpx2.AsyncClient) -> None:
    task_id = await started(api, "printf '\\377\\000ab\\r\\n'")
    path = f"/api/tasks/{task_id}/stdout"
    whole = await api.get(path)
    assert (whole.status_code, whole.content) == (200, b"\xff\0ab\r\n")
    assert whole.headers["mcp-tasks-state"] == "completed"
    wanted = {"bytes=2-3": b"ab", "bytes=4-": b"\r\n", "bytes=-1": b"\n", "bytes=0-999": whole.content}
    for asked, data in wanted.items():
        part = await api.get(path, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, data)
        assert part.headers["content-range"].endswith("/6")
    head = await api.head(path)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "6", b"")
    for ignored in ("bytes=4-2", "lines=1-2", "bytes=0-1,3-4", "bytes=-"):
        assert (await api.get(path, headers={"Range": ignored})).status_code == 200
    assert (await api.get(path, headers={"Range": "bytes=1-", "If-Range": '"x"'})).status_code == 200
    beyond = await api.get(path, headers={"Range": "bytes=6-"})
    refused(beyond, 416, "requested_range_not_satisfiable")
    assert beyond.headers["content-range"] == "bytes */6"
    assert (await api.get(f"/api/tasks/{task_id}/stderr")).content == b""


async def test_a_gap_in_the_output_is_told_and_no_range_crosses_it(api: httpx2.AsyncClient) -> None:
    command = "head -c 3000000 /dev/zero | tr '\\0' 'x'; printf end"
    task_id = await started(api, command, max_output_bytes=100_000, on_output_limit="keep_tail")
    path = f"/api/tasks/{task_id}/stdout"
    whole = await api.get(path)
    start, end = map(int, whole.headers["mcp-tasks-gap"].split("-"))
    assert whole.content.endswith(b"end")
    assert len(whole.content) == 3_000_003 - (end - start)
    before = await api.get(path, headers={"Range": "bytes=0-"})
    assert before.headers["content-range"] == f"bytes 0-{start - 1}/3000003"
    inside = await api.get(path, headers={"Range": f"bytes={start + 5}-"})
    assert inside.headers["content-range"] == f"bytes {end}-3000002/3000003"
    assert inside.content == whole.content[start:]


async def test_output_that_goes_while_it_is_sent_is_cut_off(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server, anyio.fail_after(60):
        async with server.http() as api:
            command = "head -c 200000000 /dev/zero"
            for fields in ({}, {"max_output_bytes": 100_000_000, "on_output_limit": "keep_tail"}):
                task_id = await started(api, command, **fields)
                async with api.stream("GET", f"/api/tasks/{task_id}/stdout") as response:
                    length = int(response.headers["content-length"])
                    assert length == 200_000_000 or response.headers["mcp-tasks-gap"]
                    pieces = response.aiter_raw()
                    await anext(pieces)
                    given(await api.delete(f"/api/tasks/{task_id}"))
                    with pytest.raises(httpx2.RemoteProtocolError):
                        [_ async for _ in pieces]
        log = server.log.read_text()
    assert log.count("cut off an answer") == 2
    assert "Traceback" not in log


async def test_only_to_be_told_the_size_of_output_reads_none_of_it(tmp_path: Path) -> None:
    with running_server(tmp_path / "state") as server:
        async with server.http() as api:
            task_id = await started(api, "head -c 100000000 /dev/zero")
            before = _read_by(server.process.pid)
            head = await api.head(f"/api/tasks/{task_id}/stdout")
            assert head.headers["content-length"] == "100000000"
            given(await api.get("/api/server"))  # on the same connection, so after whatever was done before
            assert _read_by(server.process.pid) - before < 10_000_000


def _read_by(pid: int) -> int:
    """Bytes that a process has read so far."""
    counted = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(counted["rchar"])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "command is missing"),
        ({"command": ""}, "command is empty"),
        ({"command": "true", "wait_ms": "5"}, "wait_ms must be an integer, not a string"),
        ({"command": "true", "timout_ms": 5}, "unknown parameter 'timout_ms'"),
        ({"command": "true", "self": 5}, "unknown parameter 'self'"),
        ({"command": "true", "env": {"A": 1}}, "must be"),
    ],
)
async def test_a_body_is_read_strictly_and_refused_by_name(
    api: httpx2.AsyncClient, fields: dict[str, object], says: str
) -> None:
    problem = refused(await api.post("/api/tasks", json=fields), 400, "invalid_argument")
    assert says in problem["detail"]


@pytest.mark.parametrize(("slip", "meant"), [("cmd", "command"), ("workdir", "cwd"), ("comand", "command")])
async def test_a_name_that_tools_would_take_is_told_what_it_means(
    api: httpx2.AsyncClient, slip: str, meant: str
) -> None:
    problem = refused(await api.post("/api/tasks", json={slip: "true"}), 400, "invalid_argument")
    assert problem["hint"] == f"did you mean {meant!r}?"


async def test_the_beginning_of_an_id_is_told_where_the_whole_is_found(api: httpx2.AsyncClient) -> None:
    task_id = await started(api, "true")
    problem = refused(await api.get(f"/api/tasks/{task_id[:30]}"), 404, "task_not_found")
    assert "GET /api/ids/{prefix}" in problem["hint"]
    assert given(await api.get(f"/api/ids/{task_id[:30]}")) == {"task_id": task_id}
    problem = refused(await api.get("/api/plans/abc"), 404, "plan_not_found")
    assert "GET /api/ids/{prefix}?kind=plan" in problem["hint"]
    unknown = task_id[:-1] + ("0" if task_id[-1] != "0" else "1")
    for answered in (
        await api.get(f"/api/tasks/{unknown}"),
        await api.post("/api/tasks/wait", json={"task_ids": ["abc"]}),
    ):
        assert "/api/ids" not in refused(answered, 404, "task_not_found")["hint"]


@pytest.mark.parametrize(
    "body", ["[1]", "{", "5", '{"command": NaN}', "[" * 100_000, '{"command": "\\ud800"}', "\xff"]
)
async def test_a_body_that_is_no_object_is_refused(api: httpx2.AsyncClient, body: str) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    response = await api.post("/api/tasks", content=body.encode("latin-1"), headers=headers)
    refused(response, 400, "invalid_argument")


async def test_a_body_of_another_type_is_refused(api: httpx2.AsyncClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        response = await api.post("/api/tasks", content=b"{}", headers={"Content-Type": kind})
        refused(response, 415, "unsupported_media_type")


async def test_numbers_without_a_fraction_and_nulls_are_understood(api: httpx2.AsyncClient) -> None:
    body = '{"command": "true", "wait_ms": 2e4, "label": null, "env": {"A": null}}'
    response = await api.post("/api/tasks", content=body, headers={"Content-Type": "application/json"})
    assert given(response, 201)["state"] == "completed"


async def test_a_query_is_typed_loosely_and_refused_by_name(api: httpx2.AsyncClient) -> None:
    task_id = await started(api, "true")
    given(await api.get(f"/api/tasks/{task_id}", params={"wait_ms": "5", "show": "none"}))
    wrong = [{"wait_ms": "soon"}, {"shw": "none"}, {"task_id": task_id}]
    for params in wrong:
        refused(await api.get(f"/api/tasks/{task_id}", params=params), 400, "invalid_argument")
    twice = await api.get(f"/api/tasks/{task_id}?wait_ms=1&wait_ms=2")
    assert "twice" in refused(twice, 400, "invalid_argument")["detail"]
    in_query = await api.post("/api/tasks?command=true")
    assert "body" in refused(in_query, 400, "invalid_argument")["hint"]
    in_both = await api.post(f"/api/tasks/{task_id}/cancel", json={"task_id": task_id})
    assert "path" in refused(in_both, 400, "invalid_argument")["detail"]


async def test_what_is_not_there_is_a_problem(api: httpx2.AsyncClient) -> None:
    for path in ("/api/nothing", "/api/tasks/"):
        refused(await api.get(path), 404, "not_found")
    other = await api.put("/api/tasks", json={})
    refused(other, 405, "method_not_allowed")
    assert set(other.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


async def test_the_session_is_the_header_s_unless_the_request_names_one(api: httpx2.AsyncClient) -> None:
    task_id = await started(api, "true")
    assert given(await api.get("/api/tasks", params={"session": "another"}))["tasks"] == []
    elsewhere = await api.get(f"/api/tasks/{task_id}", headers={"Mcp-Tasks-Session": "another"})
    refused(elsewhere, 404, "task_not_found")
    for headers in ({"Mcp-Tasks-Session": "a b"}, {"Mcp-Tasks-Share": ""}):
        refused(await api.get("/api/tasks", headers=headers), 400, "invalid_argument")


async def test_nothing_is_answered_without_the_token(server: HttpServer) -> None:
    async with httpx2.AsyncClient(base_url=server.base) as stranger:
        for path in ("/api/tasks", "/api/openapi.json", "/api/events", "/api/nothing", "/metrics"):
            assert (await stranger.get(path)).status_code == 401
        assert (await stranger.get("/healthz")).json() == {"status": "ok"}


async def test_who_asks_and_what_answers_is_told(api: httpx2.AsyncClient) -> None:
    told = given(await api.get("/api/server"))
    assert (told["name"], told["role"], told["operator"]) == ("mcp-tasks", "owner", True)
