"""`logs`, `result` and `search`: what a task has printed, and what is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_tasks.cli.calling import call
from mcp_tasks.cli.options import Dir, Json, Session, Store, StreamName, Streams, TaskId
from mcp_tasks.cli.printing import is_terminal, note, print_json, print_text
from mcp_tasks.cli.wording import told

if TYPE_CHECKING:
    from mcp_tasks.cli.backends import Backend
    from mcp_tasks.service import Caller

__all__ = ["logs", "register", "result", "search"]

Raw = Annotated[bool, typer.Option("--raw", help="Exact bytes, even on a terminal.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(logs)
    app.command()(result)
    app.command()(search)


def logs(
    task_id: TaskId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task is over.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="LINES", help="Only the last lines.", min=0)
    ] = None,
    stream: Streams = StreamName.both,
    raw: Raw = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Print the output of a task: its stdout on stdout, its stderr on stderr.

    Anywhere but on a terminal the bytes are exact.
    """
    from mcp_tasks.cli.copying import OutputCopy

    async def copied(service: Backend, caller: Caller) -> None:
        found = await service.resolve_prefix(caller, task_id)
        await OutputCopy(stream.value, raw=raw).copy_all(service, caller, found, lines=tail, follow=follow)

    call((directory, store, session), copied)


def result(
    task_id: TaskId,
    stream: Streams = StreamName.both,
    raw: Raw = False,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Show what is known of a task, and its output.

    On a terminal that is the record and the head and tail of the output. Anywhere else, and with
    --raw, it is the whole output, byte for byte: `mcp-tasks result ID > file`.
    """
    from mcp_tasks.cli.copying import OutputCopy
    from mcp_tasks.requests import GetResult

    async def shown(service: Backend, caller: Caller) -> dict[str, Any] | None:
        found = await service.resolve_prefix(caller, task_id)
        if as_json or (is_terminal("stdout") and not raw):
            return await service.get_result(caller, GetResult(task_id=found, stream=stream.value))
        await OutputCopy(stream.value, raw=raw).copy_all(service, caller, found)
        return None

    view = call((directory, store, session), shown)
    if view is None:
        return
    if as_json:
        print_json(view)
        return
    from mcp_tasks.server.text import render

    print_text(render("get_result", told(view)))


def search(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="A regular expression (RE2).")],
    task_id: Annotated[
        str | None, typer.Option("--task", "-t", metavar="ID", help="Only in this task's output.")
    ] = None,
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", "-i", help="Upper or lower case alike.")
    ] = False,
    stream: Streams = StreamName.both,
    context: Annotated[int, typer.Option("--context", "-C", help="Lines around.", min=0, max=50)] = 0,
    oldest: Annotated[bool, typer.Option("--oldest", help="Oldest first.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.", min=1)] = 50,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Find lines in the output of the session's tasks. Exits with 1 where there are none, as grep."""
    from mcp_tasks.requests import SearchOutput

    async def found(service: Backend, caller: Caller) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if task_id is not None:
            fields["task_id"] = await service.resolve_prefix(caller, task_id)
        matches: list[dict[str, Any]] = []
        scanned = 0
        while True:
            request = SearchOutput(
                pattern=pattern,
                ignore_case=ignore_case,
                stream=stream.value,
                context=context,
                order="oldest" if oldest else "newest",
                limit=min(1000, limit - len(matches)),
                **fields,
            )
            page = await service.search_output(caller, request)
            matches += page["matches"]
            scanned += page["scanned_bytes"]
            if not page["more"] or len(matches) >= limit:
                return {**page, "matches": matches, "scanned_bytes": scanned}
            fields["cursor"] = page["next_cursor"]

    answer = call((directory, store, session), found)
    if as_json:
        print_json(answer)
    else:
        for match in answer["matches"]:
            _print_match(match)
        if answer["more"]:
            note(f"there is more than these {len(answer['matches'])}; --limit N shows it")
    raise typer.Exit(0 if answer["matches"] else 1)


def _print_match(match: dict[str, Any]) -> None:
    place = f"{match['task_id']}:{match['stream']}"
    for line in match.get("before", ()):
        print_text(f"{place}-  {_text(line)}")
    print_text(f"{place}:{match.get('line', '?')}: {match['text']}")
    for line in match.get("after", ()):
        print_text(f"{place}-  {_text(line)}")


def _text(line: Any) -> str:
    return str(line.get("text", "")) if isinstance(line, dict) else str(line)
