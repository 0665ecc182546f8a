"""One server for the tests of the API, which work in sessions of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest

from tests.http.server_process import HttpServer, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    place = tmp_path_factory.mktemp("api")
    with running_server(place / "state") as server:
        yield server


@pytest.fixture
async def api(server: HttpServer, request: pytest.FixtureRequest) -> AsyncIterator[httpx2.AsyncClient]:
    """A client in a session that is this test's."""
    session = "".join(char if char.isalnum() else "-" for char in request.node.name)[-100:]
    async with server.http(**{"Mcp-Tasks-Session": session}) as http:
        yield http
