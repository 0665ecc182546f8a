"""`doctor`, `config`, `demo` and `bench`: is everything in order, and how is it set up?"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mcp_tasks.cli.options import Dir, Json, Store
from mcp_tasks.cli.printing import note, print_json, print_table, print_text

__all__ = ["bench", "config", "demo", "doctor", "register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(doctor)
    app.command()(config)
    app.command()(demo)
    app.command()(bench)


def doctor(as_json: Json = False, directory: Dir = None, store: Store = None) -> None:
    """Look whether everything works here, or on the server that is named. Exits with 1 where it does not."""
    from mcp_tasks.cli.calling import settings_for

    settings = settings_for((directory, store, None))
    if settings.server is not None:
        from mcp_tasks.cli.server_checkup import examine_server

        findings = examine_server(settings, settings.server)
    else:
        from mcp_tasks.cli.checkup import examine

        findings = examine(settings)
    well = all(finding.verdict != "wrong" for finding in findings)
    if as_json:
        print_json({"well": well, "findings": [finding.as_fields() for finding in findings]})
    else:
        print_table(
            ("", "WHAT", "FOUND"), [(finding.verdict, finding.what, finding.found) for finding in findings]
        )
        for finding in findings:
            if finding.hint:
                print_text(f"{finding.what}: {finding.hint}")
    raise typer.Exit(0 if well else 1)


def config(
    client: Annotated[
        str,
        typer.Argument(
            metavar="CLIENT", help="claude-desktop, claude-code, cursor, vscode, codex, gemini or opencode."
        ),
    ],
    write: Annotated[bool, typer.Option("--write", help="Merge it into the client's file.")] = False,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Of a server that listens, like http://127.0.0.1:8377."),
    ] = None,
) -> None:
    """Show what a client's own file needs, or put it there.

    What else is in the file stays, and a copy of it as it was is left beside it. With --url the client
    goes to a server that listens there, and takes the token from MCP_TASKS_TOKEN, or asks for it.
    """
    from mcp_tasks.clients import find_client, merge_into, server_command, snippet
    from mcp_tasks.errors import InvalidArgument, StoreUnavailable

    known = find_client(client)
    entry = known.entry(server_command(), os.environ) if url is None else known.remote_entry(_checked(url))
    path = known.file()
    if not write:
        note(f"{known.title} reads this from {path} (--write puts it there):")
        print(snippet(known, entry), end="")
        if command := known.by_command(entry):
            note("\nor, for all your projects:")
            note(command)
        return
    try:
        merged = merge_into(path, known, entry)
    except InvalidArgument:
        note("this is what it needs:")
        print(snippet(known, entry), end="")
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreUnavailable(f"{path} cannot be written: {reason}", "nothing was changed") from None
    if not merged.changed:
        note(f"{merged.path} has it already")
        return
    note(f"written to {merged.path}" + (f"; as it was: {merged.backup}" if merged.backup else ""))
    note(f"start {known.title} again, so that it reads it")


def _checked(url: str) -> str:
    """A URL as an entry takes it. Raises InvalidArgument."""
    from urllib.parse import urlsplit

    from mcp_tasks.errors import InvalidArgument

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument("--url is no URL of a server", "give one like http://127.0.0.1:8377")
    if parts.username is not None or parts.password is not None:
        raise InvalidArgument(
            "--url has a name or a password in it", "leave it out; the token is sent beside"
        )
    return url


def demo() -> None:
    """Show that a command and its output outlive a time-out and the server's death."""
    from mcp_tasks.demo import demo as demonstrate

    raise typer.Exit(demonstrate())


def bench(
    as_json: Json = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Measure this; may be repeated.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="That it works, not how fast it is.")] = False,
) -> None:
    """Measure the server beside floors of the same machine."""
    from mcp_tasks.bench import bench as measure

    raise typer.Exit(measure(json=as_json, only=only or (), quick=quick))
