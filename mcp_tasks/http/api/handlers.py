"""What is done for the operations of the API that no tool has."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio.to_thread
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from mcp_tasks.api.openapi import version
from mcp_tasks.clock import rfc3339
from mcp_tasks.errors import MessageNotFound, PolicyDenied, RevisionConflict, SessionNotFound
from mcp_tasks.http.api.files import export_whole, read_stream
from mcp_tasks.http.api.reading import ApiSettings
from mcp_tasks.http.api.streams import follow_task, watch_session
from mcp_tasks.requests import ClearTask, ProjectContext, ReadJournal, SessionInfo, UpdateSession
from mcp_tasks.service import Caller, Service

__all__ = ["HANDLERS", "Call", "Handler", "require_operator"]

_PROJECT: Final = "project"
"""Key of the preferences under which people say what they know of the project."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the API.

    Attributes:
        request: As the row of the operation has it.
        http: What came in, for its headers and its body.
    """

    service: Service
    settings: ApiSettings
    caller: Caller
    request: Any
    http: HttpRequest


Handler = Callable[[Call], Awaitable[Mapping[str, Any] | Response]]


def require_operator(caller: Caller, settings: ApiSettings) -> None:
    """Raises PolicyDenied for all but the user who runs the server, by his own token."""
    if not _is_operator(caller, settings):
        raise PolicyDenied("this concerns every owner", "use the token of the server itself")


def _is_operator(caller: Caller, settings: ApiSettings) -> bool:
    return caller.owner == settings.owner and caller.share is None and caller.role == "owner"


async def _delete_task(call: Call) -> Mapping[str, Any]:
    asked = call.request
    return await call.service.clear_task(call.caller, ClearTask(task_id=asked.task_id, cancel=asked.cancel))


async def _cancel_tasks(call: Call) -> Mapping[str, Any]:
    return await call.service.cancel_task(call.caller, call.request)


async def _resolve_prefix(call: Call) -> Mapping[str, Any]:
    service, kind = call.service, call.request.kind
    resolve = service.resolve_prefix if kind == "task" else service.resolve_plan_prefix
    found = await anyio.to_thread.run_sync(resolve, call.caller, call.request.prefix)
    return {f"{kind}_id": found}


async def _list_plans(call: Call) -> Mapping[str, Any]:
    return await call.service.list_plans(call.caller, call.request.limit)


async def _create_session(call: Call) -> Mapping[str, Any]:
    name = call.request.session
    try:
        await call.service.session_info(call.caller, SessionInfo(session=name))
    except SessionNotFound:
        given = call.request.model_dump(exclude_unset=True)
        # Of two who make it at once, revision 0 is there for one.
        return await call.service.update_session(call.caller, UpdateSession(**given, revision=0))
    raise RevisionConflict(f"session {name!r} is there already", "update_session changes it")


async def _extend_session(call: Call) -> Mapping[str, Any]:
    await call.service.session_info(call.caller, SessionInfo())  # which an extension does not make
    expires = call.request.expires_in_ms
    return await call.service.update_session(call.caller, UpdateSession(expires_in_ms=expires))


async def _delete_session(call: Call) -> Mapping[str, Any]:
    return await call.service.delete_session(call.caller, force=call.request.force)


async def _get_message(call: Call) -> Mapping[str, Any]:
    wanted = call.request.message_id
    # What led to a message ends with it; folded ones are told too, since they are still kept.
    branch = ReadJournal(branch=wanted, folded=True, limit=1_000)
    while True:
        page = await call.service.read_journal(call.caller, branch)
        for message in page["messages"]:
            if message["message_id"] == wanted:
                return {"session": page["session"], "message": message}
        if "next_cursor" not in page:
            raise MessageNotFound(wanted)
        branch = branch.model_copy(update={"cursor": page["next_cursor"]})


async def _prune_journal(call: Call) -> Mapping[str, Any]:
    return await call.service.prune_journal(call.caller, call.request.keep)


async def _clear_history(call: Call) -> Mapping[str, Any]:
    return await call.service.prune_journal(call.caller, 0)


async def _journal_stats(call: Call) -> Mapping[str, Any]:
    return await call.service.journal_stats(call.caller)


async def _import_journal(call: Call) -> Mapping[str, Any]:
    return await call.service.import_journal(call.caller, await call.http.body())


async def _refresh_context(call: Call) -> Mapping[str, Any]:
    return await call.service.project_context(call.caller, ProjectContext(cwd=call.request.cwd, refresh=True))


async def _set_context(call: Call, project: Mapping[str, Any] | None) -> Mapping[str, Any]:
    await call.service.update_session(call.caller, UpdateSession(preferences={_PROJECT: project}))
    return await call.service.project_context(call.caller, ProjectContext())


async def _replace_context(call: Call) -> Mapping[str, Any]:
    return await _set_context(call, call.request.project)


async def _clear_context(call: Call) -> Mapping[str, Any]:
    await call.service.session_info(call.caller, SessionInfo())  # where there is none, nothing was set
    return await _set_context(call, None)


async def _server_info(call: Call) -> Mapping[str, Any]:
    caller, settings = await call.service.admitted(call.caller), call.settings
    shared = {} if caller.via is None else {"share": caller.via}
    return {
        "name": "mcp-tasks",
        "version": version(),
        "now": rfc3339(time.time_ns() // 1_000_000),
        "owner": caller.owner,
        "role": caller.role,
        "operator": _is_operator(caller, settings),
        "session": caller.session,
        "max_wait_ms": caller.max_wait_ms,
        **shared,
    }


async def _all_sessions(call: Call) -> Mapping[str, Any]:
    require_operator(call.caller, call.settings)
    return await call.service.all_sessions(call.caller)


async def _project_figures(call: Call) -> Mapping[str, Any]:
    require_operator(call.caller, call.settings)
    return await anyio.to_thread.run_sync(call.service.projects.figures)


async def _warm_projects(call: Call) -> Mapping[str, Any]:
    require_operator(call.caller, call.settings)
    warmed, failed = [], []
    for folder in call.request.folders:
        if await anyio.Path(folder).is_dir():
            warmed.append({"cwd": folder, "looked_at": await call.service.projects.warm(folder)})
        else:
            failed.append(folder)
    return {"warmed": warmed, "failed": failed}


async def _clear_projects(call: Call) -> Mapping[str, Any]:
    require_operator(call.caller, call.settings)
    return {"cleared": await anyio.to_thread.run_sync(call.service.projects.clear)}


async def _read_stream(call: Call, stream: Any) -> Response:
    return await read_stream(call.service, call.caller, call.request.task_id, stream, call.http.headers)


async def _export_whole(call: Call) -> Response:
    return await export_whole(call.service, call.caller, call.request.format)


async def _follow_task(call: Call) -> Response:
    return await follow_task(call.service, call.caller, call.request, call.http.headers.get("last-event-id"))


async def _watch_session(call: Call) -> Response:
    return await watch_session(call.service, call.caller, call.http.headers.get("last-event-id"))


HANDLERS: Final[Mapping[str, Handler]] = {
    "delete_task": _delete_task,
    "cancel_tasks": _cancel_tasks,
    "resolve_prefix": _resolve_prefix,
    "list_plans": _list_plans,
    "create_session": _create_session,
    "extend_session": _extend_session,
    "delete_session": _delete_session,
    "get_message": _get_message,
    "prune_journal": _prune_journal,
    "clear_history": _clear_history,
    "journal_stats": _journal_stats,
    "import_journal": _import_journal,
    "refresh_context": _refresh_context,
    "replace_context": _replace_context,
    "clear_context": _clear_context,
    "server_info": _server_info,
    "all_sessions": _all_sessions,
    "project_figures": _project_figures,
    "warm_projects": _warm_projects,
    "clear_projects": _clear_projects,
    "read_stdout": partial(_read_stream, stream="stdout"),
    "read_stderr": partial(_read_stream, stream="stderr"),
    "export_whole": _export_whole,
    "follow_task": _follow_task,
    "watch_session": _watch_session,
}
"""By operation. The others are methods of the service, by the same names."""
