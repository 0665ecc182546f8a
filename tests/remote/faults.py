"""What stands between a client and its server, and cuts or answers as it is told to."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Cuts", "answering", "cutting", "response"]

_POLL_S = 0.05


@dataclass
class Cuts:
    """Requests whose answer does not come through.

    Attributes:
        port: Where to ask instead of at the server.
        asked: What a request has to begin with so that its answer is cut, as often as it is there.
        passed: Bytes of the answer that come through all the same.
        made: What was cut.
    """

    port: int
    asked: list[bytes] = field(default_factory=list)
    passed: int = 0
    made: list[bytes] = field(default_factory=list)

    def cut(self, request: bytes) -> bool:
        for begin in self.asked:
            if request.startswith(begin):
                self.asked.remove(begin)
                self.made.append(begin)
                return True
        return False


@contextmanager
def _listening(serve: object) -> Iterator[int]:
    """Call `serve(connection, stop)` in a thread for each connection; all are over when the block is."""
    assert callable(serve)
    stop, threads = threading.Event(), []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_POLL_S)

        def accept() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    thread = threading.Thread(target=serve, args=(connection, stop))
                    thread.start()
                    threads.append(thread)

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            for thread in [accepting, *threads]:
                thread.join()


@contextmanager
def cutting(port: int) -> Iterator[Cuts]:
    """Pass everything on to a server, but for what is to be cut."""
    cuts = Cuts(0)

    def serve(client: socket.socket, stop: threading.Event) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server, contextlib.suppress(OSError):
            request = b""
            while not stop.is_set():
                for ready in select.select([client, server], [], [], _POLL_S)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if ready is client:
                        request += data
                        server.sendall(data)
                        continue
                    if request and cuts.cut(request):
                        client.sendall(data[: cuts.passed])
                        return
                    request = b""
                    client.sendall(data)

    with _listening(serve) as at:
        cuts.port = at
        yield cuts


def response(status: str, body: bytes = b"{}", *headers: str) -> bytes:
    """An answer as it is on the wire."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _sealed(client: socket.socket, tls: ssl.SSLContext | None) -> socket.socket:
    return client if tls is None else tls.wrap_socket(client, server_side=True)


@contextmanager
def answering(
    answers: Sequence[bytes], tls: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[bytes]]]:
    """Answer each connection with the next of these, an empty one by hanging up; the last is for all others.

    Gives the port, and the requests as they come.
    """
    left, asked = list(answers), list[bytes]()

    def serve(client: socket.socket, stop: threading.Event) -> None:
        client.settimeout(10)
        with contextlib.suppress(OSError), _sealed(client, tls) as channel:
            asked.append(channel.recv(65536))
            answer = left.pop(0) if len(left) > 1 else left[0]
            if answer:
                channel.sendall(answer)
                channel.shutdown(socket.SHUT_WR)

    with _listening(serve) as port:
        yield port, asked
