"""Several processes change one session at once: no update is lost, and every map keeps every name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from mcp_tasks.errors import RevisionConflict
from tests.service.agent import open_agent

pytestmark = pytest.mark.anyio

_WRITERS = 4
_ROUNDS = 12


_PROGRAM = "import sys; from tests.service.test_two_writers import write; write(*sys.argv[1:])"


def write(state: str, store: str, writer: str) -> None:
    """What one of the processes does."""
    anyio.run(_write_rounds, state, store, int(writer))


def _started(state: str, store: str, writer: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _PROGRAM, state, store, str(writer)])


async def _write_rounds(state: str, store: str, writer: int) -> None:
    async with open_agent(Path(state), store=store) as agent:
        for number in range(_ROUNDS):
            # Names of its own, and one that all of them write.
            await agent.update(
                env={f"V{writer}_{number}": str(number)},
                preferences={f"p{writer}_{number}": number, "last": [writer, number]},
            )
        counted = 0
        while counted < _ROUNDS:
            # What must not be merged is guarded by the revision: a counter.
            info = await agent.info()
            count = info["workspace"]["preferences"].get("count", 0)
            try:
                await agent.update(preferences={"count": count + 1}, revision=info["revision"])
                counted += 1
            except RevisionConflict:
                continue


@pytest.mark.parametrize("store", ["json", "sqlite"])
async def test_no_update_of_four_processes_is_lost(tmp_path: Path, store: str) -> None:
    state = str(tmp_path / "state")
    async with open_agent(Path(state), store=store) as agent:
        await agent.update(title="shared")
        writers = [_started(state, store, number) for number in range(_WRITERS)]
        for process in writers:
            await anyio.to_thread.run_sync(process.wait, 100)
        assert [process.returncode for process in writers] == [0] * _WRITERS
        info = await agent.info()
    names = {f"{writer}_{number}" for writer in range(_WRITERS) for number in range(_ROUNDS)}
    preferences = info["workspace"]["preferences"]
    assert set(info["workspace"]["env"]) == {f"V{name}" for name in names}
    assert names <= {name.removeprefix("p") for name in preferences}
    assert preferences["last"][1] == _ROUNDS - 1
    assert preferences["count"] == _WRITERS * _ROUNDS
    assert info["revision"] == 1 + 2 * _WRITERS * _ROUNDS
