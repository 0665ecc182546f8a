"""`wait` and `input`: be there when a task ends, and talk to one that runs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_tasks.cli.backends import CHUNK_MS
from mcp_tasks.cli.calling import call, text_of
from mcp_tasks.cli.endings import TIMED_OUT, exit_code_of
from mcp_tasks.cli.options import Dir, Json, Session, Store, TaskId
from mcp_tasks.cli.printing import duration, note, print_json, print_text, waiting
from mcp_tasks.cli.spans import milliseconds
from mcp_tasks.cli.wording import told

if TYPE_CHECKING:
    from mcp_tasks.cli.backends import Backend
    from mcp_tasks.service import Caller

__all__ = ["give_input", "register", "wait"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(wait)
    app.command("input")(give_input)


def wait(
    task_ids: Annotated[list[str], typer.Argument(metavar="ID", help="Task ids, or their beginnings.")],
    any_of_them: Annotated[bool, typer.Option("--any", help="Until the first of them is over.")] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Wait no longer; then exit with 124.")
    ] = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Wait for tasks, and exit as they did: 0 when all completed, else as the first named that did not.

    With --any it exits as the one that ended first.
    """

    async def waited(service: Backend, caller: Caller) -> dict[str, Any]:
        from mcp_tasks.requests import WaitTasks

        found = tuple(dict.fromkeys([await service.resolve_prefix(caller, one) for one in task_ids]))
        deadline = None if timeout is None else time.monotonic() + milliseconds(timeout) / 1000
        with waiting(f"waiting for {', '.join(task_ids)}"):
            while True:
                left = CHUNK_MS if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
                request = WaitTasks(
                    task_ids=found, mode="any" if any_of_them else "all", wait_ms=min(CHUNK_MS, left)
                )
                answer = await service.wait_tasks(caller, request)
                if answer["wait_result"] != "deadline" or (deadline is not None and left <= CHUNK_MS):
                    break
        if any_of_them:
            ends = {
                one["task_id"]: await _ended_at(service, caller, one["task_id"]) for one in answer["done"]
            }
            answer["done"].sort(key=lambda view: ends[view["task_id"]])
        return answer

    answer = call((directory, store, session), waited)
    if as_json:
        print_json(answer)
    else:
        for view in answer["done"]:
            end = view.get("signal") or view.get("exit_code")
            how = view["state"] if end is None else f"{view['state']} ({end})"
            print(f"{view['task_id']}  {how}  {duration(view['elapsed_ms'])}")
    codes = [exit_code_of(view) for view in answer["done"][: 1 if any_of_them else None]]
    if answer["wait_result"] == "deadline":
        note(f"not over yet: {', '.join(answer['open'])}")
        raise typer.Exit(TIMED_OUT)
    raise typer.Exit(next((code for code in codes if code), 0))


async def _ended_at(service: Backend, caller: Caller, task_id: str) -> str:
    """When a task ended, so written that what is earlier is less."""
    from mcp_tasks.requests import GetResult

    view = await service.get_result(caller, GetResult(task_id=task_id, limit=1))
    return str(view.get("ended_at", ""))


def _is_to_be_read(*, eof: bool) -> bool:
    """Whether stdin has the text: nobody who only ends the input types anything before that."""
    return sys.stdin is not None and not (eof and sys.stdin.isatty())


def give_input(
    task_id: TaskId,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="What to type; without it, this command's stdin.")
    ] = None,
    enter: Annotated[bool, typer.Option("--enter/--no-enter", help="End TEXT with a newline.")] = True,
    eof: Annotated[bool, typer.Option("--eof", help="End the input after that.")] = False,
    signal: Annotated[str | None, typer.Option(help="Send a signal, like INT.")] = None,
    secret: Annotated[bool, typer.Option("--secret", help="Ask for TEXT without showing it.")] = False,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Type into an interactive task, and show what comes of it."""
    if secret and text is None:
        text = typer.prompt("input", hide_input=True, default="", show_default=False, err=True)
    elif text is None and signal is None and _is_to_be_read(eof=eof):
        text, enter = text_of(sys.stdin.buffer.read()), False
    fields: dict[str, Any] = {"text": text, "signal": signal}
    fields = {name: value for name, value in fields.items() if value is not None}

    async def given(service: Backend, caller: Caller) -> dict[str, Any]:
        from mcp_tasks.requests import SendInput

        request = SendInput(
            task_id=await service.resolve_prefix(caller, task_id),
            enter=enter and text is not None,
            eof=eof,
            secret=secret,
            **fields,
        )
        with waiting("waiting for what comes of it"):
            return await service.send_input(caller, request)

    view = call((directory, store, session), given)
    if as_json:
        print_json(view)
        return
    from mcp_tasks.server.text import render

    print_text(render("send_input", told(view)))
