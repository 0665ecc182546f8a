from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from mcp_tasks.errors import (
    InvalidArgument,
    MessageNotFound,
    PolicyDenied,
    SessionNotFound,
    TaskNotFound,
    TasksError,
)
from mcp_tasks.models import Draft, SessionKey
from mcp_tasks.requests import AddMessage, ExportSession, ReadJournal, SearchJournal
from mcp_tasks.service import ToolCall
from tests.service.agent import Agent, open_agent
from tests.waiting import wait_until

SECRET = "ghp_" + "a1B2" * 9


async def say(agent: Agent, text: str, **options: Any) -> dict[str, Any]:
    view = await agent.service.add_message(agent.caller, AddMessage(text=text, **options))
    message: dict[str, Any] = view["message"]
    return message


async def read(agent: Agent, **options: Any) -> dict[str, Any]:
    return await agent.service.read_journal(agent.caller, ReadJournal(**options))


async def said(agent: Agent, **options: Any) -> list[str]:
    """The texts that somebody wrote, oldest first, whatever came into the journal by itself."""
    view = await read(agent, order="oldest", limit=1_000, **options)
    return [one["text"] for one in view["messages"] if one["role"] in ("user", "assistant", "system")]


async def search(agent: Agent, text: str, **options: Any) -> list[str]:
    request = SearchJournal(text=text, **options)
    view = await agent.service.search_journal(agent.caller, request)
    return [message["text"] for message in view["messages"]]


async def export(agent: Agent, kind: str) -> str:
    return "".join(agent.service.export_pieces(agent.caller, kind))


def call(tool: str, arguments: dict[str, Any], answer: dict[str, Any]) -> ToolCall:
    return ToolCall(tool, 1_700_000_000_000, 12, arguments, answer)


# -- messages ----------------------------------------------------------------------------------


async def test_a_message_makes_its_session_and_is_read_back(agent: Agent) -> None:
    task_id = (await agent.run("true"))["task_id"]
    first = await say(agent, "what now?", role="user")
    second = await say(agent, "tests first", parent=first["message_id"], task_id=task_id)

    assert second["role"] == "assistant"
    assert second["seq"] > first["seq"]
    view = await read(agent, role="assistant")
    assert view == {"session": "default", "messages": [second]}
    assert second.keys() == {"message_id", "seq", "role", "text", "at", "task_id", "parent"}
    await say(agent.of("fresh"), "hello")
    assert "fresh" in [one["session"] for one in (await agent.sessions())["sessions"]]


async def test_reading_makes_no_session(agent: Agent) -> None:
    nowhere = agent.of("nowhere")
    await agent.service.journal_stats(nowhere.caller)
    with pytest.raises(MessageNotFound):
        await say(nowhere, "answer", parent="nobody")
    with pytest.raises(TaskNotFound):
        await say(nowhere, "about", task_id="nothing")

    assert [one["session"] for one in (await agent.sessions())["sessions"]] == []


async def test_pages_go_on_with_the_cursor_in_either_order(agent: Agent) -> None:
    for n in range(7):
        await say(agent, f"text {n}")
    for order, wanted in (("oldest", range(7)), ("newest", reversed(range(7)))):
        found: list[str] = []
        page = await read(agent, order=order, limit=2, role="assistant")
        found += [one["text"] for one in page["messages"]]
        while "next_cursor" in page:
            page = await read(agent, order=order, limit=2, role="assistant", cursor=page["next_cursor"])
            found += [one["text"] for one in page["messages"]]
        assert found == [f"text {n}" for n in wanted]


@pytest.mark.parametrize("cursor", ["", "o1", "n0", "n-1", "nonsense", "n" + "9" * 30])
async def test_a_cursor_of_another_listing_is_refused(agent: Agent, cursor: str) -> None:
    await agent.update(title="cursors")
    with pytest.raises(InvalidArgument, match="cursor"):
        await read(agent, cursor=cursor)


async def test_a_page_stays_small_whatever_is_in_the_messages(agent: Agent) -> None:
    for n in range(12):
        await say(agent, f"{n} " + "x" * 200_000)
    page = await read(agent, limit=12)

    assert len(json.dumps(page)) < 60_000
    assert page["messages"][0]["omitted_characters"] > 100_000
    assert "next_cursor" in page
    again = await read(agent, limit=12, cursor=page["next_cursor"])
    assert again["messages"][0]["seq"] == page["messages"][-1]["seq"] - 1


