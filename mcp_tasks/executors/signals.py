"""Signals as something to be polled. Standard library only."""

from __future__ import annotations

# The module behind `signal`: its enums would cost each supervisor a quarter of a megabyte of its own.
import _signal  # type: ignore[import-not-found]
import os
import signal

__all__ = ["drain", "route_signals"]

_ROUTED = tuple(map(int, (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)))


def route_signals() -> int:
    """Route signals into a pipe, and return its end to be polled.

    Handlers instead of SIG_IGN, because an ignored signal stays ignored over exec in the command.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    for number in _ROUTED:
        _signal.signal(number, _nothing)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def drain(descriptor: int) -> bytes:
    """What is in a pipe at this moment, as far as one read takes it."""
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""


def _nothing(_number: int, _frame: object) -> None:
    """The wake-up pipe has the signal already."""
