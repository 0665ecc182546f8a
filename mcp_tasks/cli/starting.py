"""`run`: start a command."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_tasks.cli.calling import call, folder_named, text_of
from mcp_tasks.cli.hook_options import HookOptions, hooks_of
from mcp_tasks.cli.options import Dir, Json, Session, Store
from mcp_tasks.cli.printing import duration, note, print_json
from mcp_tasks.cli.spans import milliseconds
from mcp_tasks.cli.wording import in_own_words

if TYPE_CHECKING:
    from mcp_tasks.cli.backends import Backend
    from mcp_tasks.service import Caller

__all__ = ["register", "run"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    # What follows the program's name is the program's, so that `run ls -l` needs no `--`.
    app.command(context_settings={"allow_interspersed_args": False})(run)


def run(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="CMD",
            help="One word is a line for the shell, several are a program and its arguments.",
            show_default=False,
        ),
    ],
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Show the output, and exit as the command does.")
    ] = False,
    label: Annotated[str | None, typer.Option(help="A name to find it by.")] = None,
    key: Annotated[str | None, typer.Option(help="Start it once, however often this is said.")] = None,
    cwd: Annotated[Path | None, typer.Option(help="Where it runs; here by default.")] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="Set; NAME alone unsets.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="End it after so long.")] = None,
    grace: Annotated[float, typer.Option(metavar="SECONDS", help="Between TERM and KILL.")] = 5.0,
    stdin: Annotated[
        typer.FileBinaryRead | None, typer.Option(metavar="FILE", help="Its input; - is this command's own.")
    ] = None,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="It takes `input` later.")] = False,
    keep_tail: Annotated[
        bool, typer.Option("--keep-tail", help="At the output limit drop the middle and run on.")
    ] = False,
    max_output: Annotated[int | None, typer.Option(metavar="BYTES", help="Output limit; 0 for none.")] = None,
    after: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Start when this task has completed; repeatable.")
    ] = None,
    retries: Annotated[int, typer.Option(metavar="N", help="Run it so often again when it fails.")] = 0,
    delay: Annotated[float, typer.Option(metavar="SECONDS", help="Start it so much later.")] = 0.0,
    hook: HookOptions = None,
    clear_finished: Annotated[
        bool, typer.Option("--clear-finished", help="Remove the session's finished tasks.")
    ] = False,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
    session: Session = None,
) -> None:
    """Start a command that outlives this one, and print its task id.

    With --wait it is waited for, and its exit code is passed on. Interrupted, it runs on.
    """
    from mcp_tasks.requests import RunCommand

    given: dict[str, Any] = {
        "label": label,
        "key": key,
        "cwd": None if cwd is None else folder_named(cwd, (directory, store, session)),
        "timeout_ms": None if timeout is None else milliseconds(timeout),
        "stdin": None if stdin is None else text_of(stdin.read()),
        "max_output_bytes": max_output,
    }
    request = RunCommand(
        command=command[0] if len(command) == 1 else tuple(command),
        env=_environment(env or []),
        grace_ms=milliseconds(grace),
        interactive=interactive,
        on_output_limit="keep_tail" if keep_tail else "kill",
        clear_finished=clear_finished,
        retries=retries,
        delay_ms=milliseconds(delay),
        hooks=hooks_of(hook or ()),
        wait_ms=0,
        show="none",
        **{name: value for name, value in given.items() if value is not None},
    )

    async def start(service: Backend, caller: Caller) -> int:
        found = tuple([await service.resolve_prefix(caller, task_id) for task_id in after or ()])
        staying = replace(caller, stays=wait)
        view = await service.run_command(staying, request.model_copy(update={"after": found}))
        if not wait:
            return _told(view, as_json=as_json)
        return await _waited(service, caller, view, as_json=as_json)

    raise typer.Exit(call((directory, store, session), start, starts=True))


def _environment(settings: list[str]) -> dict[str, str | None]:
    environment: dict[str, str | None] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        environment[name] = value if equals else None
    return environment


def _told(view: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        print_json(view)
    else:
        print(view["task_id"])
        _note_error(view)
    _note_warning(view)
    return 1 if view.get("outcome") == "spawn_failed" else 0


def _note_error(view: dict[str, Any]) -> None:
    if error := view.get("error"):
        note(f"{error['message']}. {in_own_words(error.get('hint', ''))}".rstrip())


def _note_warning(view: dict[str, Any]) -> None:
    if warning := view.get("warning"):
        note(f"warning: {in_own_words(warning)}")


async def _waited(service: Backend, caller: Caller, view: dict[str, Any], *, as_json: bool) -> int:
    from mcp_tasks.cli.copying import OutputCopy
    from mcp_tasks.cli.endings import exit_code_of
    from mcp_tasks.requests import GetResult

    task_id = view["task_id"]
    if sys.stderr.isatty():
        note(f"task {task_id}; interrupted, it runs on")
    # In JSON the output is in the answer; beside it, it would be in the way.
    copy = OutputCopy("none" if as_json else "both")
    await copy.copy_all(service, caller, task_id, follow=True)
    view = await service.get_result(caller, GetResult(task_id=task_id))
    if as_json:
        print_json(view)
    else:
        _note_error(view)
    _note_warning(view)
    if sys.stderr.isatty() and not as_json:
        note(f"{view['state']} after {duration(view['elapsed_ms'])}")
    return exit_code_of(view)
