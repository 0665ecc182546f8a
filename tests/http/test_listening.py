from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.http.listening import listening_at, listening_at_file


def test_a_free_port_is_taken_and_told() -> None:
    with listening_at("127.0.0.1", 0) as (listener, url):
        assert url == f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(InvalidArgument, match="cannot be listened at"):
            listening_at("127.0.0.1", listener.getsockname()[1]).__enter__()
    with listening_at("localhost", 0) as (_, url):
        assert url.startswith("http://")


def test_connections_send_what_they_have_at_once() -> None:
    with (
        listening_at("127.0.0.1", 0) as (listener, _),
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_host_that_is_not_ours_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"192\.0\.2\.1"), listening_at("192.0.2.1", 0):
        pass


def test_a_socket_file_is_made_for_its_user_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening_at_file(path) as (_, url):
        assert url == f"unix:{path}"
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert os.listdir(tmp_path) == []


def test_what_a_dead_server_left_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening_at_file(path):
        with pytest.raises(InvalidArgument, match="somebody listens"), listening_at_file(path):
            pass
        assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, what: str) -> None:
    path = tmp_path / "socket"
    match what:
        case "file":
            path.write_text("mine")
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidArgument, match="is no socket"), listening_at_file(path):
        pass
    assert os.path.lexists(path)


def test_a_socket_file_that_somebody_else_has_made_meanwhile_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening_at_file(path):
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"


def test_a_path_that_cannot_be_one_is_refused_in_words(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "socket", tmp_path / ("long" * 40)):
        with pytest.raises(InvalidArgument, match="cannot be listened at"), listening_at_file(path):
            pass
