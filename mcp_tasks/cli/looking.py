"""`ps` and `poll`: what there is, and how it is getting on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_tasks.cli.calling import call
from mcp_tasks.cli.options import Dir, Json, Session, Store, TaskId
from mcp_tasks.cli.printing import (
    duration,
    is_terminal,
    note,
    print_json,
    print_table,
    print_text,
    size,
    waiting,
)
from mcp_tasks.cli.spans import milliseconds
from mcp_tasks.cli.wording import told

if TYPE_CHECKING:
    from mcp_tasks.cli.backends import Backend
    from mcp_tasks.service import Caller

__all__ = ["poll", "ps", "register"]

_PAGE = 500
_SHORTEST_ID = 12
"""Ten characters are the time, the rest is chance."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(ps)
    app.command()(poll)


def ps(
    state: Annotated[
        str | None,
        typer.Option(help="active, pending, running, completed, failed, cancelled or lost."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Only those of this label.")] = None,
    cwd: Annotated[str | None, typer.Option(help="Only those of this folder.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.", min=1)] = 20,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All of them.")] = False,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """List the tasks of a session, newest first."""
    from mcp_tasks.requests import ListTasks

    async def listed(service: Backend, caller: Caller) -> dict[str, Any]:
        tasks: list[dict[str, Any]] = []
        fields: dict[str, Any] = {"state": state, "label": label, "cwd": cwd}
        fields = {name: value for name, value in fields.items() if value is not None}
        while True:
            wanted = _PAGE if everything else min(_PAGE, limit - len(tasks))
            page = await service.list_tasks(caller, ListTasks(limit=wanted, **fields))
            tasks += page["tasks"]
            if "next_cursor" not in page or (not everything and len(tasks) >= limit):
                return {**page, "tasks": tasks}
            fields["cursor"] = page["next_cursor"]

    answer = call((directory, store, session), listed)
    if as_json:
        print_json(answer)
        return
    tasks = answer["tasks"]
    width = _id_width([task["task_id"] for task in tasks]) if is_terminal("stdout") else None
    titles = ("ID", "STATE", "EXIT", "TIME", "OUTPUT", "STARTED", "LABEL", "COMMAND")
    if tasks:
        print_table(titles, [_row(task, width) for task in tasks])
    total, shown = sum(answer.get("counts", {}).values()), len(tasks)
    if not tasks:
        note("no tasks")
    elif "next_cursor" in answer:
        note(f"{shown} of {total} tasks; --all shows the rest")


def _row(task: dict[str, Any], width: int | None) -> tuple[str, ...]:
    end = task.get("signal") or task.get("exit_code")
    started = task.get("started_at") or task.get("created_at") or ""
    return (
        task["task_id"][:width],
        task["state"],
        "" if end is None else str(end),
        duration(task["elapsed_ms"]),
        size(task["stdout_bytes"] + task["stderr_bytes"]),
        started[:19].replace("T", " "),
        task.get("label", ""),
        task.get("command", ""),
    )


def _id_width(ids: list[str]) -> int:
    """Characters that tell the listed ids apart."""
    width = _SHORTEST_ID
    while width < 36 and len({task_id[:width] for task_id in ids}) < len(ids):
        width += 1
    return width


def poll(
    task_id: TaskId,
    wait: Annotated[
        float | None, typer.Option("--wait", "-w", metavar="SECONDS", help="Wait so long for the end.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="What ends the wait: exit, output, idle or pattern.")
    ] = None,
    pattern: Annotated[str | None, typer.Option(help="Wait until the output matches.")] = None,
    idle: Annotated[float | None, typer.Option(metavar="SECONDS", help="Wait until so long silent.")] = None,
    cursor: Annotated[str | None, typer.Option(help="Show what came after this.")] = None,
    max_bytes: Annotated[int, typer.Option(help="How much output.", min=1)] = 8192,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Show how a task is getting on, and its newest output."""
    from mcp_tasks.requests import PollTask

    given = {
        "wait_ms": None if wait is None else milliseconds(wait),
        "until": until,
        "pattern": pattern,
        "idle_ms": None if idle is None else milliseconds(idle),
        "cursor": cursor,
    }
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    async def polled(service: Backend, caller: Caller) -> dict[str, Any]:
        found = await service.resolve_prefix(caller, task_id)
        request = PollTask(task_id=found, max_bytes=max_bytes, **fields)
        with waiting(f"waiting for {task_id}"):
            return await service.poll_task(caller, request)

    view = call((directory, store, session), polled)
    if as_json:
        print_json(view)
        return
    from mcp_tasks.server.text import render

    print_text(render("poll_task", told(view)))
