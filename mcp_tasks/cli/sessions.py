"""`sessions`: what there is to come back to, and what can be done with it as a whole."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from mcp_tasks.cli.calling import call, folder_named
from mcp_tasks.cli.hook_options import HookOptions, hooks_of
from mcp_tasks.cli.options import Dir, Json, Session, Store
from mcp_tasks.cli.printing import note, print_json, print_table, print_text, size, waiting
from mcp_tasks.cli.spans import DAY_MS, milliseconds
from mcp_tasks.cli.wording import told
from mcp_tasks.errors import InvalidArgument

if TYPE_CHECKING:
    from mcp_tasks.cli.backends import Backend
    from mcp_tasks.service import Caller

__all__ = ["group", "register"]

_PAGE = 500

group = typer.Typer(
    name="sessions",
    help="Sessions: list, look at, change, share, end and remove them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]", help="The session; else --session, else the default.", show_default=False
    ),
]


class Listed(StrEnum):
    """States of sessions."""

    open = "open"
    idle = "idle"
    closed = "closed"
    archived = "archived"


class ShareRole(StrEnum):
    """What whoever holds a share may do."""

    read = "read"
    write = "write"


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(group)


@group.command("list")
def list_sessions(
    state: Annotated[Listed | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.", min=1)] = 20,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All of them.")] = False,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
) -> None:
    """List your sessions, the one used last first."""
    from mcp_tasks.requests import ListSessions

    async def listed(service: Backend, caller: Caller) -> dict[str, Any]:
        sessions: list[dict[str, Any]] = []
        fields: dict[str, Any] = {} if state is None else {"state": state.value}
        while True:
            wanted = _PAGE if everything else min(_PAGE, limit - len(sessions))
            page = await service.list_sessions(caller, ListSessions(limit=wanted, **fields))
            sessions += page["sessions"]
            if "next_cursor" not in page or (not everything and len(sessions) >= limit):
                return {**page, "sessions": sessions}
            fields["cursor"] = page["next_cursor"]

    answer = call((directory, store, None), listed)
    if as_json:
        print_json(answer)
        return
    _print_sessions(answer["sessions"])
    if "next_cursor" in answer:
        note(f"{len(answer['sessions'])} of {sum(answer['counts'].values())} sessions; --all shows the rest")


@group.command("all")
def all_sessions(as_json: Json = False, directory: Dir = None, store: Store = None) -> None:
    """List the sessions of every owner of the store."""

    async def listed(service: Backend, caller: Caller) -> dict[str, Any]:
        return await service.all_sessions(caller)

    answer = call((directory, store, None), listed, whole=True)
    if as_json:
        print_json(answer)
        return
    _print_sessions(answer["sessions"])


@group.command()
def show(
    name: Name = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Show everything about a session."""
    from mcp_tasks.requests import SessionInfo

    async def shown(service: Backend, caller: Caller) -> dict[str, Any]:
        return await service.session_info(caller, SessionInfo())

    _print_session("session_info", call((directory, store, name or session), shown), as_json=as_json)


@group.command()
def update(
    name: Name = None,
    title: Annotated[str | None, typer.Option(help="What it is about; empty for nothing.")] = None,
    cwd: Annotated[str | None, typer.Option(help="Where its commands run; empty for none.")] = None,
    shell: Annotated[str | None, typer.Option(help="What runs them; empty for the usual one.")] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="NAME=VALUE", help="Added to their environment."),
    ] = None,
    forget: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="No more added to their environment.")
    ] = None,
    preference: Annotated[
        list[str] | None, typer.Option(metavar="KEY=JSON", help="Kept for clients; null forgets it.")
    ] = None,
    journal_limit: Annotated[
        int | None, typer.Option(metavar="N", help="Live messages; 0: no limit.")
    ] = None,
    seal_journal: Annotated[
        bool | None, typer.Option("--seal-journal/--no-seal-journal", help="Encrypt its journal.")
    ] = None,
    hook: HookOptions = None,
    no_hooks: Annotated[bool, typer.Option("--no-hooks", help="Nothing is told of its tasks.")] = False,
    revision: Annotated[
        int | None, typer.Option(metavar="N", help="Only if nobody has changed it since this revision.")
    ] = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Change what commands of a session are given, or make a session. What is not named stays."""
    given: dict[str, Any] = {
        "title": title,
        "cwd": cwd and folder_named(cwd, (directory, store, session)),
        "shell": shell,
        "journal_limit": journal_limit,
        "seal_journal": seal_journal,
        "revision": revision,
        "env": {**_environment(env or []), **dict.fromkeys(forget or [])} or None,
        "preferences": _preferences(preference or []) or None,
        "hooks": hooks_of(hook or ()) if hook or no_hooks else None,
    }
    _update((directory, store, name or session), given, as_json=as_json)


@group.command()
def extend(
    name: Name = None,
    days: Annotated[float | None, typer.Option(help="From now.", min=0)] = None,
    never: Annotated[bool, typer.Option("--never", help="It does not expire.")] = False,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Say when a session closes by itself; nothing that runs is ended by that."""
    if never == (days is not None):
        raise InvalidArgument("until when?", "give --days N, or --never")
    ms = 0 if days is None else max(1, milliseconds(days, DAY_MS))
    _update((directory, store, name or session), {"expires_in_ms": ms}, as_json=as_json)


