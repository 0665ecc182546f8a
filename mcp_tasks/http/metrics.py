"""`/metrics` for Prometheus: how much of everything there is, and how long answers take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final

import anyio
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_tasks.errors import PolicyDenied, TasksError
from mcp_tasks.http.api.answers import failed, refused
from mcp_tasks.http.principals import principal_of
from mcp_tasks.service import Service, ServiceFigures

__all__ = ["Metrics"]

_FRESH_S: Final = 5.0
"""Figures are counted at most so often, however many ask."""

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STATES: Final = ("pending", "running", "completed", "failed", "cancelled", "lost")
_AREAS: Final = ("mcp", "sse", "messages", "api", "healthz", "metrics")


class Metrics:
    """What is measured of one server, in a registry of its own.

    Args:
        service: Whose figures are told.
        owner: Who may ask: the figures are of all owners.
    """

    def __init__(self, service: Service, owner: str) -> None:
        self._service = service
        self._owner = owner
        self._registry = CollectorRegistry()
        self._operations = Histogram(
            "mcp_tasks_operation_seconds",
            "Time from a call of the service to its answer, waits that were asked for included",
            ["operation", "outcome"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._answers = Counter(
            "mcp_tasks_http_responses", "Answers over HTTP", ["area", "status"], registry=self._registry
        )
        self._api = Histogram(
            "mcp_tasks_api_seconds",
            "Time from a request of the HTTP API to the beginning of its answer",
            ["operation"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._figures = _Figures()
        self._registry.register(self._figures)
        ProcessCollector(registry=self._registry)
        self._turn = anyio.Lock()
        self._counted_at = float("-inf")
        service.observe(self._observe_call)

    def observe(self, operation: str, seconds: float) -> None:
        """Take note of an answer of the HTTP API."""
        self._api.labels(operation).observe(seconds)

    def _observe_call(self, tool: str, outcome: str, seconds: float) -> None:
        self._operations.labels(tool, outcome).observe(seconds)

    def counting(self, app: ASGIApp) -> ASGIApp:
        """The application, with its answers counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            first = scope["path"].strip("/").partition("/")[0]
            area = first if first in _AREAS else "other"

            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._answers.labels(area, str(message["status"])).inc()
                await send(message)

            await app(scope, receive, sent)

        return counted

    async def answer(self, http: Request) -> Response:
        """Answer `/metrics`."""
        try:
            principal = principal_of(http.scope.get("user"))
            if principal.owner != self._owner:
                raise PolicyDenied("the figures are of every owner", "use the token of the server itself")
            async with self._turn:
                if time.monotonic() - self._counted_at > _FRESH_S:
                    self._figures.told = await self._service.figures()
                    self._counted_at = time.monotonic()
            body = await anyio.to_thread.run_sync(generate_latest, self._registry)
        except TasksError as error:
            return refused(error)
        except Exception:  # noqa: BLE001 - the edge
            return failed("metrics")
        return Response(body, headers={"cache-control": "no-store"}, media_type=CONTENT_TYPE_LATEST)


class _Figures(Collector):
    """The figures of the service as gauges."""

    def __init__(self) -> None:
        self.told: ServiceFigures | None = None

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it."""
        told = self.told
        if told is None:
            return
        tasks = {state: told.tasks.get(state, 0) for state in _STATES}
        yield _labelled("mcp_tasks_tasks", "Tasks by state, as recorded", "state", tasks)
        sessions = {state: told.sessions.get(state, 0) for state in ("open", "closed")}
        yield _labelled("mcp_tasks_sessions", "Sessions by state", "state", sessions)
        yield GaugeMetricFamily("mcp_tasks_running", "Tasks that run now", value=tasks["running"])
        yield GaugeMetricFamily("mcp_tasks_queued", "Tasks that wait for a place", value=told.queued)
        yield GaugeMetricFamily("mcp_tasks_journal_messages", "Live messages", value=told.messages)
        yield GaugeMetricFamily("mcp_tasks_problems", "Things found broken in the store", value=told.problems)
        yield _labelled(
            "mcp_tasks_project_cache", "Looks at projects, by what became of them", "figure", told.cache
        )
        if told.free_bytes is not None:
            yield GaugeMetricFamily(
                "mcp_tasks_storage_free_bytes",
                "Free on the disk with the state directory",
                value=told.free_bytes,
            )
        if told.in_memory is not None:
            yield _labelled("mcp_tasks_in_memory", "What ends with the server", "figure", told.in_memory)


def _labelled(name: str, words: str, label: str, values: Mapping[str, float]) -> Metric:
    gauge = GaugeMetricFamily(name, words, labels=[label])
    for each, value in values.items():
        gauge.add_metric([each], value)
    return gauge
