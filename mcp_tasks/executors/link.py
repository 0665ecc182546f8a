"""The server's line to its launcher: started when it is needed, and anew when it was killed."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

from mcp_tasks.errors import SpawnFailed
from mcp_tasks.executors import wire

__all__ = ["LauncherLink"]

_START = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from mcp_tasks.executors.launcher import main; main(int(sys.argv[2]))"
)
_ROOT = str(Path(__file__).parent.parent.parent)
# What the launcher's interpreter may need to start at all; a command's environment comes with its launch.
_INTERPRETER_ENV = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "LANG", "LC_ALL")
_SEND_S = 10.0


class LauncherLink:
    """Sends launches to one launcher. Safe for many threads.

    Args:
        interpreter: Command line of a Python without site packages.
    """

    def __init__(self, interpreter: tuple[str, ...]) -> None:
        self._interpreter = interpreter
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._lifeline: tuple[int, int] | None = None

    def warm_up(self) -> None:
        """Start the launcher, if there is none. Raises SpawnFailed."""
        with self._lock:
            self._connected()

    def send(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Hand a launch over. Raises SpawnFailed when that cannot be done; no supervisor has it then."""
        with self._lock:
            if message["lifeline"]:
                if self._lifeline is None:
                    self._lifeline = os.pipe()
                descriptors = [*descriptors, self._lifeline[0]]
            try:
                wire.send(self._connected(), message, descriptors)
            except (BrokenPipeError, ConnectionResetError):
                # The launcher was killed since it was last used. Nothing has been read of this launch.
                self._disconnect()
                wire.send(self._connected(), message, descriptors)
            except TimeoutError:
                # Part of the frame may be on its way, so nothing can follow it on this line.
                self._disconnect()
                raise SpawnFailed(
                    f"no supervisor took the command within {_SEND_S:.0f} s, so it did not run",
                    "the machine may be out of processes or memory; try again",
                ) from None

    def close(self) -> None:
        """Let go of the launcher, and of what ends with this server."""
        with self._lock:
            self._disconnect()
            if self._lifeline is not None:
                for descriptor in self._lifeline:
                    os.close(descriptor)
                self._lifeline = None

    def _connected(self) -> socket.socket:
        if self._channel is None:
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    self._start(theirs.fileno())
            except BaseException:
                ours.close()
                raise
            ours.settimeout(_SEND_S)
            self._channel = ours
        return self._channel

    def _start(self, theirs: int) -> None:
        try:
            # The process that is waited for here has only forked the launcher: whoever ends this
            # server by parent pid or process group does not find it.
            subprocess.run(
                [*self._interpreter, "-c", _START, _ROOT, str(theirs)],
                pass_fds=(theirs,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _INTERPRETER_ENV if name in os.environ},
                check=True,
                start_new_session=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "it ended at once"
            raise SpawnFailed(
                f"the launcher could not be started ({reason}), so the command did not run",
                "the machine may be out of processes or memory; mcp-tasks doctor says more",
            ) from error

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
