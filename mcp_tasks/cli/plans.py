"""`plan`: several commands at once, and how far they have come."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_tasks.cli.backends import CHUNK_MS
from mcp_tasks.cli.calling import call, text_of
from mcp_tasks.cli.options import Dir, Json, Session, Store
from mcp_tasks.cli.printing import duration, note, print_json, print_table, print_text, waiting
from mcp_tasks.cli.spans import milliseconds
from mcp_tasks.cli.wording import told

if TYPE_CHECKING:
    from mcp_tasks.cli.backends import Backend
    from mcp_tasks.service import Caller

__all__ = ["group", "register"]

group = typer.Typer(
    name="plan",
    help="Plans: several commands, one after the other or as they depend on each other.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_FIELDS = frozenset({"commands", "name", "order", "on_failure", "key"})
_TIMED_OUT = 124


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(group)


@group.command()
def run(
    file: Annotated[
        typer.FileBinaryRead,
        typer.Argument(
            metavar="FILE",
            help="JSON: a list of commands, or {commands, name, order, on_failure}; - is standard input.",
            show_default=False,
        ),
    ],
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Until all steps are over.")] = False,
    name: Annotated[str | None, typer.Option(help="A name to know it by.")] = None,
    key: Annotated[str | None, typer.Option(help="Start it once, however often this is said.")] = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Start several commands, and print the id of their plan.

    A command is a line for the shell, a program with its arguments as a list, or an object: command, name,
    cwd, env, stdin, timeout_ms, retries, delay_ms, and after (names or numbers of steps, or task ids).
    Without after, each waits for the one before it. With --wait it exits with 1 unless all completed.
    """
    from mcp_tasks.requests import RunPlan

    given = _parsed(file.read())
    given |= {option: value for option, value in (("name", name), ("key", key)) if value is not None}
    request = RunPlan(wait_ms=0, **given)

    async def start(service: Backend, caller: Caller) -> dict[str, Any]:
        view = await service.run_plan(caller, request)
        if not wait:
            return view
        with waiting(f"waiting for plan {view['plan_id']}"):
            return await _until_over(service, caller, view["plan_id"], None)

    view = call((directory, store, session), start, starts=True)
    if as_json:
        print_json(view)
    elif wait:
        _show("plan_progress", view)
    else:
        print(view["plan_id"])
    raise typer.Exit(_exit_code(view) if wait else 0)


@group.command()
def progress(
    plan_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Plan id or its beginning; else the newest.", show_default=False),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option("--wait", "-w", metavar="SECONDS", help="Wait so long for its end; then exit with 124."),
    ] = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Show how far a plan has come. Exits with 1 where it is over and has not completed."""

    async def looked(service: Backend, caller: Caller) -> dict[str, Any]:
        found = None if plan_id is None else await service.resolve_plan_prefix(caller, plan_id)
        with waiting("waiting for the plan"):
            return await _until_over(service, caller, found, wait or 0.0)

    view = call((directory, store, session), looked)
    if as_json:
        print_json(view)
    else:
        _show("plan_progress", view)
    raise typer.Exit(_TIMED_OUT if wait is not None and _is_open(view) else _exit_code(view))


@group.command("list")
def list_them(
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.", min=1)] = 20,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """List the plans of a session, newest first."""

    async def listed(service: Backend, caller: Caller) -> dict[str, Any]:
        return await service.list_plans(caller, limit)

    answer = call((directory, store, session), listed)
    if as_json:
        print_json(answer)
        return
    rows = [
        (
            plan["plan_id"],
            plan["state"],
            f"{plan['done']} of {plan['total']}",
            duration(plan["elapsed_ms"]),
            plan["created_at"][:19].replace("T", " "),
            plan.get("name", ""),
        )
        for plan in answer["plans"]
    ]
    if rows:
        print_table(("ID", "STATE", "DONE", "TIME", "CREATED", "NAME"), rows)
    else:
        note("no plans")


def _parsed(data: bytes) -> dict[str, Any]:
    """What a file says of a plan. Raises InvalidArgument."""
    from mcp_tasks.errors import InvalidArgument

    try:
        given = json.loads(text_of(data))
    except ValueError as error:
        raise InvalidArgument(f"the plan is not JSON: {error}", "give a list of commands") from None
    if isinstance(given, list):
        return {"commands": given}
    if not isinstance(given, dict) or "commands" not in given:
        raise InvalidArgument("the plan has no commands", 'give a list, or {"commands": […]}')
    if unknown := sorted(set(given) - _FIELDS):
        raise InvalidArgument(
            f"the plan has a field {unknown[0]!r} that is unknown", f"it takes {', '.join(sorted(_FIELDS))}"
        )
    return given


async def _until_over(
    service: Backend, caller: Caller, plan_id: str | None, seconds: float | None
) -> dict[str, Any]:
    from mcp_tasks.requests import PlanProgress

    deadline = None if seconds is None else time.monotonic() + milliseconds(seconds) / 1000
    while True:
        left = CHUNK_MS if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
        request = PlanProgress(plan_id=plan_id, wait_ms=min(CHUNK_MS, left))
        view = await service.plan_progress(caller, request)
        if not _is_open(view) or (deadline is not None and left <= CHUNK_MS):
            return view
        plan_id = view["plan_id"]


def _is_open(view: dict[str, Any]) -> bool:
    return view["state"] in ("pending", "running")


def _exit_code(view: dict[str, Any]) -> int:
    return 0 if _is_open(view) or view["state"] == "completed" else 1


def _show(tool: str, view: dict[str, Any]) -> None:
    from mcp_tasks.server.text import render

    print_text(render(tool, told(view)))
