"""From what came in over HTTP to a request of the service, and to who makes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread
from pydantic import SecretStr
from pydantic_core import from_json
from starlette.requests import Request as HttpRequest

from mcp_tasks.api.operations import Operation
from mcp_tasks.errors import InvalidArgument
from mcp_tasks.http.bodies import CROWDED, LARGE, is_crowded
from mcp_tasks.http.principals import principal_of
from mcp_tasks.models import DEFAULT_SESSION, SESSION_NAME
from mcp_tasks.refusals import unknown_parameter
from mcp_tasks.requests import Request
from mcp_tasks.server.arguments import ALIASES, parse
from mcp_tasks.server.callers import share_of
from mcp_tasks.service import Caller, needed, require

__all__ = [
    "SESSION_HEADER",
    "SHARE_HEADER",
    "ApiSettings",
    "NotJson",
    "caller_of",
    "read_request",
    "require_role",
    "waits",
]

SESSION_HEADER: Final = "mcp-tasks-session"
"""Header that names the session where neither the path nor a parameter does."""

SHARE_HEADER: Final = "mcp-tasks-share"
"""Header with the token of a share."""

_EXACT: Final = 2**53
"""Below it a JSON number is the same as an integer and as a float."""


class ApiSettings(Protocol):
    """What the API needs to know of the settings."""

    @property
    def owner(self) -> str:
        """Who runs the server, and alone may ask for what concerns all owners."""
        ...

    @property
    def session(self) -> str | None:
        """The session that is meant where a call names none."""
        ...

    @property
    def share(self) -> SecretStr | None:
        """Token of the share that is meant where a call gives none."""
        ...

    @property
    def max_wait_ms(self) -> int:
        """The longest that one call waits."""
        ...


class NotJson(Exception):
    """The body says that it is something else than JSON."""


def require_role(http: HttpRequest, row: Operation) -> None:
    """Turn away who may not change anything, before anything is made of what he sends.

    What exactly the operation takes is looked at with the call. Raises PolicyDenied.
    """
    if row.method != "GET" and row.name != "refresh_context" and needed(row.name) != "read":
        principal = principal_of(http.scope.get("user"))
        require(principal.role, "write", by_share=principal.share is not None)


async def read_request(http: HttpRequest, row: Operation, large: anyio.CapacityLimiter) -> Request:
    """Read what an operation is asked for; `large` lets one large body after the other be parsed.

    Raises:
        InvalidArgument: As for a tool; what stands in a query is typed as loosely, a body is not.
        NotJson: The body has another type.
    """
    from_path = {name: http.path_params[name] for name in row.path_fields}
    in_query = _query(http)
    if row.method in ("GET", "DELETE"):
        _refuse_twice(from_path, in_query)
        return parse(row.request, in_query | from_path)
    if in_query:
        raise InvalidArgument(
            f"unknown parameter {next(iter(in_query))[:64]!r} in the query",
            f"{row.method} takes its parameters as a JSON object in the body",
        )
    if row.takes_document:
        return _checked(row.request, from_path)
    given = await _body(http, large)
    _refuse_twice(from_path, given)
    return _checked(row.request, given | from_path)


def caller_of(http: HttpRequest, request: Request, settings: ApiSettings) -> Caller:
    """Say who calls: the session is that of the request, else of the header, of the settings, the default.

    Raises:
        InvalidArgument: What a header says is wrong.
        PolicyDenied: Nobody is known at the other end, or he gives another share than he came with.
    """
    principal = principal_of(http.scope.get("user"))
    in_header = http.headers.get(SESSION_HEADER)
    if in_header is not None and not SESSION_NAME.fullmatch(in_header):
        raise InvalidArgument(
            "the header Mcp-Tasks-Session is not a session name",
            "a name has 1 to 128 of the characters A-Z a-z 0-9 . _ - and is not . or ..",
        )
    # What is meant by default is for those who may choose.
    by_default = settings.session if principal.share is None else None
    session = request.session or in_header or by_default
    share = http.headers.get(SHARE_HEADER)
    if share == "":
        raise InvalidArgument("the header Mcp-Tasks-Share is empty", "give the token as it was told")
    return Caller(
        owner=principal.owner,
        session=session or DEFAULT_SESSION,
        named=session is not None,
        max_wait_ms=settings.max_wait_ms,
        share=share_of(principal.share, share, settings),
        role=principal.role,
        at_home=principal.owner == settings.owner,
    )


def _query(http: HttpRequest) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in http.query_params.multi_items():
        if name in given:
            raise InvalidArgument(f"{name[:64]!r} is given twice", "give it once")
        given[name] = value
    return given


async def _body(http: HttpRequest, large: anyio.CapacityLimiter) -> dict[str, Any]:
    """The object in the body; no body at all is an empty one."""
    data = await http.body()
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and (data or kind):
        raise NotJson
    if not data:
        return {}
    if await is_crowded(data, large):
        raise InvalidArgument(CROWDED.message, CROWDED.hint)
    if len(data) <= LARGE:
        return _object(data)
    return await anyio.to_thread.run_sync(_object, data, limiter=large)


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError:
        raise InvalidArgument("the body is not JSON", "give an object with the parameters") from None
    if not isinstance(value, dict):
        raise InvalidArgument("the body is not a JSON object", 'give {"name": value, ...}')
    return {name: _whole(each) for name, each in value.items()}


def _refuse_twice(from_path: Mapping[str, str], given: Mapping[str, Any]) -> None:
    if both := next((name for name in from_path if name in given), None):
        raise InvalidArgument(f"{both} is in the path already", "leave it out beside that")


def _checked(request: type[Request], given: Mapping[str, Any]) -> Request:
    for name in given:
        if name not in request.model_fields:
            raise _unknown(name, request)
    return request(**{name: value for name, value in given.items() if value is not None})


def _unknown(name: str, request: type[Request]) -> InvalidArgument:
    """A body is read strictly, so an alias of the tools is no name here; but it tells what was meant."""
    own = next((own for own in ALIASES.get(name, ()) if own in request.model_fields), None)
    if own is not None:
        return InvalidArgument(f"unknown parameter {name!r}", f"did you mean {own!r}?")
    return unknown_parameter(name, request.tool, request.model_fields)


def _whole(value: Any) -> Any:
    """JSON has one kind of number, so 5.0 is as much of an integer as 5."""
    match value:
        case float() if value.is_integer() and abs(value) < _EXACT:
            return int(value)
        case list():
            return [_whole(each) for each in value]
        case dict():
            return {name: _whole(each) for name, each in value.items()}
        case _:
            return value


def waits(row: Operation) -> bool:
    """Whether an operation may take its time before it answers, changing nothing meanwhile."""
    return (row.method == "GET" and "wait_ms" in row.request.model_fields) or row.name == "wait_tasks"
