"""The server's side of one launch: a supervisor has it, and waits for the word to start."""

from __future__ import annotations

import marshal
import os
import socket
import time
from typing import Any

from mcp_tasks.errors import SpawnFailed
from mcp_tasks.executors.link import LauncherLink
from mcp_tasks.executors.run_folder import unavailable
from mcp_tasks.ports import Started

__all__ = ["LocalReservation"]

_ANSWER_S = 20.0
_PAUSES_S = (0.0, 0.02, 0.1)
_NOBODY: tuple[object, ...] = ("gone",)


class LocalReservation:
    """Implements `ports.Reservation`.

    Args:
        message: The launch, as it goes to a supervisor.
        held: Descriptors of the run folder, with the run's lock, and of the place among the running.
            They are closed at the end, and at once when nothing could be sent.

    Raises:
        SpawnFailed: There is no supervisor to be had.
    """

    def __init__(self, link: LauncherLink, message: dict[str, Any], held: list[int]) -> None:
        self._link = link
        self._message = message
        self._held = held
        self._reply: socket.socket | None = None
        try:
            self._reply = self._send()
        except BaseException:
            self._let_go()
            raise

    def go(self) -> Started:
        """See `ports.Reservation`. Raises SpawnFailed, StoreUnavailable: both mean that nothing ran."""
        try:
            for pause in _PAUSES_S:
                answer = self._start() if self._is_ready() else _NOBODY
                if answer != _NOBODY:
                    break
                # Launcher or supervisor was killed before the word, so nothing ran: again with new ones.
                # One that is just dying may still take the frame, hence more than once.
                time.sleep(pause)
                self._reply, gone = self._send(), self._reply
                if gone is not None:
                    gone.close()
            else:
                raise _no_supervisor()
            match answer:
                case ("started", int(pid), int(started_at)):
                    return Started(started_at, pid)
                case ("failed", str()):
                    return Started(0, None)
                case ("unprepared", int(number), str(message)):
                    raise unavailable(OSError(number, message))
                case _:
                    # The supervisor has been told to go and has said no more. Whether the command ran
                    # is for the run folder to tell, not for us to guess.
                    return Started(time.time_ns() // 1_000_000, None)
        finally:
            self._let_go()

    def abandon(self) -> None:
        """See `ports.Reservation`."""
        # The supervisor sees the end of the line instead of the word, and goes away.
        self._let_go()

    def _send(self) -> socket.socket:
        try:
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    self._link.send(self._message, [*self._held, theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        except OSError as error:
            raise unavailable(error) from error
        ours.settimeout(_ANSWER_S)
        return ours

    def _is_ready(self) -> bool:
        try:
            return self._answer() == ("ready",)
        except TimeoutError:
            raise SpawnFailed(
                f"no supervisor could be started within {_ANSWER_S:.0f} s, so the command did not run",
                "the machine may be out of processes or memory; try again",
            ) from None

    def _start(self) -> tuple[object, ...]:
        if self._reply is None:
            raise _no_supervisor()
        try:
            self._reply.sendall(b"G")
        except OSError:
            # The supervisor left before the word. It may have said why.
            return self._answer() or _NOBODY
        try:
            return self._answer()
        except TimeoutError:
            return ()

    def _answer(self) -> tuple[object, ...]:
        """One answer of the supervisor, or () when it has gone. Raises TimeoutError."""
        if self._reply is None:
            return ()
        try:
            head = self._reply.recv(2, socket.MSG_WAITALL)
            body = (
                self._reply.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL) if len(head) == 2 else b""
            )
        except (ConnectionResetError, BrokenPipeError):
            return ()
        answer = marshal.loads(body) if body else ()  # noqa: S302 - our own process
        return answer if isinstance(answer, tuple) else ()

    def _let_go(self) -> None:
        if self._reply is not None:
            self._reply.close()
            self._reply = None
        while self._held:
            os.close(self._held.pop())


def _no_supervisor() -> SpawnFailed:
    return SpawnFailed("no supervisor could be started, so the command did not run", "try again")
