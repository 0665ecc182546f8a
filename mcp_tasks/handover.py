"""Tasks that wait are handed to a steward: one detached process per store that outlives every server.

The lock says whether there is one, the bell (a FIFO) tells it that there is something new. What it does
is in `mcp_tasks.steward`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from mcp_tasks.settings import Settings

__all__ = ["call_steward", "open_bell", "open_lock", "ring", "silence", "take_lock"]

_LOCK = "steward.lock"
_BELL = "steward.bell"
_ROOT = str(Path(__file__).parent.parent)
# Leaves whoever called before it imports anything, so that nobody waits for that.
_START = (
    "import os, sys; os.fork() and os._exit(0); sys.path.append(sys.argv[1]); "
    "from mcp_tasks.steward import main; main(int(sys.argv[2]))"
)


def call_steward(settings: Settings) -> None:
    """See to it that the store has a steward, and that it looks for something new. Cheap when it has one.

    The caller has registered its task before. A steward that is about to leave looks again
    after it has let go of the lock, so either it sees that task, or the lock is free to be seen here.
    The lock passes to the new steward while it is held, so however many call, one comes.

    Raises:
        OSError: There is none, and none can be started now.
        subprocess.SubprocessError: The same.
    """
    lock = open_lock(settings.dir)
    try:
        if not take_lock(lock):
            ring(settings.dir)
            return
        subprocess.run(
            [sys.executable, "-c", _START, _ROOT, str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_environment(settings),
            pass_fds=(lock,),
            check=True,
            start_new_session=True,
        )
    finally:
        os.close(lock)


def _environment(settings: Settings) -> dict[str, str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MCP_TASKS_TOKEN", "MCP_TASKS_SHARE", "MCP_TASKS_HOOK_SECRET")
    }
    return environment | {
        "MCP_TASKS_DIR": str(settings.dir),
        "MCP_TASKS_STORE": settings.store,
        "MCP_TASKS_AUTO_SAVE": "on",
        "MCP_TASKS_MAX_RUNNING": str(settings.max_running),
        "MCP_TASKS_QUEUE_LIMIT": str(settings.queue_limit),
        "MCP_TASKS_JOURNAL_LIMIT": str(settings.journal_limit),
        **_keys(settings),
    }


def _keys(settings: Settings) -> dict[str, str]:
    """What the steward needs to unseal what servers have parked."""
    keys: dict[str, str] = {"MCP_TASKS_KEY_SOURCE": settings.key_source}
    if settings.key is not None:
        keys["MCP_TASKS_KEY"] = settings.key.get_secret_value()
    if settings.key_file is not None:
        keys["MCP_TASKS_KEY_FILE"] = str(settings.key_file)
    return keys


def open_lock(folder: Path) -> int:
    """Open the file whose lock makes a process the steward of the state directory `folder`."""
    return os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def take_lock(lock: int) -> bool:
    """Become the steward, if there is none."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_bell(folder: Path) -> int:
    """Open the bell of the steward of a state directory: a descriptor that is readable when it was rung.

    Raises:
        OSError: Something else is in its place.
    """
    with suppress(FileExistsError):
        os.mkfifo(folder / _BELL, 0o600)
    # Open at both ends, so that whoever rang and left is no end of file.
    bell = os.open(folder / _BELL, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISFIFO(os.fstat(bell).st_mode):
        os.close(bell)
        raise OSError(errno.EINVAL, "something else is in the place of the steward's bell")
    return bell


def silence(bell: int) -> None:
    """Take what was rung, so that the bell is heard anew."""
    with suppress(BlockingIOError):
        while os.read(bell, 4096):
            pass


def ring(folder: Path) -> None:
    """Tell the steward of a state directory to look again, if there is one."""
    try:
        bell = os.open(folder / _BELL, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # it is about to look (it has just come), or will look again (it is about to go)
    try:
        if stat.S_ISFIFO(os.fstat(bell).st_mode):
            os.write(bell, b"!")
    except BlockingIOError:
        pass  # it was rung often enough
    finally:
        os.close(bell)
