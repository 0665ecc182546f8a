"""Who asks for what, as the HTTP API takes it: fields, path and headers."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.requests import Request
from mcp_tasks.service import Caller
from mcp_tasks.service.access import TOKEN_PREFIX, session_of_share

__all__ = ["fields_of", "headers_of", "path_of", "session_of", "share_given"]


def fields_of(caller: Caller, request: Request) -> dict[str, Any]:
    """The fields of a request as they are sent, with the session that the caller has named."""
    fields = request.model_dump(mode="json", exclude_unset=True)
    given = {name: value for name, value in fields.items() if value is not None}
    return {**given, "session": caller.session} if caller.named else given


def share_given(share: SecretStr | None, token: SecretStr | None) -> str | None:
    """The share by which everything is asked: the one that is set, else the token itself where it is one."""
    if share is not None:
        return share.get_secret_value()
    bearer = "" if token is None else token.get_secret_value().strip()
    return bearer if bearer.startswith(TOKEN_PREFIX) else None


def session_of(caller: Caller) -> str:
    """The session that a path names: where nobody has named one, that of the share, else the default."""
    if caller.share is not None and not caller.named:
        return session_of_share(caller.share) or caller.session
    return caller.session


def headers_of(caller: Caller) -> dict[str, str]:
    """What lets the caller in beside the token. Raises InvalidArgument where that is no share."""
    if caller.share is None:
        return {}
    if not caller.share.isascii() or not caller.share.isprintable():
        raise InvalidArgument("MCP_TASKS_SHARE is no token", "give the token as it was told")
    return {"mcp-tasks-share": caller.share}


def path_of(template: str, fields: dict[str, Any]) -> str:
    """The path of an operation with its fields filled in."""
    return template.format(**{name: quote(str(value), safe="") for name, value in fields.items()})
