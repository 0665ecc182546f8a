"""Tasks and their output as resources, in both protocol eras."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from tests.server.clients import Front, Mode, connect, open_front

pytestmark = pytest.mark.anyio


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with open_front(tmp_path / "state") as front:
        yield front


@pytest.fixture(params=["legacy", "auto"])
async def client(request: pytest.FixtureRequest, front: Front) -> AsyncIterator[Client]:
    mode: Mode = request.param
    async with connect(front.server, mode) as client:
        yield client


async def _text(client: Client, uri: str) -> types.TextResourceContents:
    [contents] = (await client.read_resource(uri)).contents
    assert isinstance(contents, types.TextResourceContents)
    assert contents.uri == uri
    return contents


async def _refusal(client: Client, uri: str) -> int:
    with pytest.raises(MCPError) as caught:
        await client.read_resource(uri)
    assert "Traceback" not in caught.value.message
    return caught.value.code


async def test_the_tasks_of_the_session_are_listed_newest_first_by_page(front: Front, client: Client) -> None:
    ids = [(await front.agent.run(["true"], label=f"job {number}"))["task_id"] for number in range(52)]
    await front.agent.of("other").run("true")
    page = await client.list_resources()
    rest = await client.list_resources(cursor=page.next_cursor)
    assert rest.next_cursor is None
    found = [*page.resources, *rest.resources]
    assert [resource.uri for resource in found] == [f"task://{task_id}" for task_id in reversed(ids)]
    assert found[0].name == "job 51"
    assert found[0].description is not None
    assert found[0].description.startswith("completed, exit code 0")
    with pytest.raises(MCPError) as caught:
        await client.list_resources(cursor="nonsense")
    assert caught.value.code == types.INVALID_PARAMS


async def test_the_templates_are_the_addresses_that_can_be_read(client: Client) -> None:
    templates = (await client.list_resource_templates()).resource_templates
    assert [template.uri_template for template in templates] == [
        "task://{task_id}",
        "task://{task_id}/stdout{?offset,limit}",
        "task://{task_id}/stderr{?offset,limit}",
    ]


async def test_a_task_reads_as_get_result_shows_it(front: Front, client: Client) -> None:
    view = await front.agent.run("echo out; exit 3")
    contents = await _text(client, f"task://{view['task_id']}")
    assert contents.mime_type == "application/json"
    read = json.loads(contents.text)
    assert (read["state"], read["exit_code"], read["stdout"]) == ("failed", 3, "out\n")


async def test_output_reads_by_page_to_its_last_byte(front: Front, client: Client) -> None:
    written = "".join(f"{number} héllo €\n" for number in range(40_000))
    view = await front.agent.run(
        ["python3", "-c", "for n in range(40_000): print(n, 'héllo €')"], env={"PYTHONUTF8": "1"}
    )
    offset, read = 0, ""
    while offset < view["stdout_bytes"]:
        contents = await _text(client, f"task://{view['task_id']}/stdout?offset={offset}")
        assert len(contents.text.encode()) <= 262_144
        assert contents.meta is not None
        assert contents.meta["mcp-tasks/offset"] == offset
        read += contents.text
        offset = contents.meta["mcp-tasks/next_offset"]
    assert read == written
    end = await _text(client, f"task://{view['task_id']}/stdout?offset={offset}&limit=10")
    assert (end.text, (end.meta or {})["mcp-tasks/complete"]) == ("", True)
    nothing = await _text(client, f"task://{view['task_id']}/stderr")
    assert nothing.text == ""


async def test_bytes_that_are_no_text_are_a_blob(front: Front, client: Client) -> None:
    view = await front.agent.run(r"printf 'a\377b'; printf '\303\251' >&2")
    [contents] = (await client.read_resource(f"task://{view['task_id']}/stdout")).contents
    assert isinstance(contents, types.BlobResourceContents)
    assert base64.b64decode(contents.blob) == b"a\xffb"
    # Less than a character: its bytes, so that who reads on by limit gets past it.
    [half] = (await client.read_resource(f"task://{view['task_id']}/stderr?limit=1")).contents
    assert isinstance(half, types.BlobResourceContents)
    assert base64.b64decode(half.blob) == b"\xc3"
    assert (half.meta or {})["mcp-tasks/next_offset"] == 1


async def test_a_character_that_is_still_being_written_is_held_back(
    front: Front, client: Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    task_id = await front.agent.start(f"printf 'a\\303'; cat {gate}; printf '\\251'")
    await front.agent.poll(task_id, until="output", cursor="1-0-0", wait_ms=10_000)
    contents = await _text(client, f"task://{task_id}/stdout")
    assert contents.text == "a"
    assert (contents.meta or {})["mcp-tasks/complete"] is False
    await anyio.to_thread.run_sync(gate.write_text, "")
    await front.agent.ended(task_id)
    assert (await _text(client, f"task://{task_id}/stdout?offset=1")).text == "é"


async def test_a_character_of_which_there_is_nothing_but_the_beginning_is_held_back_too(
    front: Front, client: Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    task_id = await front.agent.start(f"printf '\\303'; cat {gate}; printf '\\251'")
    await front.agent.poll(task_id, until="output", cursor="1-0-0", wait_ms=10_000)
    contents = await _text(client, f"task://{task_id}/stdout")
    assert (contents.text, (contents.meta or {})["mcp-tasks/next_offset"]) == ("", 0)
    await anyio.to_thread.run_sync(gate.write_text, "")
    await front.agent.ended(task_id)
    assert (await _text(client, f"task://{task_id}/stdout?offset=0")).text == "é"


@pytest.mark.parametrize(
    "uri",
    [
        "task://" + "0" * 36,
        "task://" + "0" * 36 + "/stdout",
        "task://nonsense",
        "task://../../etc/passwd",
        "task://{id}/stdin",
        "task://{id}/stdout?limit=0",
        "task://{id}/stdout?limit=262145",
        "task://{id}/stdout?offset=-1",
        "task://{id}/stdout?offset=9999999999999999999",
        "task://{id}/stdout?offset=1&colour=red",
        "task://{id}?offset=1",
        "file:///etc/passwd",
        "",
    ],
)
async def test_what_is_no_resource_is_a_wrong_parameter(front: Front, client: Client, uri: str) -> None:
    view = await front.agent.run("true")
    assert await _refusal(client, uri.replace("{id}", view["task_id"])) == types.INVALID_PARAMS


async def test_another_owner_sees_nothing(tmp_path: Path) -> None:
    async with open_front(tmp_path / "state", owner="somebody else") as front:
        view = await front.agent.run("echo secret")
        async with connect(front.server, "auto") as client:
            assert (await client.list_resources()).resources == []
            for part in ("", "/stdout"):
                assert await _refusal(client, f"task://{view['task_id']}{part}") == types.INVALID_PARAMS


async def test_whoever_has_no_right_to_read_is_refused_without_an_inner_word(
    front: Front, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: Any) -> None:
        raise RuntimeError("the inner word")

    monkeypatch.setattr(front.agent.service, "list_tasks", fails)
    with pytest.raises(MCPError) as caught:
        await client.list_resources()
    assert caught.value.code == types.INTERNAL_ERROR
    assert "inner word" not in caught.value.message
    assert caught.value.message.split("incident ")[1].split(";")[0] in caplog.text