async def test_threads_branches_and_versions_are_told(agent: Agent) -> None:
    root = await say(agent, "root")
    await say(agent, "aside")
    left = await say(agent, "left", parent=root["message_id"])
    await say(agent, "right", parent=root["message_id"])
    edited = await say(agent, "Left", replaces=left["message_id"])

    assert "edited_at" in edited
    assert await said(agent, thread=left["message_id"]) == ["root", "Left", "right"]
    assert await said(agent, branch=left["message_id"]) == ["root", "Left"]
    assert await said(agent, versions=left["message_id"]) == ["left", "Left"]
    page = await read(agent, thread=root["message_id"], limit=2)
    rest = await read(agent, thread=root["message_id"], limit=2, cursor=page["next_cursor"])
    assert [one["text"] for one in rest["messages"]] == ["right"]
    with pytest.raises(InvalidArgument, match="thread"):
        await read(agent, thread=root["message_id"], branch=root["message_id"])
    await agent.of("other").update(title="another")
    with pytest.raises(MessageNotFound):
        await read(agent.of("other"), thread=root["message_id"])


async def test_only_what_somebody_said_can_be_edited(agent: Agent) -> None:
    await agent.run("true")
    events = (await read(agent, role="event"))["messages"]
    with pytest.raises(InvalidArgument, match="event"):
        await say(agent, "forged", replaces=events[0]["message_id"])
    with pytest.raises(MessageNotFound):
        await say(agent, "forged", replaces="nobody")


async def test_search_finds_words_and_refuses_what_has_none(agent: Agent) -> None:
    for n in range(5):
        await say(agent, f"the build number {n} failed")
    assert await search(agent, "FAILED number 3") == ["the build number 3 failed"]
    first = await agent.service.search_journal(agent.caller, SearchJournal(text="build", limit=2))
    rest = await search(agent, "build", cursor=first["next_cursor"])
    assert rest == [f"the build number {n} failed" for n in (2, 1, 0)]
    with pytest.raises(InvalidArgument, match="no word"):
        await search(agent, "--- ")


async def test_secrets_are_taken_out_of_messages(agent: Agent) -> None:
    message = await say(agent, f"use {SECRET} there")

    assert SECRET not in message["text"]
    assert SECRET not in await export(agent, "json")


async def test_who_may_only_read_writes_nothing(agent: Agent) -> None:
    await say(agent.of("mine"), "hello")
    token = (await agent.of("mine").update(share="read"))["share"]["token"]
    guest = agent.with_share(token)

    assert await said(guest) == ["hello"]
    with pytest.raises(PolicyDenied):
        await say(guest, "me too")
    with pytest.raises(PolicyDenied):
        await agent.service.prune_journal(guest.caller, 0)
    with pytest.raises(PolicyDenied):
        await agent.service.import_journal(guest.caller, b"{}")


# -- what comes by itself ----------------------------------------------------------------------


