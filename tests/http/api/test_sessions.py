"""Sessions, their history and the context of their project over the API; shares; what is the operator's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.http.api.asking import given, refused, started


@pytest.fixture
def name(api: httpx2.AsyncClient) -> str:
    return api.headers["Mcp-Tasks-Session"]


async def made(api: httpx2.AsyncClient, name: str, **fields: Any) -> dict[str, Any]:
    view: dict[str, Any] = given(await api.post("/api/sessions", json={"session": name, **fields}), 201)
    return view


async def test_a_session_is_made_changed_extended_ended_and_removed(
    api: httpx2.AsyncClient, name: str
) -> None:
    place = f"/api/sessions/{name}"
    refused(await api.get(place), 404, "session_not_found")
    view = await made(api, name, title="one", preferences={"a": 1})
    assert (view["session"], view["title"]) == (name, "one")
    refused(await api.post("/api/sessions", json={"session": name}), 409, "revision_conflict")
    changed = given(await api.patch(place, json={"title": "two"}))
    assert changed["title"] == "two"
    stale = await api.patch(place, json={"title": "three", "revision": view["revision"]})
    refused(stale, 409, "revision_conflict")
    assert "expires_at" in given(await api.post(f"{place}/extend", json={"expires_in_ms": 3_600_000}))
    assert "expires_at" not in given(await api.post(f"{place}/extend", json={"expires_in_ms": 0}))
    assert name in {each["session"] for each in given(await api.get("/api/sessions"))["sessions"]}
    assert given(await api.post(f"{place}/end", json={"reason": "done"}))["state"] == "closed"
    given(await api.delete(place))
    refused(await api.get(place), 404, "session_not_found")


async def test_extending_makes_no_session(api: httpx2.AsyncClient, name: str) -> None:
    response = await api.post(f"/api/sessions/{name}/extend", json={"expires_in_ms": 1_000})
    refused(response, 404, "session_not_found")
    refused(await api.delete(f"/api/sessions/{name}/context"), 404, "session_not_found")


async def test_a_session_in_which_something_runs_is_removed_by_force_only(
    api: httpx2.AsyncClient, name: str
) -> None:
    await started(api, "sleep 60", wait_ms=0)
    refused(await api.delete(f"/api/sessions/{name}"), 409, "task_not_finished")
    given(await api.delete(f"/api/sessions/{name}?force=true"))


async def test_history_is_written_read_searched_counted_and_cleared(
    api: httpx2.AsyncClient, name: str
) -> None:
    await made(api, name)
    history = f"/api/sessions/{name}/history"
    first = given(await api.post(history, json={"text": "an apple", "role": "user"}), 201)["message"]
    answer = given(await api.post(history, json={"text": "a pear", "parent": first["message_id"]}), 201)
    page = given(await api.get(history, params={"role": "user"}))
    assert [message["text"] for message in page["messages"]] == ["an apple"]
    one = given(await api.get(f"{history}/{answer['message']['message_id']}"))["message"]
    assert (one["text"], one["parent"]) == ("a pear", first["message_id"])
    refused(await api.get(f"{history}/none"), 404, "message_not_found")
    found = given(await api.get(f"{history}/search", params={"text": "apple"}))
    assert [message["message_id"] for message in found["messages"]] == [first["message_id"]]
    live = given(await api.get(f"{history}/stats"))["live"]
    assert given(await api.post(f"{history}/prune", json={"keep": live - 1}))["folded"] >= 1
    given(await api.delete(history))
    texts = [message["text"] for message in given(await api.get(history))["messages"]]
    assert "an apple" not in texts
    folded = given(await api.get(history, params={"folded": "true", "limit": 1000}))["messages"]
    assert {"an apple", "a pear"} <= {message["text"] for message in folded}


async def test_a_session_is_exported_whole_and_by_page_and_taken_in_again(
    api: httpx2.AsyncClient, name: str
) -> None:
    await made(api, name)
    given(await api.post(f"/api/sessions/{name}/history", json={"text": "kept ä"}), 201)
    whole = await api.get(f"/api/sessions/{name}/export/whole?format=json")
    assert whole.headers["content-type"].startswith("application/json")
    assert f'filename="{name}.json"' in whole.headers["content-disposition"]
    assert "kept ä" in {message["text"] for message in whole.json()["messages"]}
    markdown = await api.get(f"/api/sessions/{name}/export/whole")
    assert markdown.headers["content-type"].startswith("text/markdown")
    assert "kept ä" in markdown.text
    page = given(await api.get(f"/api/sessions/{name}/export", params={"limit": 10}))
    assert (len(page["text"].encode()), page["more"]) == (10, True)
    other = f"/api/sessions/{name[:-2]}-2"
    json_type = {"Content-Type": "application/json"}
    given(await api.patch(other, json={}))
    taken = given(await api.post(f"{other}/import", content=whole.content, headers=json_type))
    assert taken["imported"] >= 1
    again = given(await api.post(f"{other}/import", content=whole.content, headers=json_type))
    assert again["imported"] == 0
    refused(await api.post(f"{other}/import", content=b"{}", headers=json_type), 400, "invalid_argument")
    refused(await api.get("/api/sessions/none/export/whole"), 404, "session_not_found")


async def test_what_is_known_of_the_project_is_told_replaced_and_cleared(
    api: httpx2.AsyncClient, name: str, tmp_path: Path
) -> None:
    (tmp_path / "package.json").write_text(json.dumps({"scripts": {"test": "jest"}}))
    await made(api, name, cwd=str(tmp_path))
    context = f"/api/sessions/{name}/context"
    assert "from" in given(await api.get(context))["test"][0]
    project = {"test": "make check", "style": "tabs"}
    replaced = given(await api.put(context, json={"project": project}))
    assert replaced["test"] == [{"command": "make check", "from": "preferences"}]
    assert replaced["set"] == {"style": "tabs"}
    assert "set" not in given(await api.put(context, json={"project": {"test": "make"}}))
    cleared = given(await api.delete(context))
    assert cleared["test"][0]["from"] != "preferences"
    assert given(await api.post(f"{context}/refresh"))["cached"] is False


async def test_a_share_opens_its_session_and_no_other_and_nothing_of_the_server(
    api: httpx2.AsyncClient, name: str
) -> None:
    await made(api, name)
    token = given(await api.patch(f"/api/sessions/{name}", json={"share": "read"}))["share"]["token"]
    task_id = await started(api, "echo shared")
    share = {"Mcp-Tasks-Share": token}
    assert given(await api.get(f"/api/tasks/{task_id}", headers=share))["stdout"] == "shared\n"
    assert (await api.get(f"/api/tasks/{task_id}/stdout", headers=share)).content == b"shared\n"
    denied = [
        await api.post("/api/tasks", json={"command": "true"}, headers=share),
        await api.delete(f"/api/sessions/{name}", headers=share),
        await api.get("/api/server/sessions", headers=share),
        await api.delete("/api/server/projects", headers=share),
    ]
    for response in denied:
        refused(response, 403, "policy_denied")
    other = await api.get("/api/sessions/other", headers=share)
    refused(other, 404, "session_not_found")
    for path in ("/api/tasks", "/api/events", f"/api/tasks/{task_id}/events"):
        wrong = await api.get(path, headers={"Mcp-Tasks-Share": f"{token}x"})
        refused(wrong, 404, "session_not_found")


async def test_the_operator_sees_all_sessions_and_looks_after_what_is_known_of_projects(
    api: httpx2.AsyncClient, name: str, tmp_path: Path
) -> None:
    await made(api, name)
    assert name in json.dumps(given(await api.get("/api/server/sessions")))
    folders = {"folders": [str(tmp_path), str(tmp_path / "none")]}
    done = given(await api.post("/api/server/projects", json=folders))
    assert done == {
        "warmed": [{"cwd": str(tmp_path), "looked_at": True}],
        "failed": [str(tmp_path / "none")],
    }
    assert given(await api.get("/api/server/projects"))["misses"] >= 1
    assert given(await api.delete("/api/server/projects"))["cleared"] >= 1
