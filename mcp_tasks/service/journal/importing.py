"""The JSON export of a session taken into a journal: all of it, or nothing where anything is wrong."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.models import Message, SessionKey, Version
from mcp_tasks.redaction import redact_text, redact_value
from mcp_tasks.service.access import Caller
from mcp_tasks.service.desk import Desk, View
from mcp_tasks.service.journal.exporting import FORMAT_VERSION

__all__ = ["Importing"]

_HINT = "give what `export --format json` has written; nothing was changed"
_LONGEST = 4_000_000


def _moment(value: object) -> int:
    """RFC 3339 as milliseconds since the epoch."""
    if not isinstance(value, str):
        raise ValueError("a moment such as 2026-01-31T12:00:00.000Z is needed")  # noqa: TRY004 - for pydantic
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("the time zone is missing")
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise ValueError("a moment such as 2026-01-31T12:00:00.000Z is needed") from error


_Moment = Annotated[int, BeforeValidator(_moment), Field(ge=0, lt=2**48)]
_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", hide_input_in_errors=True)


class _Version(_Part):
    at: _Moment
    text: Annotated[str, Field(max_length=_LONGEST)]


class _Message(_Part):
    message_id: _Id
    seq: Annotated[int, Field(ge=1, lt=2**39)]
    role: Literal["user", "assistant", "system", "tool", "event"]
    text: Annotated[str, Field(max_length=_LONGEST)]
    at: _Moment
    task_id: _Id | None = None
    parent: _Id | None = None
    data: dict[str, Any] = Field(default={})
    edited_at: _Moment | None = None
    versions: list[_Version] = Field(default=[])


class _Document(_Part):
    format: Literal["mcp-tasks session"]  # as exporting writes it
    version: Annotated[int, Field(ge=1)]
    messages: list[_Message]


class Importing:
    """The use case of an import, which no tool has."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def import_journal(self, caller: Caller, document: bytes) -> View:
        """Take the messages of an export into the caller's session.

        Ids and moments stay; what is there already is skipped; secrets are taken out as ever.

        Raises:
            InvalidArgument: The document is malformed; the message names the place.
        """
        async with self._desk.turns.of(caller.session_key):
            return await self._desk.blocking(self._import, caller, document)

    def _import(self, caller: Caller, document: bytes) -> View:
        key = caller.session_key
        secrets = self._desk.workspaces.secret_values(key)
        parsed = _parsed(document)
        session = self._desk.records.change(key, lambda session: session, caller.by)
        messages = (_message(key, one, secrets, sealed=session.seal_journal) for one in parsed.messages)
        imported = self._desk.journal.restore(key, messages)
        return {"session": key.session, "imported": imported, "skipped": len(parsed.messages) - imported}


def _parsed(document: bytes) -> _Document:
    try:
        parsed = _Document.model_validate_json(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise InvalidArgument("the document is not JSON", _HINT) from None
        place = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise InvalidArgument(f"{place.lstrip('.') or 'the document'}: {first['msg']}", _HINT) from None
    if parsed.version > FORMAT_VERSION:
        raise InvalidArgument(
            f"version: {parsed.version} is newer than {FORMAT_VERSION}, the newest that is known", _HINT
        )
    return parsed


def _message(key: SessionKey, one: _Message, secrets: tuple[str, ...], *, sealed: bool) -> Message:
    return Message(
        key,
        one.message_id,
        one.seq,
        one.role,
        redact_text(one.text, secrets),
        one.at,
        one.task_id,
        one.parent,
        redact_value(one.data, secrets),
        one.edited_at,
        sealed,
        tuple(Version(version.at, redact_text(version.text, secrets)) for version in one.versions),
    )
