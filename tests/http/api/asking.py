"""How tests ask the API: JSON out of an answer, and events out of a stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx2

__all__ = ["Event", "events", "given", "refused", "started"]


class Event(NamedTuple):
    event: str
    data: Any
    id: str | None


def given(response: httpx2.Response, status: int = 200) -> Any:
    """What was answered, which must be no problem."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def refused(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that was answered."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    return problem


async def started(api: httpx2.AsyncClient, command: str, **fields: Any) -> str:
    """The id of a task that was started and has ended, unless `wait_ms` says otherwise."""
    response = await api.post("/api/tasks", json={"command": command, "wait_ms": 20_000, **fields})
    task_id: str = given(response, 201)["task_id"]
    return task_id


@asynccontextmanager
async def events(api: httpx2.AsyncClient, path: str, **headers: str) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of a stream, one by one."""
    async with api.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _events(response)


async def _events(response: httpx2.Response) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if not line and "event" in fields:
            yield Event(fields["event"], json.loads(fields["data"]), fields.get("id"))
            fields = {}
        elif name:
            fields[name] = value
