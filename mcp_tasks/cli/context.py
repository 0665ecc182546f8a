"""`context`: what is known of the project in a folder, and what that knowledge costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from mcp_tasks.cli.calling import call, folder_named
from mcp_tasks.cli.options import Dir, Json, Session, Store
from mcp_tasks.cli.printing import note, print_json, print_table, print_text, size, waiting
from mcp_tasks.errors import InvalidArgument

if TYPE_CHECKING:
    from mcp_tasks.cli.backends import Backend
    from mcp_tasks.service import Caller

__all__ = ["group", "register"]

group = typer.Typer(
    name="context",
    help="The project of a folder: show, refresh, compare with the last look, get ready, figures.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Cwd: TypeAlias = Annotated[
    Path | None,
    typer.Option("--cwd", metavar="FOLDER", help="Of this folder; else the session's, else this one."),
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(group)


@group.command()
def show(
    cwd: Cwd = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Show version control, languages, build and test commands."""
    _print(_context((directory, store, session), cwd), as_json=as_json)


@group.command()
def refresh(
    cwd: Cwd = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Look again, though nothing seems to have changed."""
    _print(_context((directory, store, session), cwd, again=True), as_json=as_json)


@group.command()
def diff(
    cwd: Cwd = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Say what has changed since the last look, whoever took it."""
    view = _context((directory, store, session), cwd, diff=True)
    if as_json:
        print_json({name: view[name] for name in ("cwd", "root", "changes", "since") if name in view})
        return
    for change in view["changes"]:
        print_text(change)
    if "since" not in view:
        note("there was no look before this one")
    elif not view["changes"]:
        note(f"nothing has changed since {view['since']}")


@group.command()
def warm(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Here, where none is given.", show_default=False),
    ] = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
) -> None:
    """Look at projects in advance, so that the next one who asks has the answer at once.

    Exits with 1 where one is no folder; the others are looked at all the same.
    """
    place = (directory, store, None)
    named = [folder_named(folder, place) for folder in folders or [Path()]]
    wrong: list[str] = []

    async def warmed(service: Backend, caller: Caller) -> list[dict[str, Any]]:
        done = []
        for folder in named:
            try:
                done.append({"cwd": folder, "looked_at": await service.warm_project(caller, folder)})
            except InvalidArgument:
                wrong.append(folder)
        return done

    with waiting("looking"):
        done = call(place, warmed, whole=True)
    if as_json:
        print_json({"warmed": done, "failed": wrong})
    else:
        for each in done:
            note(f"{each['cwd']}: {'looked at' if each['looked_at'] else 'was known already'}")
        for folder in wrong:
            note(f"{folder} is not a directory")
    raise typer.Exit(1 if wrong else 0)


@group.command()
def stats(as_json: Json = False, directory: Dir = None, store: Store = None) -> None:
    """Show how often an answer was known already; servers that still run are counted when they end."""

    async def counted(service: Backend, caller: Caller) -> dict[str, int]:
        return await service.project_figures(caller)

    figures = call((directory, store, None), counted, whole=True)
    if as_json:
        print_json(figures)
        return
    asked = figures["hits"] + figures["misses"]
    rate = f"{figures['hits'] / asked:.0%}" if asked else "none asked"
    rows = [
        ("hits", f"{figures['hits']} ({rate})"),
        ("misses", str(figures["misses"])),
        ("invalidated", str(figures["invalidations"])),
        ("evicted", str(figures["evictions"])),
        ("kept in files", f"{figures.get('kept', 0)}, {size(figures.get('kept_bytes', 0))}"),
    ]
    print_table(("WHAT", "NUMBER"), rows)


@group.command()
def clear(as_json: Json = False, directory: Dir = None, store: Store = None) -> None:
    """Forget all looks and figures."""

    async def cleared(service: Backend, caller: Caller) -> int:
        return await service.clear_projects(caller)

    count = call((directory, store, None), cleared, whole=True)
    if as_json:
        print_json({"cleared": count})
    else:
        note(f"{count} looked-at folder{'' if count == 1 else 's'} forgotten")


def _context(
    place: tuple[Path | None, str | None, str | None],
    cwd: Path | None,
    *,
    again: bool = False,
    diff: bool = False,
) -> dict[str, Any]:
    from mcp_tasks.requests import ProjectContext

    request = ProjectContext(cwd=None if cwd is None else folder_named(cwd, place), refresh=again, diff=diff)

    async def looked(service: Backend, caller: Caller) -> dict[str, Any]:
        return await service.project_context(caller, request)

    with waiting("looking"):
        return call(place, looked)


def _print(view: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    from mcp_tasks.server.text import render

    # What an agent would call next, and this process's own figures, are nothing for people.
    told = {name: value for name, value in view.items() if name not in ("next", "cache")}
    print_text(render("project_context", told))
