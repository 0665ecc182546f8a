"""Where the server listens: at an address, or at a socket file of its user alone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mcp_tasks.errors import InvalidArgument

__all__ = ["listening_at", "listening_at_file"]

_BACKLOG: Final = 1_024
_SILENT_S: Final = 60
"""After so long without a sign of the other machine a connection counts as broken."""


@contextmanager
def listening_at(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """Listen at an address; gives the socket, and the URL of it without a path.

    Raises:
        InvalidArgument: It cannot be listened at.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InvalidArgument(
            f"{host} port {port} cannot be listened at: {error.strerror or error}",
            "choose another --port (0 takes a free one) or --host",
        ) from None
    with listener:
        _tune(listener)
        bound, number = listener.getsockname()[:2]
        yield listener, f"http://[{bound}]:{number}" if ":" in bound else f"http://{bound}:{number}"


def _tune(listener: socket.socket) -> None:
    # Connections inherit all of this. An answer is written in two parts, and the second would wait for up
    # to 40 ms until the client has acknowledged the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # One whose client lost its network would stay open for hours.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENT_S)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT_S * 1_000)


@contextmanager
def listening_at_file(path: Path) -> Iterator[tuple[socket.socket, str]]:
    """Listen at a socket file that its user alone can reach; gives the socket and `unix:PATH`.

    A file that a dead server left behind is replaced; the file is removed in the end.

    Raises:
        InvalidArgument: Somebody listens there, something else is there, or it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        try:
            with _alone_in(path.parent):
                _clear_away(path)
                listener.bind(str(path))
                # Nobody can connect before it listens, so there is no moment in which others could.
                os.chmod(path, 0o600)
                listener.listen(_BACKLOG)
                made = os.lstat(path)
        except OSError as error:
            raise InvalidArgument(
                f"{path} cannot be listened at: {error.strerror or error}",
                "name a file of at most about 100 bytes in a folder of yours",
            ) from None
        try:
            yield listener, f"unix:{path}"
        finally:
            with contextlib.suppress(OSError), _alone_in(path.parent):
                if os.path.samestat(made, os.lstat(path)):
                    os.unlink(path)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other servers from looking and making there at the same time; no file is left for that."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _clear_away(path: Path) -> None:
    """Remove what a dead server left behind. Raises InvalidArgument for anything else, OSError."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise InvalidArgument(f"{path} is no socket", "name a file that is not there yet")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                os.unlink(path)
                return
    raise InvalidArgument(f"somebody listens at {path}", "end that server, or name another file")
