"""search_output over one task and over a whole session."""

from __future__ import annotations

import pytest

from mcp_tasks.errors import InvalidArgument
from tests.service.agent import Agent


async def test_a_line_is_found_with_its_number_and_place(agent: Agent) -> None:
    task_id = (await agent.run("seq 1 100; echo oops >&2"))["task_id"]
    answer = await agent.search("^7.$", task_id=task_id, order="oldest", limit=2)
    assert answer["matches"][0] == {
        "task_id": task_id,
        "stream": "stdout",
        "line": 70,
        "offset": len("".join(f"{n}\n" for n in range(1, 70))),
        "text": "70",
    }
    assert answer["more"]
    assert answer["scanned_bytes"] > 0
    answer = await agent.search("OOPS", task_id=task_id, ignore_case=True, stream="stderr")
    assert [match["text"] for match in answer["matches"]] == ["oops"]
    assert not answer["more"]
    assert "next_cursor" not in answer
    answer = await agent.search("^50$", task_id=task_id, context=1)
    assert (answer["matches"][0]["before"], answer["matches"][0]["after"]) == (["49"], ["51"])


@pytest.mark.parametrize("order", ["newest", "oldest"])
async def test_a_session_is_searched_task_by_task_and_page_by_page(agent: Agent, order: str) -> None:
    ids = [(await agent.run(f"seq 1 20 | sed 's/^/task {n} line /'"))["task_id"] for n in range(4)]
    await agent.of("other").run("echo task elsewhere")
    found: list[tuple[str, int]] = []
    cursor = None
    for _ in range(100):
        page = await agent.search("^task", order=order, limit=7, cursor=cursor)
        found += [(match["task_id"], match["line"]) for match in page["matches"]]
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    expected = [(task_id, line) for task_id in ids for line in range(1, 21)]
    assert found == (expected if order == "oldest" else expected[::-1])


async def test_a_task_that_was_cleared_between_two_pages_is_passed_over(agent: Agent) -> None:
    ids = [(await agent.run("echo hit; echo hit"))["task_id"] for _ in range(3)]
    page = await agent.search("hit", limit=3)
    assert [match["task_id"] for match in page["matches"]] == [ids[2], ids[2], ids[1]]
    await agent.clear(ids[1])
    page = await agent.search("hit", limit=3, cursor=page["next_cursor"])
    assert [match["task_id"] for match in page["matches"]] == [ids[0], ids[0]]


async def test_a_running_task_is_searched_as_far_as_it_is(agent: Agent) -> None:
    task_id = await agent.start("echo early; sleep 60")
    await agent.poll(task_id, pattern="early")
    assert len((await agent.search("early"))["matches"]) == 1
    await agent.cancel(task_id)


@pytest.mark.parametrize("options", [{"cursor": "x"}, {"cursor": "1-0-0"}, {"pattern": "("}])
async def test_what_cannot_be_is_refused(agent: Agent, options: dict[str, str]) -> None:
    await agent.run("echo x")
    with pytest.raises(InvalidArgument):
        await agent.search(**{"pattern": "x", **options})
