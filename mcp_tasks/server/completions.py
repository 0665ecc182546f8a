"""`completion/complete`: ids of tasks and names of sessions, as far as somebody has typed them."""

from __future__ import annotations

from typing import Final

import mcp_types as types

from mcp_tasks.requests import ListSessions, ListTasks
from mcp_tasks.server.callers import Callers, Context
from mcp_tasks.server.protocol_errors import told_as_protocol_errors
from mcp_tasks.service import Caller, Service

__all__ = ["Completions"]

_MOST: Final = 100
"""The protocol allows no more values in one answer."""

_PAGE: Final = 200
_PAGES: Final = 5
"""Older ones are not looked at: who types wants an answer at once."""


class Completions:
    """Completes what is an id of a task or a name of a session, in prompts and in resource templates."""

    def __init__(self, service: Service, callers: Callers) -> None:
        self._service = service
        self._callers = callers

    async def complete(self, context: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        """Answer `completion/complete`, newest first; nothing for what cannot be completed.

        Raises:
            MCPError: Nobody is known at the other end.
        """
        with told_as_protocol_errors(context):
            given = params.argument
            known = params.context.arguments if params.context is not None else None
            match given.name:
                case "task_id":
                    caller = self._callers.caller(context, (known or {}).get("session"))
                    values = await self._task_ids(caller, given.value)
                case "session":
                    values = await self._sessions(self._callers.caller(context), given.value)
                case _:
                    values = []
        return types.CompleteResult(
            completion=types.Completion(values=values[:_MOST], has_more=len(values) > _MOST)
        )

    async def _task_ids(self, caller: Caller, typed: str) -> list[str]:
        """Ids that begin with what was typed, and those of tasks whose label does."""
        typed, found, cursor = typed.lower(), list[str](), None
        for _ in range(_PAGES):
            page = await self._service.list_tasks(caller, ListTasks(limit=_PAGE, cursor=cursor))
            found += [
                task["task_id"]
                for task in page["tasks"]
                if task["task_id"].startswith(typed) or str(task.get("label", "")).lower().startswith(typed)
            ]
            cursor = page.get("next_cursor")
            if cursor is None or len(found) > _MOST:
                break
        return found

    async def _sessions(self, caller: Caller, typed: str) -> list[str]:
        typed, found, cursor = typed.lower(), list[str](), None
        for _ in range(_PAGES):
            page = await self._service.list_sessions(caller, ListSessions(limit=_PAGE, cursor=cursor))
            names = (str(session["session"]) for session in page["sessions"])
            found += [name for name in names if name.lower().startswith(typed)]
            cursor = page.get("next_cursor")
            if cursor is None or len(found) > _MOST:
                break
        return found
