"""Where measurements are taken: a temporary folder, its state directories, and how much is measured."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread

from mcp_tasks.bench.seeding import run_one, seed
from mcp_tasks.connection import Connection, connect, serve_command, surroundings

__all__ = ["Place", "temporary_place"]

MAX_RUNNING = 400


@dataclass
class Place:
    """A temporary folder on the file system that is measured.

    Attributes:
        folder: Where everything goes.
        quick: Whether to measure little: that it works, not how fast it is.
    """

    folder: Path
    quick: bool
    _many: tuple[str, list[str]] | None = field(default=None)
    _few: tuple[str, list[str]] | None = field(default=None)

    def count(self, full: int, quick: int) -> int:
        """How much of something there is to be."""
        return quick if self.quick else full

    @property
    def settings(self) -> Path:
        """A folder without a settings file."""
        return self.folder / "settings"

    @asynccontextmanager
    async def server(self, name: str, *flags: str) -> AsyncIterator[Connection]:
        """A server on the state directory of that name, and a client of it."""
        with (self.folder / f"{name}.log").open("a") as log:
            command = serve_command(self.folder / name, "--max-running", str(MAX_RUNNING), *flags)
            async with connect(command, surroundings(self.settings), errors=log) as server:
                yield server

    async def few(self) -> tuple[str, list[str]]:
        """Make the state directory `few` with one finished task; its id."""
        if self._few is None:
            self._few = await self._with_one("few"), []
        return self._few

    async def many(self) -> tuple[str, list[str]]:
        """Make the state directory `many`; the ids of its newest finished task and of all older ones."""
        if self._many is None:
            newest = await self._with_one("many")
            count = self.count(10_000, 200)
            self._many = newest, await anyio.to_thread.run_sync(seed, self.folder / "many", count)
        return self._many

    async def _with_one(self, name: str) -> str:
        async with self.server(name) as server:
            return await run_one(server)


@contextmanager
def temporary_place(*, quick: bool) -> Iterator[Place]:
    """A place that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="mcp-tasks-bench-") as folder:
        yield Place(Path(folder).resolve(), quick)
