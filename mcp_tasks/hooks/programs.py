"""Running a program that tells something: what it is to know on its stdin, in bounded time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import anyio
import anyio.to_thread
import psutil
from anyio.abc import Process

from mcp_tasks.hooks.telling import NotTold, Telling

__all__ = ["notifier", "notify", "run"]

_SHELL: Final = "/bin/sh"
_KILL_S: Final = 5.0
_SCRIPT: Final = "on run argv\ndisplay notification (item 2 of argv) with title (item 1 of argv)\nend run"


async def run(
    command: str | Sequence[str], telling: Telling, environment: Mapping[str, str], seconds: float
) -> None:
    """Run the command of a hook. Raises NotTold where it fails, or is not over within so many seconds.

    Args:
        command: A line for the shell, or program and arguments.
        telling: On its stdin as JSON, and in variables of its environment.
        environment: Everything else that it inherits.
        seconds: After which it is killed with all that it has started.
    """
    argv = [_SHELL, "-c", command] if isinstance(command, str) else list(command)
    await _run(
        argv,
        telling.body,
        cwd=await anyio.to_thread.run_sync(_folder, str(telling.data.get("cwd", ""))),
        environment={**environment, **telling.variables},
        seconds=seconds,
    )


async def notify(telling: Telling, environment: Mapping[str, str], seconds: float) -> None:
    """Show a notification on the desktop of whoever runs this. Raises NotTold as `run` does."""
    argv = notifier()
    if argv is None:
        raise NotTold("there is no notify-send here", final=True)
    await _run([*argv, telling.title, telling.detail], b"", cwd="/", environment=environment, seconds=seconds)


def notifier() -> tuple[str, ...] | None:
    """The program that shows notifications here, with what comes before title and text; None for none."""
    if sys.platform == "darwin":
        found = shutil.which("osascript")
        return None if found is None else (found, "-e", _SCRIPT)
    found = shutil.which("notify-send")
    return None if found is None else (found, "--app-name=mcp-tasks", "--")


async def _run(
    argv: Sequence[str], given: bytes, *, cwd: str, environment: Mapping[str, str], seconds: float
) -> None:
    try:
        process = await anyio.open_process(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=cwd,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise NotTold(f"it could not be started ({error.strerror})") from None
    except ValueError:
        raise NotTold("it could not be started (NUL byte)", final=True) from None
    try:
        with anyio.move_on_after(seconds) as patience:
            await _give(process, given)
            await process.wait()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
    if patience.cancelled_caught:
        raise NotTold(f"it was not over within {seconds:g} s")
    if process.returncode:
        raise NotTold(f"exit code {process.returncode}")


def _folder(cwd: str) -> str:
    """Where the task ran; where that is not there any more, at home."""
    places = (cwd, os.path.expanduser("~"))
    return next((place for place in places if os.path.isdir(place)), "/")


async def _give(process: Process, given: bytes) -> None:
    """Write what it may read; one that does not read is no failure."""
    if process.stdin is None:
        return
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        await process.stdin.send(given)
    with suppress(OSError):
        await process.stdin.aclose()


async def _end(process: Process) -> None:
    """Kill it with everything that it started, unless it is over: what it left then is meant to live."""
    if process.returncode is None:
        started: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            started = psutil.Process(process.pid).children(recursive=True)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for each in started:  # those that have left its group
            with suppress(psutil.NoSuchProcess):
                each.kill()
    with anyio.move_on_after(_KILL_S):
        await process.aclose()