@group.command()
def share(
    name: Name = None,
    role: Annotated[ShareRole, typer.Option(help="What its holder may do.")] = ShareRole.read,
    days: Annotated[float | None, typer.Option(help="How long it holds; else until revoked.", min=0)] = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Make a token that lets its holder into a session, and print it, once."""
    given: dict[str, Any] = {
        "share": role.value,
        "share_expires_in_ms": None if days is None else max(1, milliseconds(days, DAY_MS)),
    }
    answer = _updated((directory, store, name or session), given)
    if as_json:
        print_json(answer)
        return
    print(answer["share"]["token"])
    note(
        f"share {answer['share']['share_id']} ({role.value}) of session {answer['session']}; the token is not"
        " shown again. Give it as MCP_TASKS_SHARE or `mcp-tasks serve --share`"
    )


@group.command()
def revoke(
    share_id: Annotated[str, typer.Argument(metavar="SHARE", help="Id of the share; `show` lists them.")],
    name: Name = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """End a share, at once and on every server."""
    answer = _updated((directory, store, name or session), {"revoke": share_id})
    if as_json:
        print_json(answer)
        return
    note(f"share {share_id} is over")


@group.command()
def end(
    name: Name = None,
    reason: Annotated[str | None, typer.Option(help="Kept with it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Cancel what still runs.")] = False,
    archive: Annotated[bool, typer.Option("--archive", help="Put it away, compressed.")] = False,
    wait: Annotated[
        float, typer.Option("--wait", "-w", metavar="SECONDS", help="For what still runs.")
    ] = 25.0,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Close a session. What is there stays readable, and the next command opens it again."""
    from mcp_tasks.requests import EndSession

    request = EndSession(reason=reason, force=force, archive=archive, wait_ms=milliseconds(wait))

    async def ended(service: Backend, caller: Caller) -> dict[str, Any]:
        with waiting(f"ending session {caller.session}"):
            return await service.end_session(caller, request)

    _print_session("end_session", call((directory, store, name or session), ended), as_json=as_json)


@group.command()
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The session.")],
    force: Annotated[bool, typer.Option("--force", help="Cancel what still runs.")] = False,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
) -> None:
    """Remove a session with its tasks, their output, its plans and its journal, for good."""

    async def deleted(service: Backend, caller: Caller) -> dict[str, Any]:
        return await service.delete_session(caller, force=force)

    answer = call((directory, store, name), deleted)
    if as_json:
        print_json(answer)
        return
    note(f"session {answer['deleted']} is gone, {size(answer['freed_bytes'])} freed")


def _update(
    place: tuple[Path | None, str | None, str | None], given: dict[str, Any], *, as_json: bool
) -> None:
    _print_session("update_session", _updated(place, given), as_json=as_json)


def _updated(place: tuple[Path | None, str | None, str | None], given: dict[str, Any]) -> dict[str, Any]:
    from mcp_tasks.requests import UpdateSession

    request = UpdateSession(**{name: value for name, value in given.items() if value is not None})

    async def updated(service: Backend, caller: Caller) -> dict[str, Any]:
        return await service.update_session(caller, request)

    return call(place, updated)


def _environment(settings: list[str]) -> dict[str, str | None]:
    environment: dict[str, str | None] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise InvalidArgument(f"--env {name} has no value", "give NAME=VALUE, or --forget NAME")
        environment[name] = value
    return environment


def _preferences(settings: list[str]) -> dict[str, Any]:
    """KEY=JSON; what is no JSON is a text."""
    preferences: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise InvalidArgument(f"--preference {name} has no value", "give KEY=JSON")
        try:
            preferences[name] = json.loads(value)
        except ValueError:
            preferences[name] = value
    return preferences


def _print_session(tool: str, view: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    from mcp_tasks.server.text import render

    print_text(render(tool, told(view)))


def _print_sessions(sessions: list[dict[str, Any]]) -> None:
    if not sessions:
        note("no sessions")
        return
    owners = any("owner" in session for session in sessions)
    titles = ("OWNER", "SESSION", "STATE", "ACTIVE", "TASKS", "TITLE")
    rows = [
        (
            session.get("owner", ""),
            session["session"],
            session["state"],
            session.get("active_at", "")[:19].replace("T", " "),
            " ".join(f"{count} {state}" for state, count in session.get("tasks", {}).items()),
            session.get("title", ""),
        )
        for session in sessions
    ]
    first = 0 if owners else 1
    print_table(titles[first:], [row[first:] for row in rows])
