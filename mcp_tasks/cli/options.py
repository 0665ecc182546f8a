"""Options that several commands have in common."""

from __future__ import annotations

from contextvars import ContextVar
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

__all__ = [
    "SERVER",
    "Dir",
    "Json",
    "Place",
    "Server",
    "Session",
    "Store",
    "StreamName",
    "Streams",
    "TaskId",
]

_WHERE = "Where"


class StreamName(StrEnum):
    """Which of a command's streams are meant."""

    both = "both"
    stdout = "stdout"
    stderr = "stderr"


Dir: TypeAlias = Annotated[
    Path | None,
    typer.Option("--dir", metavar="D", help="State directory (MCP_TASKS_DIR).", rich_help_panel=_WHERE),
]
Store: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="KIND",
        help="json, sqlite or memory (MCP_TASKS_STORE).",
        rich_help_panel=_WHERE,
    ),
]
Session: TypeAlias = Annotated[
    str | None,
    typer.Option("--session", "-s", metavar="S", help="Session (MCP_TASKS_SESSION).", rich_help_panel=_WHERE),
]
Server: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Work on the server at http://…, https://… or unix:PATH (MCP_TASKS_SERVER; its token in"
        " MCP_TASKS_TOKEN).",
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Streams: TypeAlias = Annotated[StreamName, typer.Option("--stream", help="Which output.")]
TaskId: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="ID", help="Task id, or a beginning that only one task has.", show_default=False),
]
Place: TypeAlias = tuple[Path | None, str | None, str | None]
"""State directory, store and session as given on the command line."""

SERVER: Final[ContextVar[str | None]] = ContextVar("server", default=None)
"""The server that this command line names; it stands before the command, which cannot see it."""
