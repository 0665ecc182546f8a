"""What is known of the project that a session works in."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from mcp_tasks.clock import rfc3339
from mcp_tasks.errors import InvalidArgument, PolicyDenied
from mcp_tasks.launches import absolute
from mcp_tasks.models import SessionKey
from mcp_tasks.projects import Declared, Found, ProjectCache, Watching, changes, shown, watch
from mcp_tasks.redaction import redact_text, redact_value
from mcp_tasks.requests import ProjectContext
from mcp_tasks.service.access import Caller
from mcp_tasks.service.desk import Desk, View

__all__ = ["Projects"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_S = 1.8
"""A folder that takes longer, on a network that does not answer, is told of the next time."""

_THREADS = 4
_WAITING = 16
_KEY = "project"
_COMMANDS = ("build", "test")
_MOST_SET = 20


class Projects:
    """project_context, and getting ready for it.

    Nothing of a project is ever executed: what there is to know is read.
    """

    def __init__(self, desk: Desk, cache: ProjectCache) -> None:
        self._desk = desk
        self._cache = cache
        # Threads of its own: a file system that hangs must not keep calls for tasks waiting.
        self._threads = anyio.CapacityLimiter(_THREADS)
        self._watching = Watching()
        self._followed = 0
        self._expected, self._coming = anyio.create_memory_object_stream[str](_WAITING)

    async def project_context(self, caller: Caller, request: ProjectContext) -> View:
        """What was found out about a folder's project, with what people have set on top.

        Raises:
            InvalidArgument: There is no such folder.
            PolicyDenied: Who may only read looks at the session's own folder and what is in it.
        """
        with anyio.move_on_after(_LONGEST_S):
            return await self._blocking(self._context, caller, request)
        return self._not_yet(caller, request)

    def expect(self, cwd: object) -> None:
        """A folder is likely to be asked for: look at it in the background, soon."""
        if isinstance(cwd, str) and cwd:
            try:
                self._expected.send_nowait(cwd)
            except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
                log.debug("a project is not looked at in advance: others wait already")

    async def warm(self, cwd: str) -> bool:
        """Look at a folder in advance; whether there was something to be found out."""
        found = await self._blocking(functools.partial(self._cache.look, cwd, tell=False))
        return not found.cached

    async def attend(self) -> None:
        """Look at what is expected and follow changes, until cancelled."""
        async with self._expected, self._coming, anyio.create_task_group() as group:
            group.start_soon(watch, self._cache, self._watching)
            async for cwd in self._coming:
                try:
                    await self.warm(cwd)
                except Exception:
                    # Whoever asks for it is told; what is done in advance must not end the server.
                    log.warning("a project could not be looked at in advance", exc_info=True)

    def figures(self) -> dict[str, int]:
        """How often the cache had what was asked for, over all processes that have ended and this one."""
        return self._cache.totals()

    def clear(self) -> int:
        """Forget all looks; returns how many."""
        return self._cache.clear()

    async def _blocking(self, function: Callable[..., T], *args: Any) -> T:
        # Reading may be left alone: whoever stops waiting for it has changed nothing.
        result = await anyio.to_thread.run_sync(
            functools.partial(function, *args), limiter=self._threads, abandon_on_cancel=True
        )
        if self._followed != self._cache.changes:
            self._followed = self._cache.changes
            self._watching.follow(self._cache.folders())
        return result

    def _context(self, caller: Caller, request: ProjectContext) -> View:
        cwd = self._folder(caller, request)
        if not os.path.isdir(cwd):
            given = cwd if request.cwd is None else request.cwd
            raise InvalidArgument(
                f"cwd {shown(given)!r} is not a directory", "give the path of an existing directory"
            )
        found = self._cache.look(cwd, refresh=request.refresh)
        view = self._view(found, self._set(caller.session_key))
        if request.diff:
            view["changes"] = [] if found.before is None else changes(found.before, found.project)
            if found.before is not None:
                view["since"] = rfc3339(found.before_at)
        return view

    def _base(self, caller: Caller) -> str | None:
        """Where a path starts; None where nobody has said it, and the server's own folder is not his."""
        workspaces = self._desk.workspaces
        return (workspaces.base if caller.at_home else workspaces.named_base)(caller.session_key)

    def _folder(self, caller: Caller, request: ProjectContext) -> str:
        base = self._base(caller)
        if base is None:
            return self._named(caller, request.cwd)
        cwd = base if request.cwd is None else absolute(request.cwd, base)
        if caller.role == "read":
            inside, whole = os.path.realpath(cwd), os.path.realpath(base)
            if inside != whole and not inside.startswith(f"{whole.rstrip('/')}/"):
                raise PolicyDenied(f"{_only(caller)} the session's own folder only", "leave cwd out")
        return cwd

    def _named(self, caller: Caller, cwd: str | None) -> str:
        """A folder for which there is nothing to start from."""
        if caller.role == "read":
            raise PolicyDenied(
                f"{_only(caller)} the session's own folder only, and it has none",
                "ask somebody who may write to set it: update_session takes cwd",
            )
        if cwd is None or not os.path.isabs(os.path.expanduser(cwd)):
            raise InvalidArgument(
                "the session has no folder to look at, or to start from",
                "give cwd as an absolute path, or set the session's with update_session",
            )
        return absolute(cwd, "/")

    def _set(self, key: SessionKey) -> Mapping[str, Any]:
        """What people have set of a project, in the preferences of the session."""
        session = self._desk.records.find(key)
        given = session.workspace.preferences.get(_KEY) if session is not None else None
        return given if isinstance(given, Mapping) else {}

    def _view(self, found: Found, given: Mapping[str, Any]) -> View:
        project = found.project
        view: View = {"cwd": shown(project.cwd), "root": shown(project.root)}
        if project.vcs is not None:
            parts = ("kind", "branch", "commit", "remote")
            pairs = [(name, getattr(project.vcs, name)) for name in parts]
            view["vcs"] = {name: value for name, value in pairs if value is not None}
        view["languages"] = [{"name": each.name, "files": each.files} for each in project.languages]
        for kind, declared in (("build", project.build), ("test", project.test)):
            said = _commands(given.get(kind))
            view[kind] = [_declared(each, project.root) for each in declared] if said is None else said
        view["manifests"] = list(project.manifests)
        other = {name: value for name, value in given.items() if name not in _COMMANDS}
        view["set"] = redact_value(dict(list(other.items())[:_MOST_SET]))
        view["problems"] = list(project.problems)
        view = {name: value for name, value in view.items() if value not in ([], {})}
        view |= {"checked_at": rfc3339(found.at), "cached": found.cached, "cache": self._cache.figures()}
        if test := view.get("test"):
            place = f", cwd={test[0]['cwd']!r}" if "cwd" in test[0] else f", cwd={view['root']!r}"
            view["next"] = f"run_command(command={test[0]['command']!r}{place}) runs the tests"
        return view

    def _not_yet(self, caller: Caller, request: ProjectContext) -> View:
        cwd = request.cwd or (self._desk.defaults.cwd if caller.at_home else ".")
        return {
            "cwd": shown(cwd),
            "root": shown(cwd),
            "problems": [f"looking took longer than {_LONGEST_S} s, and goes on"],
            "checked_at": rfc3339(self._desk.clock.now_ms()),
            "cached": False,
            "cache": self._cache.figures(),
            "next": f"project_context(cwd={shown(cwd)!r}) in a moment",
        }


def _only(caller: Caller) -> str:
    return f"{'the token' if caller.via is None else 'this share'} lets you look at"


def _declared(declared: Declared, root: str) -> dict[str, str]:
    view = {"command": declared.command, "from": declared.source}
    if declared.folder:
        view["cwd"] = shown(root).rstrip("/") + "/" + declared.folder
    return view


def _commands(given: object) -> list[dict[str, str]] | None:
    """Commands that people have set in place of the declared ones; None where they have not."""
    several = [given] if isinstance(given, str) else given
    if not isinstance(several, list | tuple):
        return None
    commands = [each for each in several if isinstance(each, str) and each.strip()]
    return [{"command": redact_text(each), "from": "preferences"} for each in commands[:_MOST_SET]]
