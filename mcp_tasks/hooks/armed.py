"""What lies in the outbox for one task: its hooks, and what is to be told or has been told."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import Hook, HookEvent, TaskKey

__all__ = ["Armed", "BrokenArmed", "Notice", "decode", "encode", "notice_id"]

SCHEMA: Final = 1


class BrokenArmed(Exception):
    """The bytes are none of ours; the message says why."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that one hook is to tell.

    Attributes:
        notice_id: The same at each attempt, over restarts, so that who gets it twice can know.
        hook: Which hook of the task, from 0.
        mark: Which of several: the run, or the run and the beginning of the silence.
        at: When it happened, in ms since the epoch.
        data: What is told, until it has been.
        attempts: How often it was tried.
        next_at: When it is tried next; None when it is over.
        told: Whether it has been told; False for one that was given up.
    """

    notice_id: str
    hook: int
    event: HookEvent
    mark: str
    at: int
    data: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 0
    next_at: int | None = None
    told: bool = False

    def over(self, *, told: bool) -> Notice:
        """The same, of which nothing is left to be done."""
        return replace(self, data={}, next_at=None, told=told)


@dataclass(frozen=True, slots=True)
class Armed:
    """The hooks of one task.

    Attributes:
        armed_at: When, in ms since the epoch.
        secret: What webhooks are signed with, sealed; None where there are none.
        notices: Of each hook and event the newest: still to be told, or told.
    """

    key: TaskKey
    armed_at: int
    hooks: tuple[Hook, ...]
    secret: str | None = field(default=None, repr=False)
    notices: tuple[Notice, ...] = ()

    def with_notice(self, notice: Notice) -> Armed:
        """With this notice in the place of the one of its kind."""
        left = tuple(one for one in self.notices if (one.hook, one.event) != (notice.hook, notice.event))
        return replace(self, notices=(*left, notice))

    def newest(self, hook: int, event: HookEvent) -> Notice | None:
        """The newest notice of a hook for an event."""
        return next((one for one in self.notices if (one.hook, one.event) == (hook, event)), None)


def notice_id(task_id: str, hook: int, event: HookEvent, mark: str) -> str:
    """The id of a notice; who finds the same thing again, after a crash, gives it the same id."""
    digest = hashlib.blake2b(f"{task_id} {hook} {event} {mark}".encode(), digest_size=16)
    return f"msg_{digest.hexdigest()}"


@cache
def _adapter() -> TypeAdapter[Armed]:
    return TypeAdapter(Armed)


def encode(armed: Armed) -> bytes:
    """One line of JSON."""
    return b'{"schema":%d,"armed":%s}\n' % (SCHEMA, _adapter().dump_json(armed))


def decode(data: bytes) -> Armed:
    """Read what `encode` wrote. Raises BrokenArmed, and StoreUnavailable for what is of a newer version."""
    try:
        envelope = from_json(data)
        schema = envelope.get("schema") if isinstance(envelope, dict) else None
        if type(schema) is int and schema > SCHEMA:
            raise StoreUnavailable("a hook was armed by a newer version of mcp_tasks", "use that version")
        if schema != SCHEMA:
            raise BrokenArmed("no version")
        return _adapter().validate_json(to_json(envelope.get("armed")), strict=True)
    except ValidationError as error:
        raise BrokenArmed(f"{error.error_count()} fields are not right") from None  # it would show values
    except ValueError:
        raise BrokenArmed("not JSON") from None
