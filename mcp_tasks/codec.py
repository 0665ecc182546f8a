"""Records as bytes: one JSON envelope with a version, a kind, a checksum and the value.

`{"schema": 2, "kind": "task", "crc32": "…", "task": {...}}`. The version is looked at before anything
else, so that a record of a newer program is told apart from a broken one and is never touched. The
checksum is that of the value as it was written; it finds what went bad on the disk, and no forger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias, TypeVar
from zlib import crc32

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from mcp_tasks.errors import InvalidArgument, LimitReached, StoreUnavailable, TasksError
from mcp_tasks.models import Plan, Session, Task

__all__ = [
    "MAX_RECORD_BYTES",
    "MIGRATIONS",
    "SCHEMA",
    "BrokenRecord",
    "Migration",
    "NewerSchema",
    "decode_plan",
    "decode_session",
    "decode_task",
    "encode_plan",
    "encode_session",
    "encode_task",
    "unwrap",
]

SCHEMA = 2
"""The version that this program writes."""

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""No record is larger, neither written nor read."""

Migration: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]


def _unchanged(envelope: dict[str, Any]) -> dict[str, Any]:
    """Version 2 added fields, all of which have the defaults that version 1 meant."""
    return envelope


MIGRATIONS: Mapping[int, Migration] = {1: _unchanged}
"""For every older version the function that lifts an envelope to the next one."""

_SHOWN_ERRORS = 3

T = TypeVar("T")


class BrokenRecord(TasksError):
    """The bytes are no record of ours; the message says where and what is wrong."""

    code = "store_unavailable"


class NewerSchema(StoreUnavailable):
    """A newer version of the program wrote this; it must be left as it is."""

    def __init__(self, what: str, found: int, known: int) -> None:
        super().__init__(
            f"{what} was written by a newer version of mcp_tasks (schema {found}, this one knows {known})",
            "use the newer version; nothing was changed",
        )
        self.found = found


def encode_task(task: Task) -> bytes:
    """Render a task as one line of JSON.

    Raises:
        InvalidArgument: A text is not valid Unicode (a lone surrogate), so JSON cannot hold it.
        LimitReached: The record would be larger than MAX_RECORD_BYTES.
    """
    return _encode(_task_adapter(), "task", task)


def decode_task(data: bytes) -> Task:
    """Read what `encode_task` wrote, in this version or an older one.

    Raises:
        BrokenRecord: The bytes are not a task; with the path of the field and what is wrong.
        NewerSchema: A newer version wrote it.
    """
    return _decode(_task_adapter(), "task", data)


def encode_session(session: Session) -> bytes:
    """Render a session as one line of JSON. Raises as `encode_task` does."""
    return _encode(_session_adapter(), "session", session)


def decode_session(data: bytes) -> Session:
    """Read what `encode_session` wrote. Raises as `decode_task` does."""
    return _decode(_session_adapter(), "session", data)


def encode_plan(plan: Plan) -> bytes:
    """Render a plan as one line of JSON. Raises as `encode_task` does."""
    return _encode(_plan_adapter(), "plan", plan)


def decode_plan(data: bytes) -> Plan:
    """Read what `encode_plan` wrote. Raises as `decode_task` does."""
    return _decode(_plan_adapter(), "plan", data)


def unwrap(
    data: bytes, kind: str, *, schema: int | None = None, migrations: Mapping[int, Migration] | None = None
) -> Any:
    """Take the value of a kind out of an envelope and bring it up to date.

    Args:
        data: The whole record.
        kind: What the envelope must hold.
        schema: The newest version known; SCHEMA unless told otherwise.
        migrations: Steps from older versions; MIGRATIONS unless told otherwise.

    Returns:
        The value as parsed from JSON, not validated yet.

    Raises:
        BrokenRecord: No JSON object, no version, another kind, or a version nobody can lift.
        NewerSchema: The version is newer than `schema`.
    """
    known = SCHEMA if schema is None else schema
    steps = MIGRATIONS if migrations is None else migrations
    if not data:
        raise BrokenRecord("the file is empty")
    try:
        envelope = from_json(data)
    except ValueError as error:
        raise BrokenRecord(f"not JSON: {error}") from error
    if not isinstance(envelope, dict):
        raise BrokenRecord(f"not a JSON object but {type(envelope).__name__}")
    found = _version(envelope)
    if found > known:
        raise NewerSchema(f"this {kind}", found, known)
    while found < known:
        step = steps.get(found)
        if step is None:
            raise BrokenRecord(f"schema: version {found} is unknown")
        envelope = step(envelope)
        found += 1
    if envelope.get("kind") != kind:
        raise BrokenRecord(f"kind: expected {kind!r}, found {envelope.get('kind')!r:.80}")
    if kind not in envelope:
        raise BrokenRecord(f"{kind}: missing")
    if "crc32" in envelope and envelope["crc32"] != _checksum(to_json(envelope[kind])).decode():
        raise BrokenRecord(f"{kind}: it is not what was written, its checksum differs")
    return envelope[kind]


def _version(envelope: dict[str, Any]) -> int:
    found = envelope.get("schema")
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise BrokenRecord(f"schema: expected a positive integer, found {found!r:.80}")
    return found


@cache
def _task_adapter() -> TypeAdapter[Task]:
    return TypeAdapter(Task)


@cache
def _session_adapter() -> TypeAdapter[Session]:
    return TypeAdapter(Session)


@cache
def _plan_adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)


@cache
def _prefix(kind: str) -> bytes:
    return b'{"schema":%d,"kind":"%s","crc32":"' % (SCHEMA, kind.encode())


@cache
def _infix(kind: str) -> bytes:
    return b'","%s":' % kind.encode()


def _checksum(body: bytes) -> bytes:
    return b"%08x" % crc32(body)


def _encode(adapter: TypeAdapter[T], kind: str, value: T) -> bytes:
    try:
        body = adapter.dump_json(value)
    except PydanticSerializationError as error:
        raise InvalidArgument(
            f"the {kind} holds text that is not valid Unicode", "send only text that UTF-8 can carry"
        ) from error
    if len(body) > MAX_RECORD_BYTES - 100:
        raise LimitReached(f"the {kind} is larger than {MAX_RECORD_BYTES} bytes", "shorten its command")
    return b"".join((_prefix(kind), _checksum(body), _infix(kind), body, b"}\n"))


def _decode(adapter: TypeAdapter[T], kind: str, data: bytes) -> T:
    prefix, infix = _prefix(kind), _infix(kind)
    begin = len(prefix) + 8 + len(infix)
    if data.startswith(prefix) and data.startswith(infix, begin - len(infix)) and data.endswith(b"}\n"):
        # Our own spelling needs no second parse. Whatever is odd about it is found by the long way.
        body = data[begin:-2]
        if data[len(prefix) : len(prefix) + 8] == _checksum(body):
            try:
                return adapter.validate_json(body, strict=True)
            except ValidationError:
                pass
    body = unwrap(data, kind)
    try:
        return adapter.validate_json(to_json(body), strict=True)
    except ValidationError as error:
        raise BrokenRecord(_explain(kind, error)) from error


def _explain(kind: str, error: ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False, include_context=False)
    told = [f"{'.'.join([kind, *map(str, one['loc'])])}: {one['msg']}" for one in details[:_SHOWN_ERRORS]]
    if len(details) > _SHOWN_ERRORS:
        told.append(f"and {len(details) - _SHOWN_ERRORS} more")
    return "; ".join(told)
