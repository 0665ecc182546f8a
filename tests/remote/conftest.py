from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.http.server_process import TOKEN, HttpServer, running_server

OPTIONS = ("--max-wait-ms", "300")
"""A server that waits for so short a while that every wait takes several questions."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpServer]:
    with running_server(tmp_path / "state", *OPTIONS) as running:
        yield running


@pytest.fixture
def near(tmp_path: Path) -> Iterator[CommandLine]:
    """The command line on the machine of the server; what still runs at the end of the test is cancelled."""
    line = CommandLine(tmp_path)
    yield line
    for session in (tmp_path / "state" / "sessions").glob("*/*/"):
        for task in line.json("ps", "--state", "active", "--session", session.name)["tasks"]:
            line("cancel", task["task_id"], "--grace", "0.1")


@pytest.fixture
def far(tmp_path: Path, near: CommandLine, server: HttpServer) -> CommandLine:
    """The command line elsewhere: all that it has is the address of the server and its token."""
    return elsewhere(tmp_path, server.where)


def elsewhere(place: Path, address: str) -> CommandLine:
    home = place / "elsewhere"
    home.mkdir(exist_ok=True)
    return CommandLine(
        home,
        {
            "MCP_TASKS_SERVER": address,
            "MCP_TASKS_TOKEN": TOKEN,
            "PYTHONPATH": os.getcwd(),
        },
    )