async def test_the_end_of_a_task_is_told_once(agent: Agent, tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state") as other:
        task_id = await agent.start("exit 3", label="build")
        await other.ended(task_id)
        await agent.ended(task_id)
        (entry,) = await ends_of(agent, task_id)
    assert entry["text"] == "task build failed: exit code 3"
    assert entry["data"]["outcome"] == "exited"
    assert entry["data"]["exit_code"] == 3
    async with open_agent(tmp_path / "state") as third:
        assert len(await ends_of(third, task_id)) == 1


async def ends_of(agent: Agent, task_id: str) -> list[dict[str, Any]]:
    journal = agent.service._desk.journal

    def there() -> bool:
        journal.flush()
        return bool(journal.read(agent.caller.session_key, role="event", task_id=task_id))

    import anyio.to_thread

    await anyio.to_thread.run_sync(wait_until, there, "the end of the task is in the journal")
    found: list[dict[str, Any]] = (await read(agent, role="event", task_id=task_id))["messages"]
    return found


async def test_a_cancelled_task_has_its_end_in_the_journal(narrow: Agent) -> None:
    running = await narrow.start("sleep 60")
    waiting = await narrow.start("true")
    await narrow.cancel(waiting)
    await narrow.cancel(running, grace_ms=0)

    assert "cancelled" in (await ends_of(narrow, waiting))[0]["text"]
    assert (await ends_of(narrow, running))[0]["data"]["state"] == "cancelled"


async def test_a_call_is_written_down_without_its_secrets(agent: Agent) -> None:
    view = await agent.run("true")
    arguments = {
        "command": f"deploy --token {SECRET}",
        "env": {"PLAIN": "hidden value"},
        "stdin": "typed value",
        "wait_ms": 5,
        "label": "x" * 10_000,
    }
    agent.service.note_call(agent.caller, call("run_command", arguments, view))
    (entry,) = (await read(agent, role="tool"))["messages"]

    told = json.dumps(entry)
    for hidden in (SECRET, "hidden value", "typed value"):
        assert hidden not in told
    assert entry["task_id"] == view["task_id"]
    assert entry["text"].startswith("run_command deploy --token")
    assert entry["text"].endswith("completed, exit 0 (12 ms)")
    assert entry["data"]["duration_ms"] == 12
    assert entry["data"]["tool"] == "run_command"
    assert entry["data"]["result"]["state"] == "completed"
    assert entry["data"]["arguments"]["wait_ms"] == 5
    assert len(entry["data"]["arguments"]["label"]) < 3_000


async def test_a_refused_call_is_written_down_with_its_code(agent: Agent) -> None:
    await say(agent, "there")
    error = {"code": "task_not_found", "message": f"no task {SECRET}", "hint": "x"}
    agent.service.note_call(agent.caller, call("poll_task", {"task_id": "t1", "ids": [1]}, error))
    agent.service.note_call(agent.caller, call("list_tasks", {}, {"tasks": []}))
    listed, refused = (await read(agent, role="tool"))["messages"]

    assert refused["data"]["error"] == {"code": "task_not_found", "message": "no task [redacted]"}
    assert refused["task_id"] == "t1"
    assert listed["text"] == "list_tasks: done (12 ms)"


async def test_a_call_in_a_session_that_does_not_exist_leaves_nothing(agent: Agent) -> None:
    nowhere = agent.of("nowhere")
    agent.service.note_call(nowhere.caller, call("list_tasks", {}, {"tasks": []}))
    stranger = agent.with_share("mcptasks_share_x.y")
    agent.service.note_call(stranger.caller, call("list_tasks", {}, {"tasks": []}))
    agent.service._desk.journal.flush()

    assert agent.service._desk.journal.figures(SessionKey(nowhere.caller.owner, "nowhere")).live == 0
    with pytest.raises(SessionNotFound):
        await read(nowhere)


async def test_the_versions_of_a_message_are_read_by_page(agent: Agent) -> None:
    message = await say(agent, "0")
    for number in range(1, 20):
        await say(agent, f"{number} {'x' * 5_000}", replaces=message["message_id"])
    found, pages = [], 0
    options: dict[str, Any] = {"versions": message["message_id"]}
    while True:
        view = await read(agent, **options)
        found += [one["text"].split()[0] for one in view["messages"]]
        pages += 1
        if "next_cursor" not in view:
            break
        options["cursor"] = view["next_cursor"]

    assert found == [str(number) for number in range(20)]
    assert pages > 1


# -- folding -----------------------------------------------------------------------------------


async def test_a_journal_keeps_to_its_limit_and_gives_everything_back(agent: Agent) -> None:
    await agent.update(journal_limit=10)
    for n in range(35):
        await say(agent, f"text {n}")
    stats = await agent.service.journal_stats(agent.caller)

    assert stats["live"] <= 10
    assert stats["limit"] == 10
    assert stats["live"] + stats["folded"] >= 35
    assert stats["age_ms"] >= 0
    assert stats["idle_ms"] >= 0
    assert await said(agent, folded=True) == [f"text {n}" for n in range(35)]
    summaries = (await read(agent, role="summary"))["messages"]
    assert "text 0" in summaries[-1]["text"]
    pruned = await agent.service.prune_journal(agent.caller, 2)
    assert pruned["live"] <= 3
    assert (await agent.service.prune_journal(agent.caller))["folded"] == 0


async def test_a_limit_of_nothing_folds_nothing(agent: Agent) -> None:
    await agent.update(journal_limit=0)
    await say(agent, "stays")

    assert (await agent.service.prune_journal(agent.caller))["folded"] == 0
    assert (await agent.service.journal_stats(agent.caller))["limit"] is None


async def test_a_sealed_journal_has_no_readable_text_on_the_disk(agent: Agent, tmp_path: Path) -> None:
    await agent.update(seal_journal=True)
    await say(agent, "quagmire of words")
    agent.service.note_call(agent.caller, call("run_command", {"command": "quixotic"}, {"state": "failed"}))

    assert await search(agent, "quagmire") == ["quagmire of words"]
    (entry,) = (await read(agent, role="tool"))["messages"]
    assert "quixotic" in entry["text"]
    await agent.service.prune_journal(agent.caller, 0)
    assert await said(agent, folded=True) == ["quagmire of words"]
    for path in (tmp_path / "state").glob("journal.db*"):
        assert b"quagmire" not in path.read_bytes()
        assert b"quixotic" not in path.read_bytes()


# -- export and import -------------------------------------------------------------------------


async def test_an_export_has_the_session_its_tasks_and_its_journal(agent: Agent) -> None:
    await agent.update(title="The big change")
    task_id = (await agent.run("echo ``` | cat"))["task_id"]
    first = await say(agent, "Fence: ```\ncode\n```", role="user")
    await say(agent, "Fence!", replaces=first["message_id"])
    await say(agent, "answer", parent=first["message_id"], task_id=task_id)
    markdown = await export(agent, "markdown")
    document = json.loads(await export(agent, "json"))

    for word in ("# Session default", "The big change", task_id, "````text", "answers `", "Before, since"):
        assert word in markdown
    assert document["session"]["title"] == "The big change"
    assert [task["task_id"] for task in document["tasks"]] == [task_id]
    texts = [one["text"] for one in document["messages"] if one["role"] in ("user", "assistant")]
    assert texts == ["Fence!", "answer"]
    (edited,) = [one for one in document["messages"] if "versions" in one]
    assert edited["versions"][0]["text"] == "Fence: ```\ncode\n```"


async def test_an_export_of_nothing_says_so(agent: Agent) -> None:
    await agent.update(seal_journal=False)
    markdown = await export(agent, "markdown")

    assert "none" in markdown
    assert json.loads(await export(agent, "json"))["tasks"] == []


async def test_the_journal_of_a_session_that_is_not_there_is_told_from_an_empty_one(agent: Agent) -> None:
    nowhere = agent.of("nowhere")
    with pytest.raises(SessionNotFound, match="nowhere"):
        await read(nowhere)
    with pytest.raises(SessionNotFound, match="nowhere"):
        await search(nowhere, "word")
    with pytest.raises(SessionNotFound, match="nowhere"):
        await export(nowhere, "json")
    with pytest.raises(SessionNotFound, match="nowhere"):
        agent.service.export_pieces(nowhere.caller, "json")
    assert (await nowhere.list())["tasks"] == []


@pytest.mark.parametrize("kind", ["json", "markdown"])
@pytest.mark.parametrize("limit", [1, 7, 4_096, 262_144])
async def test_the_pages_of_an_export_are_one_text_though_the_journal_grows(
    agent: Agent, kind: Literal["json", "markdown"], limit: int
) -> None:
    await agent.update(title="pages")
    for n in range(3 if limit < 100 else 300):
        key = agent.caller.session_key
        agent.service._desk.journal.append(
            [Draft(key, "user", f"łódź 🦆 {n} " + "x" * 10 * (limit > 100), n)]
        )
    pages: list[str] = []
    offset: int | None = 0
    total = -1
    while offset is not None:
        view = await agent.service.export_session(
            agent.caller, ExportSession(format=kind, offset=offset, limit=limit)
        )
        assert view["offset"] == offset
        pages.append(view["text"])
        offset, total = view.get("next_offset"), view["total_bytes"]
        assert view.get("more", False) == (offset is not None)
        if len(pages) < 5:
            await say(agent, "meanwhile")
    whole = "".join(pages)

    assert len(whole.encode()) == total
    assert "meanwhile" not in whole
    assert whole.count("🦆") == (3 if limit < 100 else 300)
    after = await agent.service.export_session(agent.caller, ExportSession(format=kind, offset=10**9))
    assert after["text"] == ""


async def test_an_export_that_nobody_reads_on_is_forgotten(agent: Agent) -> None:
    for name in ("a", "b", "c", "d", "e"):
        await agent.of(name).update(title=name)
        await agent.service.export_session(agent.of(name).caller, ExportSession(limit=10))
    view = await agent.service.export_session(agent.of("a").caller, ExportSession(offset=10, limit=10))

    assert view["offset"] == 10  # made again


async def test_what_was_exported_is_imported_into_another_session(agent: Agent) -> None:
    first = await say(agent, "first", role="user")
    await say(agent, "First", replaces=first["message_id"])
    await say(agent, "second", parent=first["message_id"])
    await agent.service.prune_journal(agent.caller, 1)
    document = (await export(agent, "json")).encode()
    there = agent.of("copy")
    imported = await agent.service.import_journal(there.caller, document)
    again = await agent.service.import_journal(there.caller, document)

    assert imported["imported"] == len(json.loads(document)["messages"])
    assert (again["imported"], again["skipped"]) == (0, imported["imported"])
    assert await said(there) == ["First", "second"]
    assert await said(there, versions=first["message_id"]) == ["first", "First"]
    assert await said(there, branch=first["message_id"]) == ["First"]
    had = {one["message_id"]: one for one in json.loads(document)["messages"]}
    has = {one["message_id"]: one for one in json.loads(await export(there, "json"))["messages"]}
    assert [{**has[one], "seq": 0} for one in had] == [{**had[one], "seq": 0} for one in had]


GOOD = {
    "message_id": "m1",
    "seq": 1,
    "role": "user",
    "text": "hello",
    "at": "2026-01-31T12:00:00.000Z",
}


@pytest.mark.parametrize(
    ("document", "named"),
    [
        (b"", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[]", "the document"),
        ({}, "format"),
        ({"format": "other", "version": 1, "messages": []}, "format"),
        ({"format": "mcp-tasks session", "version": 2, "messages": []}, "version"),
        ({"messages": [{**GOOD, "role": "summary"}]}, r"messages\[1\]\.role"),
        ({"messages": [GOOD, {**GOOD, "seq": 0}]}, r"messages\[2\]\.seq"),
        ({"messages": [{**GOOD, "seq": True}]}, r"messages\[1\]\.seq"),
        ({"messages": [{**GOOD, "at": "yesterday"}]}, r"messages\[1\]\.at"),
        ({"messages": [{**GOOD, "at": 5}]}, r"messages\[1\]\.at"),
        ({"messages": [{**GOOD, "at": "2026-01-31T12:00:00"}]}, r"messages\[1\]\.at"),
        ({"messages": [{**GOOD, "message_id": "../x"}]}, r"messages\[1\]\.message_id"),
        ({"messages": [{**GOOD, "data": [1]}]}, r"messages\[1\]\.data"),
        ({"messages": [{**GOOD, "versions": [{"at": GOOD["at"]}]}]}, r"messages\[1\]\.versions\[1\]\.text"),
        ({"messages": [{"text": "x"}]}, r"messages\[1\]\.message_id"),
        ({"messages": "none"}, "messages"),
    ],
)
async def test_a_malformed_document_is_refused_by_name_and_changes_nothing(
    agent: Agent, document: Any, named: str
) -> None:
    if isinstance(document, dict) and "messages" in document:
        document = {"format": "mcp-tasks session", "version": 1, **document}
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(InvalidArgument, match=named):
        await agent.service.import_journal(agent.of("there").caller, data)

    assert (await agent.sessions())["sessions"] == []


async def test_secrets_are_taken_out_of_what_is_imported(agent: Agent) -> None:
    await agent.update(env={"DB_PASSWORD": "of the workspace"})
    message = {**GOOD, "text": f"key {SECRET}", "data": {"password": "hunter2", "x": "of the workspace"}}
    document = {"format": "mcp-tasks session", "version": 1, "messages": [message], "more": "ignored"}
    await agent.service.import_journal(agent.caller, json.dumps(document).encode())
    text = await export(agent, "json")

    assert SECRET not in text
    assert "hunter2" not in text
    assert "of the workspace" not in text


# -- trouble -----------------------------------------------------------------------------------


async def test_a_journal_that_cannot_be_opened_stops_no_command(tmp_path: Path) -> None:
    place = tmp_path / "state"
    async with open_agent(place):
        pass
    (place / "journal.db").unlink(missing_ok=True)
    (place / "journal.db").symlink_to(tmp_path / "elsewhere")
    async with open_agent(place) as agent:
        view = await agent.run("echo well")
        assert view["stdout"] == "well\n"
        agent.service.note_call(agent.caller, call("run_command", {"command": "x"}, view))
        with pytest.raises(TasksError) as raised:
            await say(agent, "lost")
        assert raised.value.code == "store_unavailable"
        assert "journal cannot be used" in " ".join(agent.service.problems())
        assert "journal cannot be used" in agent.service.startup_report()
        assert "problems were found" in (await agent.list())["warning"]
    assert not (tmp_path / "elsewhere").exists()


async def test_a_damaged_journal_is_begun_anew_and_told(tmp_path: Path) -> None:
    place = tmp_path / "state"
    async with open_agent(place) as agent:
        await say(agent, "old")
    (place / "journal.db").write_bytes(b"garbage" * 1_000)
    async with open_agent(place) as agent:
        assert (await agent.run("true"))["state"] == "completed"
        await say(agent, "new")
        assert await said(agent) == ["new"]
        assert "journal.db could not be read and was set aside" in agent.service.startup_report()


async def test_the_memory_store_keeps_its_journal_in_memory(tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state", store="memory") as agent:
        await say(agent, "here")
        assert await said(agent) == ["here"]
        assert await search(agent, "here") == ["here"]
    assert not (tmp_path / "state" / "journal.db").exists()
