"""A client of the SDK in front of the real service, both in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import anyio
import mcp_types as types
from mcp import Client

from mcp_tasks.models import Role
from mcp_tasks.server.callers import Identity
from mcp_tasks.server.mcp_server import TasksServer, build_server
from tests.server.fakes import FakeSettings
from tests.service.agent import Agent, open_agent

__all__ = ["Front", "Heard", "Mode", "connect", "open_front"]

Mode = Literal["legacy", "auto"]


@dataclass
class Heard:
    """The notifications that a client has got outside of a request."""

    updated: list[str] = field(default_factory=list)
    lists: int = 0
    _more: anyio.Event = field(default_factory=anyio.Event)

    async def take(self, message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            self.updated.append(message.params.uri)
        elif isinstance(message, types.ResourceListChangedNotification):
            self.lists += 1
        self._more.set()
        self._more = anyio.Event()

    async def more(self) -> None:
        with anyio.fail_after(15):
            await self._more.wait()


@dataclass
class Front:
    """A server in front of the service, and an agent that calls the service directly."""

    server: TasksServer
    agent: Agent


@asynccontextmanager
async def open_front(
    folder: Path, *, owner: str | None = None, role: Role = "owner", **settings: Any
) -> AsyncIterator[Front]:
    """One server; whoever connects is `owner`, by default the one whose tasks the agent starts."""
    async with open_agent(folder, **settings) as agent:
        identity = Identity(owner or agent.caller.owner, role)
        yield Front(build_server(agent.service, FakeSettings(), lambda _: identity), agent)
        await agent.end_everything()


@asynccontextmanager
async def connect(server: TasksServer, mode: Mode, heard: Heard | None = None) -> AsyncIterator[Client]:
    """A client of one of the protocol eras."""
    with anyio.fail_after(60):
        async with Client(server, mode=mode, message_handler=heard.take if heard else None) as client:
            yield client
