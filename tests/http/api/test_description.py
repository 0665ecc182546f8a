"""The OpenAPI description: what it says is pinned, and the server does what it says, whatever it is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcp_tasks.api.openapi import document
from mcp_tasks.api.operations import OPERATIONS, operation
from mcp_tasks.api.problems import STATUSES, status_of
from mcp_tasks.errors import TasksError
from mcp_tasks.http.api.handlers import HANDLERS
from mcp_tasks.server.toolsets import FULL
from mcp_tasks.service import Service
from tests.http.api.asking import given, refused
from tests.http.server_process import TOKEN, running_server

PINNED = Path(__file__).with_name("openapi.json")
PLACE = Path(__file__).parents[3]


def described() -> str:
    """The description as it is pinned: without the version, one value a line."""
    told: dict[str, Any] = json.loads(json.dumps(document()))
    told["info"]["version"] = "0"
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def test_the_description_is_the_pinned_one() -> None:
    # A change that is meant: python -m tests.http.api.test_description > tests/http/api/openapi.json
    assert described() == PINNED.read_text()


async def test_the_description_is_served(api: httpx2.AsyncClient) -> None:
    told = given(await api.get("/api/openapi.json"))
    assert told["openapi"].startswith("3.1.")
    assert told["paths"].keys() == document()["paths"].keys()


def test_every_operation_is_carried_out_by_a_handler_or_by_the_service() -> None:
    names = [row.name for row in OPERATIONS]
    assert len(set(names)) == len(names)
    assert len({(row.method, row.path) for row in OPERATIONS}) == len(names)
    of_service = [name for name in names if name not in HANDLERS]
    assert all(operation(name).request.tool == name and hasattr(Service, name) for name in of_service)
    assert HANDLERS.keys() <= set(names)
    assert all(set(row.path_fields) <= row.request.model_fields.keys() for row in OPERATIONS)


@pytest.mark.parametrize("path", ["/api", "/api/"])
async def test_the_api_itself_tells_where_to_begin(api: httpx2.AsyncClient, path: str) -> None:
    ways = given(await api.get(path))
    assert (ways["openapi"], ways["tasks"]) == ("/api/openapi.json", "/api/tasks")
    assert {"sessions", "plans", "server"} <= ways.keys()
    for way in set(ways.values()) - {"/api/events", "/api/search"}:
        given(await api.get(way))
    refused(await api.post(path, json={}), 405, "method_not_allowed")
    async with httpx2.AsyncClient(base_url=api.base_url) as stranger:
        refused(await stranger.get(path), 401, "unauthorized")


def test_the_tools_that_hints_name_are_operations() -> None:
    assert {tool.name for tool in FULL} <= {row.name for row in OPERATIONS}


def test_every_error_has_a_status() -> None:
    codes = {error.code for error in TasksError.__subclasses__()}
    assert codes <= STATUSES.keys()
    assert status_of("one that nobody has thought of") == 500


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_whatever_is_asked_the_server_answers_as_it_says(tmp_path: Path) -> None:
    whole = os.environ.get("MCP_TASKS_CAMPAIGN") == "full"
    options = ("--requests-per-second", "0", "--max-wait-ms", "50")
    with running_server(tmp_path / "state", *options) as server:
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.base}/api/openapi.json",
            "--url", f"{server.base}/api", "--header", f"Authorization: Bearer {TOKEN}",
            "--exclude-operation-id", "watch_session",  # its stream has no end; test_events has it
            # What goes together, and what exists, is more than a schema can say.
            "--exclude-checks", "positive_data_acceptance",
            "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "100" if whole else "5",
            "--seed", "1", "--continue-on-failure", "--request-timeout", "30",
        ]  # fmt: skip
        env = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.http.api.harmless", "PYTHONPATH": str(PLACE)}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert "Traceback" not in server.log.read_text()


if __name__ == "__main__":
    sys.stdout.write(described())
