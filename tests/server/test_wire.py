from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from mcp_tasks.server.wire import Inlet, Outlet, Oversized
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:  # a test has closed it
            continue


async def lines_of(descriptor: int, max_line: int = 1_000) -> list[bytes | Oversized]:
    with anyio.fail_after(10):
        return [line async for line in Inlet(descriptor, max_line=max_line).lines()]


def fill(descriptor: int, *pieces: bytes) -> None:
    def write() -> None:
        for piece in pieces:
            left = piece
            while left:
                left = left[os.write(descriptor, left) :]
        os.close(descriptor)

    threading.Thread(target=write, daemon=True).start()


async def test_lines_come_whole_however_they_were_cut(pipe: tuple[int, int]) -> None:
    read, write = pipe
    fill(write, b"one\ntw", b"o\n\nthr", b"ee", b"\nlast")
    assert await lines_of(read) == [b"one", b"two", b"", b"three", b"last"]


async def test_a_line_that_is_too_long_is_skipped_and_its_ends_are_told(pipe: tuple[int, int]) -> None:
    read, write = pipe
    fill(write, b"before\n", b"a" * 1_001 + b"\n", b"h" * 300 + b"x" * 500_000 + b"t" * 300 + b"\nafter\n")
    before, short, long, after = await lines_of(read)
    assert (before, after) == (b"before", b"after")
    assert short == Oversized(b"a" * 256, b"a" * 256)
    assert long == Oversized(b"h" * 256, b"t" * 256)


async def test_a_line_that_is_too_long_and_has_no_end_is_told_at_the_end(pipe: tuple[int, int]) -> None:
    read, write = pipe
    fill(write, b"x" * 200_000)
    assert await lines_of(read) == [Oversized(b"x" * 256, b"x" * 256)]


async def test_a_line_of_exactly_the_longest_length_is_taken(pipe: tuple[int, int]) -> None:
    read, write = pipe
    fill(write, b"x" * 1_000 + b"\n")
    assert await lines_of(read) == [b"x" * 1_000]


async def test_lines_come_from_a_file_and_from_a_socket_too(tmp_path: Path) -> None:
    path = tmp_path / "requests"
    path.write_bytes(b"a\nb\n")
    with path.open("rb") as file:
        assert await lines_of(file.fileno()) == [b"a", b"b"]
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"a\nb")
        left.shutdown(socket.SHUT_WR)
        assert await lines_of(right.fileno()) == [b"a", b"b"]


async def test_a_hangup_is_seen_while_there_is_still_something_to_read(pipe: tuple[int, int]) -> None:
    read, write = pipe
    inlet = Inlet(read)
    os.write(write, b"unread")
    assert not inlet.hung_up()
    os.close(write)
    assert inlet.hung_up()


async def test_lines_are_written_whole_and_in_order_to_a_slow_reader(pipe: tuple[int, int]) -> None:
    read, write = pipe
    outlet = Outlet(write, pytest.fail)
    sent = [bytes([65 + index]) * 30_000 + b"\n" for index in range(20)]
    received = bytearray()

    def slowly() -> None:
        while len(received) < sum(map(len, sent)):
            received.extend(os.read(read, 5_000))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(outlet.drain)
            async with anyio.create_task_group() as writers:
                for line in sent:
                    writers.start_soon(outlet.write, line)
                writers.start_soon(anyio.to_thread.run_sync, slowly)
            group.cancel_scope.cancel()
    assert bytes(received) == b"".join(sent)
    assert outlet.backlog == 0


async def test_a_line_of_a_cancelled_writer_is_written_to_its_end(pipe: tuple[int, int]) -> None:
    read, write = pipe
    outlet = Outlet(write, pytest.fail)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(outlet.drain)
            with anyio.move_on_after(0.05) as scope:
                await outlet.write(b"x" * 200_000 + b"\n")
            assert scope.cancelled_caught
            received = bytearray()
            while not received.endswith(b"\n"):
                received += await anyio.to_thread.run_sync(os.read, read, 65_536)
            await outlet.flush()
            await outlet.write(b"next\n")
            assert os.read(read, 100) == b"next\n"
            group.cancel_scope.cancel()
    assert bytes(received) == b"x" * 200_000 + b"\n"


async def test_a_reader_that_has_gone_breaks_the_outlet_and_frees_the_writers(pipe: tuple[int, int]) -> None:
    read, write = pipe
    broken = anyio.Event()
    outlet = Outlet(write, broken.set)
    failed: list[BaseException] = []

    async def send() -> None:
        try:
            await outlet.write(b"x" * 200_000)
        except anyio.BrokenResourceError as error:
            failed.append(error)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(outlet.drain)
            async with anyio.create_task_group() as writers:
                writers.start_soon(send)
                writers.start_soon(send)

                async def backed_up() -> bool:
                    return outlet.backlog > 200_000

                await eventually(backed_up, "both lines are queued")
                assert not outlet.hung_up()
                os.close(read)
            group.cancel_scope.cancel()
    assert broken.is_set()
    assert outlet.broken
    assert outlet.hung_up()
    assert len(failed) == 2
    with pytest.raises(anyio.BrokenResourceError):
        await outlet.write(b"x")


def test_a_claimed_wire_keeps_prints_and_children_out_of_the_protocol() -> None:
    script = """
import os, subprocess, sys
from mcp_tasks.server.wire import claimed_wire
print("before")
with claimed_wire() as wire:
    print("stray")
    subprocess.run(["sh", "-c", "echo child; cat"], check=True)
    os.write(wire.write, b"wire " + os.read(wire.read, 100))
print("after")
"""
    done = subprocess.run([sys.executable, "-c", script], input=b"input", capture_output=True, check=True)
    assert done.stdout == b"before\nwire inputafter\n"
    assert sorted(done.stderr.split()) == [b"child", b"stray"]
