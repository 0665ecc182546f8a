"""All commands put together, and what an error means to a shell."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mcp_tasks.cli import (
    archives,
    context,
    ending,
    journal,
    looking,
    plans,
    reading,
    serving,
    sessions,
    setting_up,
    starting,
    stores,
    tokens,
    waiting,
)
from mcp_tasks.cli.options import SERVER, Server
from mcp_tasks.cli.printing import note
from mcp_tasks.cli.versions import installed
from mcp_tasks.cli.wording import explained
from mcp_tasks.errors import InvalidArgument, NotSupported, TasksError

__all__ = ["app", "run"]

# What never ran must not look like a command that ran and exited with 1.
_EXIT_CODES = {
    "invalid_argument": 2,
    "key_conflict": 2,
    "not_supported": 2,
    "policy_denied": 2,
    "revision_conflict": 2,
    "message_not_found": 3,
    "plan_not_found": 3,
    "task_not_found": 3,
    "session_not_found": 3,
    "limit_reached": 4,
    "read_only": 4,
    "spawn_failed": 4,
    "store_unavailable": 4,
}

_HERE_ONLY = frozenset({"serve", "store", "token", "config", "demo", "bench"})
"""Commands that mean this machine, whatever server is named in the environment."""
_TELLS_ITSELF = frozenset({"token"})
"""Those of them that want to be told so: whoever asks for a token may well mean that of the server."""


class _Commands(TyperGroup):
    """The commands, which say where `--server` goes when they are given it themselves."""

    def invoke(self, ctx: Any) -> Any:
        """Do what the command line says. Raises InvalidArgument for `--server` behind a command."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            # What it raises is not exported; of all its errors only that of an unknown option has this.
            if getattr(error, "option_name", None) != "--server":
                raise
        raise InvalidArgument(
            "--server goes before the command", f"like `mcp-tasks --server URL {ctx.invoked_subcommand}`"
        )


# Without markup, help needs no rich, and text in brackets stays as it is.
app = typer.Typer(
    name="mcp-tasks",
    cls=_Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    *(serving, starting, looking, reading, waiting, ending),
    *(plans, sessions, journal, context, stores, tokens, setting_up),
):
    group.register(app)
archives.register(sessions.group)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(installed("mcp-tasks"))
        raise typer.Exit


@app.callback(invoke_without_command=True)
def bare(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback has done everything
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    server: Server = None,
) -> None:
    """Commands that outlive the client, the call and the server.

    Without a command it serves MCP on stdin and stdout, unless stdin is a terminal.

    Exit codes: 0 well, 1 the command or task failed (as search that finds nothing), 2 wrong usage,
    wrong settings, or not supported, 3 not found, 4 store unavailable, or no room for another task.
    """
    _tell_misspelt()
    SERVER.set(server)
    if server is not None and context.invoked_subcommand in _HERE_ONLY:
        raise NotSupported(
            f"{context.invoked_subcommand} works on this machine and not through a server",
            "leave --server out, or run it where the server is",
        )
    if os.environ.get("MCP_TASKS_SERVER") and context.invoked_subcommand in _HERE_ONLY - _TELLS_ITSELF:
        note(f"{context.invoked_subcommand} works on this machine, and not on the server of MCP_TASKS_SERVER")
    if context.invoked_subcommand is None:
        if sys.stdin is None or sys.stdin.isatty():
            print(context.get_help())
        elif server is not None:
            raise InvalidArgument("--server goes with a command", "give one, like `ps`")
        else:
            serving.serve_on_stdio({})


def _tell_misspelt() -> None:
    names = [name for name in os.environ if name.upper().startswith("MCP_TASKS_")]
    if not names:
        return  # and nothing that takes time is imported for it
    from mcp_tasks.settings import misspelt

    for name, meant in misspelt(names).items():
        note(f"warning: {name} is no setting; did you mean {meant}?")


def run() -> int:
    """Do what the command line says, and return the exit code where something was wrong."""
    try:
        app(prog_name="mcp-tasks")
    except TasksError as error:
        note(f"mcp-tasks: {explained(error)}")
        return _EXIT_CODES.get(error.code, 1)
    return 0
