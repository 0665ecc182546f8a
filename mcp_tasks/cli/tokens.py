"""`token`: what lets a client of an HTTP server in, and what webhooks are signed with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mcp_tasks.cli.options import Dir, Store
from mcp_tasks.cli.printing import note

__all__ = ["register", "token"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(token)


def token(
    new: Annotated[
        bool, typer.Option("--new", help="Make another one; the old one opens nothing then.")
    ] = False,
    hooks: Annotated[
        bool,
        typer.Option("--hooks", help="Show what webhooks are signed with, as often as asked."),
    ] = False,
    directory: Dir = None,
    store: Store = None,
) -> None:
    """Show the token of HTTP servers on this state directory, once; afterwards only a digest is kept.

    With --hooks it is the secret of webhooks instead; with --new as well, what is armed keeps the old one.
    """
    from mcp_tasks.app import open_store
    from mcp_tasks.cli.calling import refuse_elsewhere, settings_for
    from mcp_tasks.cli.places import refuse_share

    refuse_elsewhere((directory, store, None), "token")
    settings = refuse_share(settings_for((directory, store, None)))
    if settings.store != "memory":
        open_store(settings).close()  # so that the directory is one of ours, and safe
    if hooks:
        _show_secret(settings.dir, new=new)
        return
    from mcp_tasks.http.token import TokenFile

    file = TokenFile(settings.dir)
    print(file.replace() if new else file.show())
    note("keep it: it is not shown again (--new makes another one)")
    if os.environ.get("MCP_TASKS_TOKEN"):
        note("a server that is started with MCP_TASKS_TOKEN, as it is set here, takes that one instead")


def _show_secret(folder: Path, *, new: bool) -> None:
    from mcp_tasks.hooks import SigningSecret

    secret = SigningSecret(folder)
    print(secret.replace() if new else secret.current())
    if os.environ.get("MCP_TASKS_HOOK_SECRET"):
        note("tasks that are started with MCP_TASKS_HOOK_SECRET, as it is set here, use that one instead")
