"""Shapes of process tree that other supervisors leave alive."""

from __future__ import annotations

import sys

__all__ = ["SHAPES"]

_DAEMON = (
    "import os, signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "if os.fork(): os._exit(0)\n"
    "os.setsid()\n"
    "if os.fork(): os._exit(0)\n"
    "for n in (0, 1, 2): os.close(n)\n"
    "os.environ.clear()\n"
    "time.sleep(600)\n"
)
_DEAF = (
    "import signal, time\n"
    "for n in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(n, signal.SIG_IGN)\n"
    "print('ready', flush=True)\n"
    "while True: time.sleep(600)\n"
)
_LEADERLESS = (
    "import ctypes, threading, time\n"
    "threading.Thread(target=lambda: time.sleep(600)).start()\n"
    "print('ready', flush=True)\n"
    "ctypes.CDLL(None).pthread_exit(None)\n"
)
_PEER = (
    "import os, time\n"
    "child = os.fork()\n"
    "os.setpgid(0, 0) if not child else None\n"
    "print('ready', flush=True) if child else None\n"
    "time.sleep(600)\n"
)


def _python(script: str) -> str:
    return f'{sys.executable} -c "{script}" MARK'


SHAPES = {
    "a pipeline": (
        "sh -c 'sleep 600; : MARK' | sh -c 'cat; : MARK' | cat & echo ready; sh -c 'sleep 600; : MARK'"
    ),
    "background children": "for n in 1 2 3; do sh -c 'sleep 600; : MARK' & done; echo ready; wait",
    "one that ignores all signals": _python(_DEAF),
    "one in a session of its own": "setsid sh -c 'echo ready; sleep 600; : MARK' & wait",
    "a daemon after two forks": f"{_python(_DAEMON)}; echo ready; sleep 600",
    "a stopped one": "sh -c 'kill -STOP $$; : MARK' & echo ready; sh -c 'kill -STOP $$; : MARK'",
    "one in another group": _python(_PEER),
    "one without our environment": (
        "env -i setsid sh -c 'sleep 600; : MARK' >/dev/null 2>&1 & echo ready; sleep 600"
    ),
    "one whose first thread has ended": _python(_LEADERLESS),
    "a deaf one without our output": (
        "(trap '' TERM; exec >/dev/null 2>&1; while :; do sleep 600; : MARK; done) & echo ready; wait"
    ),
}
"""Shell texts that print `ready` and stay; MARK is put into the command line of what may survive."""
