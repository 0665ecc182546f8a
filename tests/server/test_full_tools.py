"""Every tool of the full set, called through the real server over stdio as any client calls it."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import jsonschema  # type: ignore[import-untyped] # it has no types of its own
import mcp_types as types
import pytest
from mcp import Client, StdioServerParameters

from mcp_tasks.server.toolsets import FULL
from tests.projects.folders import git, put
from tests.server.test_stdio import ROOT, command_line

pytestmark = pytest.mark.anyio

Mode = Literal["legacy", "auto"]

LONG = 20_000


class Caller:
    """Calls tools, insists on success, and checks what holds of every answer."""

    def __init__(self, client: Client, outputs: dict[str, dict[str, Any]]) -> None:
        self.client = client
        self.called: set[str] = set()
        self._outputs = outputs
        self.text = ""

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self.client.call_tool(tool, arguments)
        view: dict[str, Any] | None = result.structured_content
        assert not result.is_error, view
        assert view is not None
        jsonschema.validate(view, self._outputs[tool])
        always = set(self._outputs[tool]["properties"]) - {"code", "message", "hint"}
        if tool == "add_message":
            always.add("message")  # which is a field of errors as well
        assert always <= set(view) | _MAY_BE_EMPTY, (tool, always - set(view))
        [content] = result.content
        assert isinstance(content, types.TextContent)
        assert len(json.dumps(content.text)) < 60_000
        self.text = content.text
        self.called.add(tool)
        return view

    async def refused(self, tool: str, **arguments: Any) -> str:
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error, result.structured_content
        said = result.structured_content
        assert said is not None
        assert set(said) == {"code", "message", "hint"}
        return str(said["code"])


_MAY_BE_EMPTY = frozenset(("tasks", "messages", "sessions", "counts"))


@asynccontextmanager
async def connected(folder: Path, mode: Mode, store: str = "json") -> AsyncIterator[Caller]:
    command, *arguments = command_line(folder)
    arguments[arguments.index("json")] = store
    parameters = StdioServerParameters(
        command=command,
        args=[*arguments, "--tools", "full"],
        cwd=ROOT,
        env={**os.environ, "XDG_CONFIG_HOME": str(folder / "config")},
    )
    with anyio.fail_after(100):
        async with Client(parameters, mode=mode) as client:
            listed = (await client.list_tools()).tools
            assert [tool.name for tool in listed] == [tool.name for tool in FULL]
            yield Caller(client, {tool.name: tool.output_schema or {} for tool in listed})


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("store", ["json", "sqlite"])
async def test_every_tool_of_the_full_set_does_what_it_says(tmp_path: Path, mode: Mode, store: str) -> None:
    work = put(git(tmp_path / "work"), Makefile="test:\n\ttrue\n")
    async with connected(tmp_path / "state", mode, store) as call:
        assert await call.refused("session_info", session="web") == "session_not_found"
        updated = await call(
            "update_session",
            session="web",
            title="The site",
            working_directory=str(work),
            env={"GREETING": "hello"},
            preferences='{"project": {"build": "make -j"}}',
            journal_limit="50",
        )
        assert (updated["title"], updated["workspace"]["cwd"]) == ("The site", str(work))
        assert updated["workspace"]["env"] == ["GREETING"]
        assert "hello" not in call.text

        project = await call("project_context", session="web")
        assert project["vcs"]["branch"] == "main"
        assert project["test"][0]["command"] == "make test"
        assert project["build"] == [{"command": "make -j", "from": "preferences"}]
        assert "make test" in call.text
        put(work, go_dot_mod="module x\n")
        assert (
            "manifest added: go.mod" in (await call("project_context", session="web", diff=True))["changes"]
        )

        ran = await call("run_command", session="web", command="echo $GREETING; pwd", wait_ms=LONG)
        assert ran["stdout"] == f"hello\n{work}\n"

        plan = await call(
            "run_plan",
            session="web",
            name="release",
            commands=[
                {"cmd": "echo one", "name": "first"},
                "echo two",
                {"command": ["false"], "after": [1, 2]},
            ],
            order="sequence",
        )
        assert plan["total"] == 3
        progress = await call("plan_progress", session="web", plan_id=plan["plan_id"], wait_ms=LONG)
        assert progress["state"] == "failed"
        assert progress["counts"] == {"completed": 2, "failed": 1}
        assert "2 completed" in call.text

        added = await call(
            "add_message", session="web", text="Decided: ship on Monday", task_id=ran["task_id"]
        )
        first = added["message"]["message_id"]
        reply = await call("add_message", session="web", text="Agreed", role="user", parent=first)
        edited = await call("add_message", session="web", text="Decided: ship on Tuesday", replaces=first)
        assert edited["message"]["edited_at"]
        read = await call("read_journal", session="web", branch=reply["message"]["message_id"])
        assert [message["text"] for message in read["messages"]] == ["Decided: ship on Tuesday", "Agreed"]
        assert "ship on Tuesday" in call.text
        versions = await call("read_journal", session="web", versions=first)
        assert "Decided: ship on Monday" in [message["text"] for message in versions["messages"]]
        found = await call("search_journal", session="web", text="ship tuesday")
        assert [message["message_id"] for message in found["messages"]] == [first]
        page = await call("read_journal", session="web", limit="1", order="oldest")
        assert len(page["messages"]) == 1
        assert "next_cursor" in page

        exported = await call("export_session", session="web")
        assert "ship on Tuesday" in exported["text"]
        assert "hello" not in exported["text"].replace("echo", "")
        whole = json.loads(
            (await call("export_session", session="web", format="json", limit=262_144))["text"]
        )
        assert whole

        info = await call("session_info", session="web")
        assert info["tasks"] == {"completed": 3, "failed": 1}
        assert [one["plan_id"] for one in info["plans"]] == [plan["plan_id"]]
        assert "The site" in call.text
        listed = await call("list_sessions")
        assert [one["session"] for one in listed["sessions"]] == ["web"]

        await call("run_command", session="web", command="sleep 60", background=True)
        ended = await call("end_session", session="web", force="true", reason="done")
        assert ended["state"] == "closed"
        assert len(ended["cancelled"]) == 1
        assert call.text.startswith("closed: session web")
        assert call.called >= {tool.name for tool in FULL[9:]}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("run_plan", {"commands": [{"command": "true", "session": "x"}]}, "invalid_argument"),
    ("run_plan", {"commands": []}, "invalid_argument"),
    ("run_plan", {"commands": [{"command": "true", "after": ["nobody"]}]}, "invalid_argument"),
    ("plan_progress", {"plan_id": "0" * 36}, "plan_not_found"),
    ("end_session", {"session": "nobodys"}, "session_not_found"),
    ("project_context", {"cwd": "/does/not/exist"}, "invalid_argument"),
    ("update_session", {"expires_in_ms": "soon"}, "invalid_argument"),
    ("read_journal", {"order": "sideways"}, "invalid_argument"),
    ("search_journal", {}, "invalid_argument"),
    ("add_message", {"text": "x", "replaces": "y", "parent": "z"}, "invalid_argument"),
    ("export_session", {"format": "html"}, "invalid_argument"),
]


async def test_what_cannot_be_done_is_refused_with_its_code(tmp_path: Path) -> None:
    async with connected(tmp_path / "state", "auto") as call:
        for tool, arguments, code in REFUSED:
            assert await call.refused(tool, **arguments) == code, (tool, arguments)


async def test_the_standard_server_lists_and_takes_none_of_them(tmp_path: Path) -> None:
    command, *arguments = command_line(tmp_path)
    parameters = StdioServerParameters(command=command, args=arguments, cwd=ROOT, env=dict(os.environ))
    with anyio.fail_after(60):
        async with Client(parameters, mode="auto") as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert len(names) == 9
            assert "run_plan" not in (client.instructions or "")
    async with connected(tmp_path, "auto") as call:
        assert "run_plan" in (call.client.instructions or "")
