"""What a server tells those who watch it."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from mcp_tasks.app import open_service
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.http.health import Health
from mcp_tasks.http.metrics import Metrics
from mcp_tasks.http.principals import Principal
from mcp_tasks.service import Service
from mcp_tasks.settings import Settings
from tests.http.api.asking import given, refused, started
from tests.http.server_process import running_server
from tests.waiting import eventually


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Values by name and the values of the labels, those of buckets left out."""
    return {
        (sample.name, *(value for label, value in sample.labels.items() if label != "le")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_figures_count_tasks_sessions_queue_answers_and_times(tmp_path: Path) -> None:
    with running_server(tmp_path / "state", "--max-running", "1") as server:
        async with server.http() as api:
            await started(api, "true")
            refused(await api.get("/api/tasks/none"), 404, "task_not_found")
            running = await started(api, "sleep 60", wait_ms=0)
            waiting = await started(api, "sleep 60", wait_ms=0)

            async def recorded() -> bool:
                return samples((await api.get("/metrics")).text)["mcp_tasks_tasks", "completed"] > 0

            await eventually(recorded, "the end is on record")
            response = await api.get("/metrics")
            given(await api.post("/api/tasks/cancel", json={"task_ids": [waiting, running]}))
    assert response.headers["content-type"].startswith("text/plain")
    found = samples(response.text)
    assert found["mcp_tasks_tasks", "completed"] == 1
    assert found["mcp_tasks_running",] == 1
    assert found["mcp_tasks_queued",] == 1
    assert found["mcp_tasks_sessions", "open"] == 1
    assert found["mcp_tasks_problems",] == 0
    assert found["mcp_tasks_journal_messages",] >= 1
    assert found["mcp_tasks_storage_free_bytes",] > 0
    assert found["mcp_tasks_operation_seconds_count", "run_command", "ok"] == 3
    assert found["mcp_tasks_operation_seconds_count", "poll_task", "task_not_found"] == 1
    assert found["mcp_tasks_api_seconds_count", "poll_task"] == 1
    assert found["mcp_tasks_http_responses_total", "api", "201"] == 3
    assert found["process_open_fds",] > 0


async def test_with_the_memory_store_the_figures_tell_what_would_be_lost(tmp_path: Path) -> None:
    with running_server(tmp_path / "state", "--store", "memory") as server:
        async with server.http() as api:
            await started(api, "true")
            found = samples((await api.get("/metrics")).text)
    assert ("mcp_tasks_storage_free_bytes",) not in found
    assert any(name == "mcp_tasks_in_memory" for name, *_ in found)


async def test_only_the_operator_is_told_the_figures(tmp_path: Path) -> None:
    async with open_service(Settings(dir=tmp_path / "state"), warm=False) as service:
        metrics = Metrics(service, "somebody")
        for principal in (None, Principal("oauth:else", "owner"), Principal("somebody", "owner")):
            user = principal.as_user("t", client_id="c") if principal else None
            response = await metrics.answer(Request({"type": "http", "user": user}))
            allowed = principal is not None and principal.owner == "somebody"
            assert response.status_code == (200 if allowed else 403)


async def test_a_server_that_cannot_read_its_store_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_service(Settings(dir=tmp_path / "state"), warm=False) as service:
        http = Request({"type": "http"})
        assert (await Health(service).answer(http)).status_code == 200

        def unreadable(*_: object) -> None:
            raise StoreUnavailable("the disk is gone")

        monkeypatch.setattr(type(service._desk.store), "load_session", unreadable)
        health = Health(service)
        for _ in range(2):  # the second time as it was found the first
            response = await health.answer(http)
            assert (response.status_code, response.body) == (503, b'{"status":"store unavailable"}')
        assert await _refused_figures(service) == 503


async def _refused_figures(service: Service) -> int:
    def gone() -> None:
        raise StoreUnavailable("the disk is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service._desk.store, "sessions", gone, raising=False)
        metrics = Metrics(service, "somebody")
        user = Principal("somebody").as_user("t", client_id="c")
        response = await metrics.answer(Request({"type": "http", "user": user}))
    return response.status_code
