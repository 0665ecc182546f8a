"""What travels between a server, its launcher and a supervisor. Standard library only.

A launch is one frame on a stream socket: four bytes of length, then a marshalled dict, its file
descriptors riding on the first byte (unix(7), SCM_RIGHTS). Both ends always come from the same
installation, because a server starts its own launcher; what servers of another version meet is the
run folder, whose records carry a version.
"""

from __future__ import annotations

import array
import marshal
import os
import socket
from typing import Any

__all__ = ["FOLDER", "LIFELINE", "RECORD_VERSION", "REPLY", "SLOT", "receive", "send", "string"]

RECORD_VERSION = 1

# Positions of the descriptors that come with a launch. That of the run folder carries the run's lock.
FOLDER, SLOT, REPLY, LIFELINE = range(4)

_LENGTH = 4
# As plain integers: the socket module's own are enums, whose machinery every supervisor would copy.
_CLOSE_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_MAX_DESCRIPTORS = 8


def send(channel: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
    """Send one launch frame. The caller serialises senders."""
    payload = marshal.dumps(message)
    frame = memoryview(len(payload).to_bytes(_LENGTH, "big") + payload)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
    sent = channel.sendmsg([frame], rights)
    channel.sendall(frame[sent:])


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Read one launch frame, or None at the end of the stream. The descriptors close on exec."""
    room = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
    head, ancillary, _, _ = channel.recvmsg(_LENGTH, room, _CLOSE_ON_EXEC)
    if not head:
        return None
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - it takes no name
    head += _exactly(channel, _LENGTH - len(head))
    message: dict[str, Any] = marshal.loads(_exactly(channel, int.from_bytes(head, "big")))  # noqa: S302 - our own process
    return message, list(descriptors)


def _exactly(channel: socket.socket, count: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < count:
        piece = channel.recv(min(count - len(pieces), 1 << 20))
        if not piece:
            raise EOFError("the server went away in the middle of a launch")
        pieces += piece
    return bytes(pieces)


def string(value: str | int | bool | None) -> str:
    """Write a value as JSON, without the json module, whose import a supervisor would pay for."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _quoted(value)


def _quoted(text: str) -> str:
    escaped = "".join(
        character if " " <= character <= "~" and character not in '"\\' else _escape(character)
        for character in text
    )
    return f'"{escaped}"'


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
