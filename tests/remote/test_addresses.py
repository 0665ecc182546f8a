from __future__ import annotations

from pathlib import Path

import pytest

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.remote.address import Address


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://127.0.0.1:8377", "http://127.0.0.1:8377/api"),
        ("http://127.0.0.1:8377/mcp", "http://127.0.0.1:8377/api"),
        ("http://[::1]:8377/sse/", "http://[::1]:8377/api"),
        ("https://example.com/tasks/api", "https://example.com/tasks/api"),
    ],
)
def test_an_address_is_taken_as_the_server_tells_it(given: str, base: str) -> None:
    assert Address.parse(given).base == base


@pytest.mark.parametrize("given", ["unix:/run/tasks.sock", "unix:///run/tasks.sock"])
def test_a_socket_file_is_an_address(given: str) -> None:
    address = Address.parse(given)

    assert (address.socket, address.shown) == ("/run/tasks.sock", "unix:/run/tasks.sock")
    assert address.is_near
    assert not address.is_open_to_listeners


def test_a_socket_file_may_be_named_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert Address.parse("unix:sock").socket == str(tmp_path / "sock")


@pytest.mark.parametrize(
    "given",
    [
        "localhost:8377",
        "ftp://example.com",
        "http://",
        "http://example.com:port",
        "https://me:hunter2@example.com",
        "https://example.com/?token=hunter2",
        "unix:",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Address.parse(given)

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "open_to_listeners"),
    [
        ("http://localhost:1", False),
        ("http://127.8.9.1:1", False),
        ("https://example.com", False),
        ("http://example.com", True),
        ("http://10.0.0.1:8377", True),
    ],
)
def test_it_is_known_where_somebody_could_read_the_token(given: str, *, open_to_listeners: bool) -> None:
    assert Address.parse(given).is_open_to_listeners is open_to_listeners
