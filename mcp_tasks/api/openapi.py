"""The description of the HTTP API as OpenAPI 3.1, made of the table of operations."""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from mcp_tasks.api.answers import ALWAYS_THERE
from mcp_tasks.api.operations import OPERATIONS, Operation
from mcp_tasks.api.problems import MEDIA_TYPE, STATUSES
from mcp_tasks.models import SESSION_NAME
from mcp_tasks.requests import Request

__all__ = ["document", "version"]

Json = dict[str, Any]

_BYTES: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
# Whether a schema is of the whole or of each event is not settled before OpenAPI 3.2, so there is none.
_EVENTS: Final[Json] = {"text/event-stream": {}}
_TEXTS: Final = {
    "application/json; charset=utf-8": {"schema": {"type": "object"}},
    "text/markdown; charset=utf-8": {"schema": {"type": "string"}},
}
_NAME: Final = SESSION_NAME.pattern.replace(r"\Z", "$")
_SESSION: Final[Json] = {"type": "string", "pattern": f"^{_NAME}$"}
_REFUSALS: Final = sorted({401, 403, 413, 415, 421, *STATUSES.values()})


@functools.cache
def document() -> Json:
    """The description. It is the same for everybody; who gets it must not change it."""
    paths: dict[str, Json] = {}
    for row in OPERATIONS:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mcp_tasks",
            "version": version(),
            "description": "Commands as durable tasks: started, looked at, read and ended over HTTP.",
        },
        "servers": [{"url": "/api"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "parameters": _HEADERS,
            "responses": {_named(status): _refusal(status) for status in [*_REFUSALS, 416]},
            "schemas": {"Problem": _PROBLEM, **_shared()},
        },
    }


def version() -> str:
    """The version of this package; 0 where it is run from a source tree."""
    try:
        return importlib.metadata.version("mcp-tasks")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def _operation(row: Operation) -> Json:
    described: Json = {
        "operationId": row.name,
        "summary": row.summary,
        "tags": [row.path.split("/")[1]],
        "parameters": [
            *_parameters(row),
            *({"$ref": f"#/components/parameters/{name}"} for name in _HEADERS),
        ],
        "responses": _responses(row),
    }
    if row.takes_document:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": True}}}
    elif row.method not in ("GET", "DELETE"):
        schema = _fields(row)
        described["requestBody"] = {
            "required": bool(schema.get("required")),
            "content": {"application/json": {"schema": schema}},
        }
    return described


def _parameters(row: Operation) -> Iterator[Json]:
    schema = _schema(row.request)
    for name in row.path_fields:
        yield {"name": name, "in": "path", "required": True, "schema": _described(name, schema)}
    if row.method in ("GET", "DELETE"):
        for name, field in row.request.model_fields.items():
            if name not in row.path_fields:
                yield {
                    "name": name,
                    "in": "query",
                    "required": field.is_required(),
                    "schema": _without_null(_described(name, schema)),
                }
    if row.answer == "bytes":
        yield {"name": "Range", "in": "header", "schema": {"type": "string"}}
    if row.answer == "events":
        yield {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}}


def _fields(row: Operation) -> Json:
    """The body: what the path does not name."""
    whole = _schema(row.request)
    names = [name for name in row.request.model_fields if name not in row.path_fields]
    fields: Json = {
        "type": "object",
        "properties": {name: _described(name, whole) for name in names},
        "additionalProperties": False,
    }
    required = [name for name in whole.get("required", ()) if name in names]
    return {**fields, "required": required} if required else fields


def _described(name: str, schema: Json) -> Json:
    if name == "session":
        return _SESSION
    described: Json = schema["properties"][name]
    return {
        key: value for key, value in described.items() if key not in ("title", "default") or value is not None
    }


def _without_null(schema: Json) -> Json:
    """In a query nothing is null: it is left out."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) != 1:
        return schema
    return {**{name: value for name, value in schema.items() if name != "anyOf"}, **choices[0]}


def _responses(row: Operation) -> Json:
    fields = ALWAYS_THERE.get(row.name, {})
    view: Json = {"type": "object", "properties": dict(fields), "required": list(fields)}
    content = {
        "view": {"application/json": {"schema": view}},
        "bytes": _BYTES,
        "text": _TEXTS,
        "events": _EVENTS,
    }[row.answer]
    done: Json = {"description": row.summary, "content": content}
    if row.place:
        done["links"] = _links(row)
    responses: Json = {str(row.status): done}
    if row.status == 201:
        responses["200"] = {**done, "description": "It was there already"}
    if row.answer == "bytes":
        responses["206"] = {"description": "The part that was asked for", "content": content}
    if row.answer == "events":
        responses["204"] = {"description": "There is no more to come"}
    for status in [*_REFUSALS, *([416] if row.answer == "bytes" else [])]:
        responses[str(status)] = {"$ref": f"#/components/responses/{_named(status)}"}
    return responses


def _named(status: int) -> str:
    return HTTPStatus(status).phrase.replace(" ", "")


def _refusal(status: int) -> Json:
    codes = [code for code, of in STATUSES.items() if of == status]
    return {
        "description": ", ".join(codes) or HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _links(row: Operation) -> Json:
    """What can be done with what an operation has made."""
    named = re.findall(r"{(\w+)}", row.place)[-1]
    follows = [
        each for each in OPERATIONS if each.path_fields == (named,) and each.path.startswith(row.place)
    ]
    return {
        each.name: {
            "operationId": each.name,
            "parameters": {f"path.{named}": f"$response.body#/{named}"},
        }
        for each in follows
    }


@functools.cache
def _schemas() -> tuple[Mapping[type[Request], Json], Json]:
    """The schemas of all requests, and what they share."""
    requests = {row.request for row in OPERATIONS}
    ordered = sorted(requests, key=lambda request: request.tool)
    by_mode, shared = models_json_schema(
        [(request, "validation") for request in ordered], ref_template="#/components/schemas/{model}"
    )
    definitions = shared["$defs"]
    found = {
        request: definitions[by_mode[request, "validation"]["$ref"].rpartition("/")[2]] for request in ordered
    }
    return found, definitions


def _schema(request: type[Request]) -> Json:
    return _schemas()[0][request]


def _shared() -> Json:
    """What schemas of requests refer to, such as the steps of a plan."""
    whole = {row.request.__name__ for row in OPERATIONS}
    return {name: schema for name, schema in _schemas()[1].items() if name not in whole}


_PROBLEM: Final[Json] = {
    "type": "object",
    "description": "Problem details (RFC 9457)",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Stable; what programs go by"},
        "hint": {"type": "string", "description": "What would be right"},
    },
    "required": ["type", "title", "status", "detail", "code"],
}
_HEADERS: Final[Json] = {
    "Session": {
        "name": "Mcp-Tasks-Session",
        "in": "header",
        "description": "The session, where neither path nor parameter names one",
        "schema": _SESSION,
    },
    "Share": {
        "name": "Mcp-Tasks-Share",
        "in": "header",
        "description": "Token of a share",
        "schema": {"type": "string", "minLength": 1},
    },
}
