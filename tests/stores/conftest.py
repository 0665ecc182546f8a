from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_tasks.ports import Store
from mcp_tasks.stores.memory.store import MemoryStore
from tests.stores.adapters import LASTING


@pytest.fixture(params=["memory", *LASTING])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each adapter in turn, empty."""
    place = tmp_path / "state"
    opened: Store
    if request.param == "memory":
        place.mkdir(mode=0o700)
        opened = MemoryStore(place)
    else:
        opened = LASTING[request.param](place)
    yield opened
    opened.close()
