"""`journal`: what was said and done in a session."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_tasks.cli.calling import call, text_of
from mcp_tasks.cli.options import Dir, Json, Session, Store
from mcp_tasks.cli.printing import is_terminal, note, print_json, print_text
from mcp_tasks.cli.wording import told

if TYPE_CHECKING:
    from mcp_tasks.cli.backends import Backend
    from mcp_tasks.service import Caller

__all__ = ["group", "register"]

group = typer.Typer(
    name="journal",
    help="The journal of a session: what was said, called and ended in it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_PAGE = 1_000


class _Format(StrEnum):
    json = "json"
    markdown = "markdown"


_MessageId = Annotated[str, typer.Argument(metavar="MESSAGE", help="Id of a message.", show_default=False)]
_Text = Annotated[
    str, typer.Argument(metavar="TEXT", help="The text; - is standard input.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(group)


@group.command()
def read(
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.", min=1)] = 20,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All of them.")] = False,
    oldest: Annotated[bool, typer.Option("--oldest", help="Begin with the oldest, not the newest.")] = False,
    role: Annotated[
        str | None, typer.Option(help="Only user, assistant, system, tool, event or summary.")
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="ID", help="Only about this task.")] = None,
    thread: Annotated[
        str | None, typer.Option(metavar="MESSAGE", help="All that hangs together with it by answers.")
    ] = None,
    branch: Annotated[str | None, typer.Option(metavar="MESSAGE", help="What led to it.")] = None,
    versions: Annotated[str | None, typer.Option(metavar="MESSAGE", help="Each text that it had.")] = None,
    folded: Annotated[bool, typer.Option("--folded", help="Also what was folded into summaries.")] = False,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Show messages, in the order in which they were written: the newest ones, or the oldest."""
    from mcp_tasks.requests import ReadJournal

    given = {"role": role, "thread": thread, "branch": branch, "versions": versions}
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    fields |= {"order": "oldest" if oldest else "newest", "folded": folded}

    async def work(service: Backend, caller: Caller) -> dict[str, Any]:
        if task is not None:
            fields["task_id"] = await service.resolve_prefix(caller, task)
        messages: list[dict[str, Any]] = []
        while True:
            wanted = _PAGE if everything else min(_PAGE, limit - len(messages))
            page = await service.read_journal(caller, ReadJournal(limit=wanted, **fields))
            messages += page["messages"]
            if "next_cursor" not in page or (not everything and len(messages) >= limit):
                return {**page, "messages": messages}
            fields["cursor"] = page["next_cursor"]

    view = call((directory, store, session), work)
    in_order = oldest or bool(thread or branch or versions)
    _show("read_journal", view, as_json=as_json, reverse=not in_order)


@group.command()
def add(
    text: _Text,
    role: Annotated[str, typer.Option(help="user, assistant or system.")] = "user",
    task: Annotated[str | None, typer.Option(metavar="ID", help="The task that it is about.")] = None,
    parent: Annotated[
        str | None, typer.Option(metavar="MESSAGE", help="The message that it answers.")
    ] = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Write a message, and print its id."""
    from mcp_tasks.requests import AddMessage

    fields: dict[str, Any] = {"text": _read(text), "role": role, "parent": parent}

    async def work(service: Backend, caller: Caller) -> dict[str, Any]:
        task_id = await service.resolve_prefix(caller, task) if task is not None else None
        return await service.add_message(caller, AddMessage(task_id=task_id, **fields))

    view = call((directory, store, session), work)
    if as_json:
        print_json(view)
    else:
        print(view["message"]["message_id"])


@group.command()
def edit(
    message: _MessageId,
    text: _Text,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Give a message another text; `read --versions` shows the old ones."""
    from mcp_tasks.requests import AddMessage

    request = AddMessage(text=_read(text), replaces=message)

    async def work(service: Backend, caller: Caller) -> dict[str, Any]:
        return await service.add_message(caller, request)

    view = call((directory, store, session), work)
    if as_json:
        print_json(view)


@group.command()
def search(
    words: Annotated[
        list[str], typer.Argument(metavar="WORD...", help="All of them have to be there.", show_default=False)
    ],
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.", min=1, max=_PAGE)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on from here.")] = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Find messages that have all the words, newest first. Exits with 1 when there is none."""
    from mcp_tasks.requests import SearchJournal

    request = SearchJournal(text=" ".join(words), limit=limit, cursor=cursor)

    async def work(service: Backend, caller: Caller) -> dict[str, Any]:
        return await service.search_journal(caller, request)

    view = call((directory, store, session), work)
    _show("search_journal", view, as_json=as_json)
    if not view["messages"]:
        raise typer.Exit(1)


@group.command()
def export(
    kind: Annotated[_Format, typer.Option("--format", "-f", help="For people, or for import.")] = (
        _Format.markdown
    ),
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    output: Annotated[
        typer.FileBinaryWrite | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to, instead of standard output."),
    ] = None,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Write the journal and the records of the tasks, all in one text."""
    chosen = "json" if as_json else kind.value
    file = output if output is not None else sys.stdout.buffer
    shown = output is None and is_terminal("stdout")

    async def work(service: Backend, caller: Caller) -> None:
        async for piece in service.export_pieces(caller, chosen):
            if shown:
                print_text(piece.removesuffix("\n"))  # which takes out what would drive the terminal
            else:
                file.write(piece.encode("utf-8", "backslashreplace"))
        file.flush()

    call((directory, store, session), work)


@group.command(name="import")
def take(
    file: Annotated[
        typer.FileBinaryRead,
        typer.Argument(metavar="FILE", help="What `export --json` wrote; - is standard input."),
    ],
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Take the messages of an export over; those that are there already are skipped."""
    document = file.read()

    async def work(service: Backend, caller: Caller) -> dict[str, Any]:
        return await service.import_journal(caller, document)

    view = call((directory, store, session), work)
    if as_json:
        print_json(view)
    else:
        note(f"{view['imported']} messages imported, {view['skipped']} were there already")


@group.command()
def prune(
    keep: Annotated[
        int | None, typer.Option("--keep", help="How many stay live; without it the session's limit.", min=0)
    ] = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Fold the oldest messages into a summary; `read --folded` and `export` still have them."""

    async def work(service: Backend, caller: Caller) -> dict[str, Any]:
        return await service.prune_journal(caller, keep)

    view = call((directory, store, session), work)
    if as_json:
        print_json(view)
    else:
        note(f"{view['folded']} messages folded, {view['live']} live")


@group.command()
def stats(as_json: Json = False, directory: Dir = None, store: Store = None, session: Session = None) -> None:
    """Show how large and how old the journal is."""

    async def work(service: Backend, caller: Caller) -> dict[str, Any]:
        return await service.journal_stats(caller)

    view = call((directory, store, session), work)
    if as_json:
        print_json(view)
    else:
        print_text("\n".join(f"{name}: {value}" for name, value in view.items() if value is not None))


def _read(text: str) -> str:
    return text_of(sys.stdin.buffer.read()) if text == "-" else text


def _show(tool: str, view: dict[str, Any], *, as_json: bool, reverse: bool = False) -> None:
    if as_json:
        print_json(view)
        return
    from mcp_tasks.server.text import render

    if reverse:
        view = {**view, "messages": view["messages"][::-1]}
    print_text(render(tool, told(view)))
