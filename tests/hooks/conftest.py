from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.hooks.receiver import Receiver, open_receiver
from tests.service.agent import Agent, open_agent


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with open_receiver() as receiver:
        yield receiver


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    async with open_agent(tmp_path / "state") as agent:
        yield agent
        await agent.end_everything()
