"""The routes of the API, made of the table of operations."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from mcp_tasks.api.openapi import document
from mcp_tasks.api.operations import OPERATIONS, Operation
from mcp_tasks.errors import PlanNotFound, TaskNotFound, TasksError
from mcp_tasks.http.api.answers import failed, json_answer, problem_answer, refused
from mcp_tasks.http.api.handlers import HANDLERS, Call, Handler
from mcp_tasks.http.api.reading import ApiSettings, NotJson, caller_of, read_request, require_role, waits
from mcp_tasks.http.bodies import large_bodies
from mcp_tasks.models import TASK_ID
from mcp_tasks.service import Service

__all__ = ["Observe", "build_api", "tell_ways", "unrouted"]

Observe = Callable[[str, float], None]
"""Told of each answer: operation, seconds."""


def build_api(service: Service, settings: ApiSettings, observe: Observe) -> Starlette:
    """The application below `/api`. Host, Origin and credential have been checked before it is asked."""
    by_path: dict[str, dict[str, Operation]] = {}
    for row in OPERATIONS:
        by_path.setdefault(row.path, {})[row.method] = row
    large = large_bodies()
    routes = [
        Route(path, _Endpoint(service, settings, rows.values(), observe, large).answer, methods=list(rows))
        for path, rows in by_path.items()
    ]
    app = Starlette(
        routes=[Route("/", tell_ways), Route("/openapi.json", _describe), *routes],
        exception_handlers={HTTPException: unrouted},
    )
    # To a client of a proxy that has TLS it would name an address without.
    app.router.redirect_slashes = False
    return app


class _Endpoint:
    """Answers the operations of one path."""

    def __init__(
        self,
        service: Service,
        settings: ApiSettings,
        rows: Iterable[Operation],
        observe: Observe,
        large: anyio.CapacityLimiter,
    ) -> None:
        self._service = service
        self._settings = settings
        self._observe = observe
        self._large = large
        self._rows = {row.method: row for row in rows}

    async def answer(self, http: HttpRequest) -> Response:
        """Carry out one call. Every error becomes a problem."""
        method = "GET" if http.method == "HEAD" else http.method
        row = next(row for row in self._rows.values() if row.method == method)
        began = time.monotonic()
        response = await _translated(http, row.name, lambda: self._carried_out(http, row))
        self._observe(row.name, time.monotonic() - began)
        return _headers_of(response) if http.method == "HEAD" else response

    async def _carried_out(self, http: HttpRequest, row: Operation) -> Response:
        require_role(http, row)
        request = await read_request(http, row, self._large)
        caller = caller_of(http, request, self._settings)
        if row.answer == "events" and http.method == "HEAD":
            return Response(media_type="text/event-stream")
        handler: Handler = HANDLERS.get(row.name) or _of_service(row.name)
        call = Call(self._service, self._settings, caller, request, http)
        answer = await (_while_connected(http, handler, call) if waits(row) else handler(call))
        if isinstance(answer, Response):
            return answer
        status, headers = row.status, {}
        if status == 201 and answer.get("reused"):
            status = 200
        if row.place:
            headers["location"] = http.scope["root_path"] + row.place.format_map(answer)
        return json_answer(answer, status, headers)


def _headers_of(response: Response) -> Response:
    """The answer to HEAD: nothing is read of what a body would have been."""
    headers = Response(status_code=response.status_code)
    headers.raw_headers = response.raw_headers
    return headers


def _of_service(name: str) -> Handler:
    async def carry_out(call: Call) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = await getattr(call.service, name)(call.caller, call.request)
        return answer

    return carry_out


async def _while_connected(http: HttpRequest, handler: Handler, call: Call) -> Mapping[str, Any] | Response:
    """Wait no longer than there is somebody to be told. What is waited for does not depend on it."""
    answer: Mapping[str, Any] | Response = Response(status_code=204)  # which nobody will see
    async with anyio.create_task_group() as group:

        async def until_gone() -> None:
            while (await http.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(until_gone)
        answer = await handler(call)
        group.cancel_scope.cancel()
    return answer


async def _translated(http: HttpRequest, name: str, carry_out: Callable[[], Awaitable[Response]]) -> Response:
    try:
        return await carry_out()
    except NotJson:
        return problem_answer(415, "the body is not JSON", "send Content-Type: application/json")
    except ClientDisconnect:
        return Response(status_code=400)  # which nobody will see
    except Exception as raised:  # noqa: BLE001 - the edge: what is not ours to tell goes to the log
        error: BaseException = raised
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        return refused(error, _way_to_id(error, http)) if isinstance(error, TasksError) else failed(name)


def _way_to_id(error: TasksError, http: HttpRequest) -> str:
    """The hint for whoever gives the beginning of an id, which the command line takes, and no path does."""
    task_id, plan_id = (http.path_params.get(name) for name in ("task_id", "plan_id"))
    match error:
        case TaskNotFound() if task_id is not None and not TASK_ID.fullmatch(task_id):
            return "paths take whole ids: GET /api/ids/{prefix} tells the one that begins like this"
        case PlanNotFound() if plan_id is not None and not TASK_ID.fullmatch(plan_id):
            return "paths take whole ids: GET /api/ids/{prefix}?kind=plan tells the one that begins like this"
        case _:
            return ""


async def tell_ways(_: HttpRequest) -> Response:
    """Answer `/api` itself: where its description is, and where one can begin to look."""
    begin = {row.path[1:]: f"/api{row.path}" for row in OPERATIONS if _is_beginning(row)}
    return json_answer({"openapi": "/api/openapi.json", **begin})


def _is_beginning(row: Operation) -> bool:
    return row.method == "GET" and not row.path_fields and row.path.count("/") == 1


async def _describe(_: HttpRequest) -> Response:
    return json_answer(document())


async def unrouted(_: HttpRequest, error: Exception) -> Response:
    """Answer what no route is there for, as a handler of HTTPException."""
    if not isinstance(error, HTTPException):
        return failed("the answer")
    if error.status_code == 405:
        message, hint = "this path is not for that method", "the header Allow has those that it is for"
    else:
        message, hint = "there is nothing at this path", "/api/openapi.json describes what there is"
    return problem_answer(error.status_code, message, hint, headers=error.headers)
