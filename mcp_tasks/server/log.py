"""The log of a server: stderr, and never at the price of a blocked server.

stderr is a pipe that some clients never read. Full, it would stop the event loop in the middle of a
log record; so a record that does not fit is dropped, and the next one that does says how many were.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
from collections.abc import Collection
from typing import Final

from mcp_tasks.redaction import redact_text, secret_values

__all__ = ["RedactingFormatter", "StderrHandler", "log_to_stderr"]

_LONGEST: Final = 16_384
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BUT_NEWLINES: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class RedactingFormatter(logging.Formatter):
    """Formats records and takes the secrets out, those of tracebacks too.

    A record may bring values of its own that must not be seen: `extra={"secret_values": [...]}`.

    Args:
        values: What must not be seen in any record.
    """

    def __init__(self, values: Collection[str] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._values = tuple(values)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The first line of a record: what somebody else has written into it makes no line of its own."""
        return _CONTROLS.sub(_escaped, super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record, of any length, without secrets."""
        text = _BUT_NEWLINES.sub(_escaped, super().format(record))
        # A little more than is ever written, so that no secret is cut before it is seen.
        return redact_text(text[: _LONGEST * 4], (*self._values, *getattr(record, "secret_values", ())))


def _escaped(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"


class StderrHandler(logging.Handler):
    """Writes records to a descriptor as far as that does not block."""

    def __init__(self, descriptor: int = 2) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._dropped = 0
        self._state = select.poll()
        self._state.register(descriptor, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, or count it as dropped."""
        with contextlib.suppress(OSError):  # nobody is there to be told
            try:
                text = self.format(record)
            except Exception:  # noqa: BLE001 - a record that cannot be formatted must not end the server
                text = f"{record.levelname} {record.name}: a record that cannot be formatted"
            if self._dropped:
                text = f"({self._dropped} records dropped)\n{text}"
            written = self._write(f"{text[:_LONGEST]}\n".encode(errors="replace"))
            self._dropped = 0 if written else self._dropped + 1

    def _write(self, line: bytes) -> bool:
        started = False
        while line and self._state.poll(0):
            started = True
            line = line[os.write(self._descriptor, line[: select.PIPE_BUF]) :]
        return started


def log_to_stderr() -> None:
    """Send warnings, and what this package has to tell, to stderr, unless logging is set up already."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = StderrHandler()
    handler.setFormatter(RedactingFormatter(secret_values(os.environ)))
    root.addHandler(handler)
    logging.getLogger("mcp_tasks").setLevel(logging.INFO)
