"""`sessions archive`, `archived` and `restore`: sessions put away, compressed, and brought back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_tasks.cli.calling import call, refuse_elsewhere
from mcp_tasks.cli.options import Dir, Json, Store
from mcp_tasks.cli.places import now_ms, opened, settings_of
from mcp_tasks.cli.printing import note, print_json, print_table, print_text, size
from mcp_tasks.cli.wording import explained

if TYPE_CHECKING:
    from mcp_tasks.cli.backends import Backend
    from mcp_tasks.ports import Archive
    from mcp_tasks.service import Caller

__all__ = ["register"]


def register(group: typer.Typer) -> None:
    """Add the commands to the group `sessions`."""
    group.command()(archive)
    group.command()(archived)
    group.command()(restore)


def archive(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Sessions in which nothing runs.")],
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
) -> None:
    """Put sessions away, compressed, with tasks, output, plans and journal.

    Exits with 1 where one could not be, because something in it has not ended.
    """
    from mcp_tasks.errors import TaskNotFinished

    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for name in names:
        try:
            done.append(call((directory, store, name), _put_away))
        except TaskNotFinished as error:
            failed.append({"session": name, "code": error.code, "message": explained(error)})
    if as_json:
        print_json({"archived": done, "failed": failed})
    else:
        for view in done:
            print_text(view["archive"])
        for one in failed:
            note(f"{one['session']}: {one['message']}")
    raise typer.Exit(1 if failed else 0)


async def _put_away(service: Backend, caller: Caller) -> dict[str, Any]:
    from mcp_tasks.requests import EndSession

    view = await service.end_session(caller, EndSession(archive=True, reason="archived", wait_ms=0))
    return {name: view[name] for name in ("session", "archive")}


def archived(
    everybody: Annotated[bool, typer.Option("--all", "-a", help="Those of all owners.")] = False,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
) -> None:
    """List what was put away, newest first, without opening it."""
    refuse_elsewhere((directory, store, None), "sessions archived")
    settings = settings_of(directory, store)
    with opened(settings, existing=False) as here:
        found = here.archives.all(None if everybody else settings.owner)
    if as_json:
        print_json({"archived": [_view(one) for one in found]})
        return
    rows = [
        [
            one.name,
            str(one.tasks),
            str(one.messages),
            size(one.bytes),
            _moment(one.archived_at)[:19],
            one.problem or one.title or "",
        ]
        for one in found
    ]
    print_table(["ARCHIVE", "TASKS", "MESSAGES", "SIZE", "ARCHIVED", "TITLE"], rows)


def restore(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The archive, or its session: then the newest of it.")
    ],
    into: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Under another name.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the archive where it is.")] = False,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
) -> None:
    """Bring a session back that was put away; its archive goes when all of it is there."""
    refuse_elsewhere((directory, store, None), "sessions restore")
    settings = settings_of(directory, store)
    with opened(settings) as here:
        key = here.archives.restore(settings.owner, name, at=now_ms(), into=into, keep=keep)
        here.audit.note(
            "restored", owner=key.owner, session=key.session, by=settings.owner, detail={"archive": name}
        )
    if as_json:
        print_json({"session": key.session, "archive": name, "kept": keep})
    else:
        print_text(key.session)


def _view(archive: Archive) -> dict[str, Any]:
    fields = asdict(archive)
    key = fields.pop("key")
    moments = {name: _moment(fields[name]) for name in ("archived_at", "created_at", "active_at")}
    shown = {
        "name": fields.pop("name"),
        "session": key["session"],
        "owner": key["owner"],
        **fields,
        **moments,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _moment(ms: int) -> str:
    from mcp_tasks.clock import rfc3339

    return rfc3339(ms)
