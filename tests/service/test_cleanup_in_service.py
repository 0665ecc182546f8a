from __future__ import annotations

from pathlib import Path

import pytest

from mcp_tasks.app import open_service
from mcp_tasks.models import DEFAULT_SESSION, SessionKey
from mcp_tasks.requests import EndSession, RunCommand
from mcp_tasks.retention import read_record
from mcp_tasks.service import Caller
from mcp_tasks.settings import Settings
from tests.waiting import eventually


def caller(settings: Settings) -> Caller:
    return Caller(settings.owner, DEFAULT_SESSION, named=True)


@pytest.mark.parametrize("store", ["json", "sqlite"])
async def test_a_server_cleans_up_when_that_is_overdue_and_never_what_runs(
    store: str, tmp_path: Path
) -> None:
    settings = Settings(dir=tmp_path / "state", store=store, archive_days="0")
    async with open_service(settings) as service:
        running = await service.run_command(caller(settings), RunCommand(command="sleep 60", wait_ms=0))

        async def cleaned() -> bool:
            return read_record(settings.dir) is not None

        await eventually(cleaned, "the cleanup is over")
        view = await service.end_session(caller(settings), EndSession(force=True))

    assert view["cancelled"] == [running["task_id"]]
    record = read_record(settings.dir)
    assert record is not None
    assert record.last.archived == 0


@pytest.mark.parametrize("store", ["json", "sqlite", "memory"])
async def test_a_session_can_be_archived_when_it_ends(store: str, tmp_path: Path) -> None:
    settings = Settings(dir=tmp_path / "state", store=store)
    async with open_service(settings) as service:
        me = caller(settings)
        await service.run_command(me, RunCommand(command="echo kept", wait_ms=10_000))

        view = await service.end_session(me, EndSession(archive=True))

        assert view["state"] == "archived"
        archives = service._desk.archives
        assert archives is not None
        assert [archive.name for archive in archives.all(settings.owner)] == [view["archive"]]
        key = archives.restore(settings.owner, view["archive"], at=1)
        assert key == SessionKey(settings.owner, DEFAULT_SESSION)
