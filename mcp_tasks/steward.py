"""Who starts pending tasks when no server lives: one detached process per store, until none is left.

It is the same service as any server's, without a transport. The lock says who it is.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import anyio

import mcp_tasks
from mcp_tasks.settings import Settings

__all__ = ["call_steward", "main"]

_LOCK = "steward.lock"
_LOOK_S = 0.2
# Leaves whoever called before it imports anything, so that nobody waits for that.
_START = (
    "import os, sys; os.fork() and os._exit(0); sys.path.append(sys.argv[1]); "
    "from mcp_tasks.steward import main; main()"
)


def call_steward(settings: Settings) -> None:
    """See to it that the store has a steward. Cheap when it has one already.

    The caller has registered its pending task before. A steward that is about to leave looks again
    after it has let go of the lock, so either it sees that task, or the lock is free to be seen here.
    """
    lock = _open_lock(settings.dir)
    try:
        if not _take(lock):
            return
    finally:
        os.close(lock)
    environment = {name: value for name, value in os.environ.items() if name != "MCP_TASKS_TOKEN"}
    environment |= {
        "MCP_TASKS_DIR": str(settings.dir),
        "MCP_TASKS_STORE": settings.store,
        "MCP_TASKS_MAX_RUNNING": str(settings.max_running),
        "MCP_TASKS_QUEUE_LIMIT": str(settings.queue_limit),
    }
    subprocess.run(
        [sys.executable, "-c", _START, str(Path(mcp_tasks.__file__).parent.parent)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=environment,
        check=True,
        start_new_session=True,
    )


def main() -> None:
    """Start pending tasks until there are none."""
    anyio.run(_serve, Settings())


async def _serve(settings: Settings) -> None:
    from mcp_tasks.app import open_service, open_store

    while True:
        lock = _open_lock(settings.dir)
        try:
            if not _take(lock):
                return
            async with open_service(settings) as service:
                while service.has_pending():  # noqa: ASYNC110 - what changes is in other processes
                    await anyio.sleep(_LOOK_S)
        finally:
            os.close(lock)
        if not open_store(settings).pending():
            return


def _open_lock(folder: Path) -> int:
    return os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
