"""A way to a server on which connections break at random moments, as they do over real networks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

__all__ = ["Cutter", "cutting"]

_LONGEST_S = 0.6


class Cutter:
    """Passes bytes on in both directions, and breaks some connections.

    Args:
        port: Of the server, on this machine.
        chance: Decides which connections are broken, and when.
        share: How many of them, from 0 to 1.
    """

    def __init__(self, port: int, chance: random.Random, share: float) -> None:
        self._to = port
        self._chance = chance
        self._share = share
        self._open: set[asyncio.Task[None]] = set()
        self.port = 0
        self.cuts = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection for as long as it is let."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        doomed = self._chance.random() < self._share
        back: asyncio.StreamWriter | None = None
        try:
            from_server, back = await asyncio.open_connection("127.0.0.1", self._to)
            there, here = _pump(reader, back), _pump(from_server, writer)
            both = [asyncio.ensure_future(there), asyncio.ensure_future(here)]
            patience = self._chance.uniform(0, _LONGEST_S) if doomed else None
            try:
                done, _ = await asyncio.wait(both, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                self.cuts += not done
            finally:
                for each in both:
                    each.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        except OSError:
            pass  # the server takes nobody in this moment
        finally:
            writer.transport.abort()
            if back is not None:
                back.transport.abort()
            self._open.discard(task)

    async def end(self) -> None:
        """Break what is still open."""
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


@asynccontextmanager
async def cutting(port: int, chance: random.Random, share: float) -> AsyncIterator[Cutter]:
    """A cutter that listens at a port of its own."""
    cutter = Cutter(port, chance, share)
    server = await asyncio.start_server(cutter.serve, "127.0.0.1", 0, backlog=1_000)
    cutter.port = server.sockets[0].getsockname()[1]
    try:
        yield cutter
    finally:
        server.close()
        await cutter.end()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
