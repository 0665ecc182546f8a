from __future__ import annotations

import asyncio
import socket
from typing import Any

from mcp_tasks.http.gathering import GatheringTransport

MUCH = b"x" * 65_536


class Pieces(asyncio.Transport):
    """A transport that notes in which pieces it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[Any] = []
        self.closing = False

    def write(self, data: Any) -> None:
        self.got.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.closing = True
        self.got.append("closed")

    def abort(self) -> None:
        self.closing = True
        self.got.append("aborted")

    def is_closing(self) -> bool:
        return self.closing


def gathering() -> tuple[GatheringTransport, Pieces]:
    pieces = Pieces()
    return GatheringTransport(pieces, asyncio.get_running_loop()), pieces


async def test_what_is_written_in_one_turn_leaves_in_one_piece() -> None:
    transport, pieces = gathering()
    transport.writelines([b"head, ", b"body"])
    transport.write(b"")
    assert (pieces.got, transport.get_write_buffer_size()) == ([], 10)
    await asyncio.sleep(0)
    assert (pieces.got, transport.get_write_buffer_size()) == ([b"head, body"], 0)
    transport.write(b"later")
    await asyncio.sleep(0)
    assert pieces.got == [b"head, body", b"later"]


async def test_who_writes_much_without_a_pause_waits_for_no_turn() -> None:
    transport, pieces = gathering()
    transport.write(b"head")
    transport.write(MUCH)
    assert pieces.got == [b"head" + MUCH]
    await asyncio.sleep(0)
    assert len(pieces.got) == 1


async def test_what_was_written_leaves_before_the_close_and_not_after_an_abort() -> None:
    transport, pieces = gathering()
    transport.write(b"last")
    transport.close()
    assert transport.is_closing()
    transport.write(b"too late")
    await asyncio.sleep(0)
    assert pieces.got == [b"last", "closed"]

    transport, pieces = gathering()
    transport.write(b"never")
    transport.abort()
    await asyncio.sleep(0)
    assert pieces.got == ["aborted"]


async def test_over_a_real_socket_everything_arrives_and_the_end_too() -> None:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    inner, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    transport = GatheringTransport(inner, loop)
    assert transport.get_extra_info("socket") is not None
    transport.pause_reading()
    transport.resume_reading()
    for part in (b"head", MUCH, b"tail"):
        transport.write(part)
    transport.close()
    assert await asyncio.wait_for(reader.read(), 10) == b"head" + MUCH + b"tail"
    writer.close()
    await writer.wait_closed()
