from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.service.agent import Agent, open_agent


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """A server with room for everything."""
    async with open_agent(tmp_path / "state") as agent:
        yield agent
        await agent.end_everything()


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[Agent]:
    """A server on which one task runs and three may wait."""
    async with open_agent(tmp_path / "state", max_running=1, queue_limit=3) as agent:
        yield agent
        await agent.end_everything()
