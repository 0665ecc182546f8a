"""A server to be killed: starts commands and says so, or dies at a chosen step of a launch.

Called as `server_process.py ROOT MARK COUNT STEP`. Each command notes that it ran, waits for the gate,
writes output that its number decides, and exits with a code that its number decides.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

__all__ = ["COMMAND", "STEPS", "exit_code", "output"]

STEPS = ("before the frame", "after the frame", "after ready", "after go", "after started")

COMMAND = 'echo ran >> "$RAN"; : < "$GATE"; seq "$N" 2000; seq 1 "$N" >&2; exit $((N % 7))'


def exit_code(number: int) -> int:
    """What command number `number` exits with."""
    return number % 7


def output(number: int) -> tuple[bytes, bytes]:
    """What command number `number` writes to stdout and stderr."""
    out = "".join(f"{n}\n" for n in range(number, 2001))
    err = "".join(f"{n}\n" for n in range(1, number + 1))
    return out.encode(), err.encode()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(step: str) -> None:
    """Die at a step of the next launch."""
    from mcp_tasks.executors import reservation, wire

    send = wire.send
    is_ready, answer = reservation.LocalReservation._is_ready, reservation.LocalReservation._answer
    told: list[tuple[object, ...]] = []

    def send_or_die(channel: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
        if step == "after the frame":
            send(channel, message, descriptors)
        _die()

    def be_ready_and_die(self: reservation.LocalReservation) -> bool:
        is_ready(self)
        _die()
        return True

    def answer_once(self: reservation.LocalReservation) -> tuple[object, ...]:
        if told:
            _die()
        told.append(answer(self))
        return told[0]

    if step in ("before the frame", "after the frame"):
        wire.send = send_or_die
    elif step == "after ready":
        reservation.LocalReservation._is_ready = be_ready_and_die  # type: ignore[method-assign]
    elif step == "after go":
        reservation.LocalReservation._answer = answer_once  # type: ignore[method-assign]


def main(root: Path, mark: str, count: int, step: str) -> None:
    """Start `count` commands one after the other, then stay until killed."""
    from mcp_tasks.executors.local import LocalExecutor
    from mcp_tasks.ports import Launch
    from tests.executors.rig import interpreter

    executor = LocalExecutor(interpreter(mark))
    executor.warm_up()
    _arm(step)
    for number in range(1, count + 1):
        folder = root / "runs" / f"{number:04d}.1"
        folder.mkdir(parents=True)
        env = {
            "PATH": os.environ["PATH"],
            "N": str(number),
            "RAN": str(root / f"ran-{number}"),
            "GATE": str(root / "gate"),
        }
        launch = Launch(("/bin/sh", "-c", COMMAND), str(root), env)
        reservation = executor.reserve(folder, launch, root / "slots", 1000)
        if reservation is None:
            raise SystemExit("no place")
        reservation.go()
        os.write(1, b"%d\n" % number)
    if step == "after started":
        _die()
    signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
