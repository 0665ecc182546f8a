"""The clients, where they are installed, and the ways in which they reach a server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.clients.install import Clients, Programs, find, find_programs, folder
from tests.clients.reaching import Kind, Way, way_to

# Looked for at import: the tests themselves run in a home of their own.
CLIENTS = find(folder())
PROGRAMS = find_programs(folder())


def _missing(what: str, options: str = "") -> NoReturn:
    how = f"{what} is missing here; `python tests/clients/install.py{options}` installs it"
    if os.environ.get("CI"):
        pytest.fail(how)
    pytest.skip(how)


@pytest.fixture
def clients() -> Clients:
    if CLIENTS is None:
        _missing("Node or a client that runs on it")
    return CLIENTS


@pytest.fixture
def programs(clients: Clients) -> Programs:
    if PROGRAMS is None:
        _missing("a large client, or Chromium,", " --all")
    return PROGRAMS


@pytest.fixture
def kind() -> Kind:
    """The transport; tests that are about several of them set it."""
    return "stdio"


@pytest.fixture
def way(clients: Clients, kind: Kind, tmp_path: Path) -> Iterator[Way]:
    with way_to(tmp_path / "state", kind) as found:
        yield found
