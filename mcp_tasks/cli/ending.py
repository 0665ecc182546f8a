"""`cancel` and `clear`: end tasks, and remove what is left of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_tasks.cli.calling import call
from mcp_tasks.cli.options import Dir, Json, Session, Store
from mcp_tasks.cli.printing import note, print_json, size, waiting
from mcp_tasks.cli.spans import milliseconds
from mcp_tasks.cli.wording import in_own_words
from mcp_tasks.errors import InvalidArgument

if TYPE_CHECKING:
    from mcp_tasks.cli.backends import Backend
    from mcp_tasks.service import Caller

__all__ = ["cancel", "clear", "register"]

_ENDS_WITHIN_MS = 10_000
"""Time for the end beyond the grace, after which what cannot be killed is named instead."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(cancel)
    app.command()(clear)


def cancel(
    task_ids: Annotated[list[str], typer.Argument(metavar="ID", help="Task ids, or their beginnings.")],
    grace: Annotated[float, typer.Option(metavar="SECONDS", help="Between the signal and KILL.")] = 5.0,
    signal: Annotated[str, typer.Option(help="The first signal.")] = "TERM",
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """End tasks with all their processes. Exits with 1 where something could not be ended."""

    async def cancelled(service: Backend, caller: Caller) -> dict[str, Any]:
        from dataclasses import replace

        from mcp_tasks.requests import CancelTask

        found = tuple([await service.resolve_prefix(caller, task_id) for task_id in task_ids])
        grace_ms = milliseconds(grace)
        patient = replace(caller, max_wait_ms=grace_ms + _ENDS_WITHIN_MS)
        with waiting(f"ending {', '.join(task_ids)}"):
            return await service.cancel_task(
                patient, CancelTask(task_ids=found, grace_ms=grace_ms, signal=signal)
            )

    answer = call((directory, store, session), cancelled)
    if as_json:
        print_json(answer)
    for view in answer["tasks"]:
        if not as_json:
            print(f"{view['task_id']}  {view['state']}")
        if warning := view.get("warning"):
            note(f"warning: {in_own_words(warning)}")
    ended = all(view["state"] not in ("pending", "running") for view in answer["tasks"])
    raise typer.Exit(0 if ended else 1)


def clear(
    task_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Task ids, or their beginnings.")
    ] = None,
    finished: Annotated[bool, typer.Option("--finished", help="All that are over.")] = False,
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", help="All that are over for so long.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Of those, the ones of this label.")] = None,
    cwd: Annotated[str | None, typer.Option(help="Of those, the ones of this folder.")] = None,
    end_first: Annotated[bool, typer.Option("--cancel", help="End a task that still runs.")] = False,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Remove finished tasks with their output, for good."""
    many = finished or older_than is not None
    if bool(task_ids) == many:
        raise InvalidArgument("clear what?", "give task ids, or --finished, or --older-than DAYS")
    given = {"older_than_days": older_than, "label": label, "cwd": cwd}
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    async def cleared(service: Backend, caller: Caller) -> dict[str, Any]:
        from mcp_tasks.requests import ClearTask

        if many:
            return await service.clear_task(
                caller, ClearTask(all_finished=finished, cancel=end_first, **fields)
            )
        answer: dict[str, Any] = {"cleared": [], "freed_bytes": 0}
        for found in [await service.resolve_prefix(caller, task_id) for task_id in task_ids or []]:
            one = await service.clear_task(caller, ClearTask(task_id=found, cancel=end_first, **fields))
            answer["cleared"] += one["cleared"]
            answer["freed_bytes"] += one["freed_bytes"]
        return answer

    answer = call((directory, store, session), cleared)
    if as_json:
        print_json(answer)
        return
    for task_id in answer["cleared"]:
        print(task_id)
    note(f"cleared {len(answer['cleared'])}, {size(answer['freed_bytes'])} freed")
