"""The audit log: one line of JSON for each thing that was done to somebody's sessions.

Lines are only ever appended, each with one write to a descriptor in append mode and an fsync. What a
process that was killed left half written is ended by the next writer, and left out by readers.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any

from mcp_tasks.redaction import redact_value

__all__ = ["AuditFile", "AuditInMemory"]

_log = logging.getLogger(__name__)

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LONGEST = 16_384
_BLOCK = 65_536
_MOST_IN_MEMORY = 10_000


class AuditFile:
    """Implements `ports.Audit` over `audit.jsonl` in a state directory. Safe for many processes.

    Args:
        folder: The state directory, which must exist when the first entry is added.
        now: Seconds since the epoch.
    """

    def __init__(self, folder: Path, now: Callable[[], float] = time) -> None:
        self._path = folder / "audit.jsonl"
        self._now = now
        self._guard = threading.Lock()

    def note(
        self,
        action: str,
        *,
        owner: str,
        session: str | None = None,
        by: str,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """See `ports.Audit`. The detail is redacted."""
        try:
            line = _line(_entry(self._now(), action, owner, session, by, detail))
            with self._guard:
                self._append(line)
        except Exception as error:  # noqa: BLE001 - what is being done must not fail for want of a note of it
            _log.warning("the audit log misses that %s was done to a session: %s", action, error)

    def read(self, *, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        """See `ports.Audit`. Lines that are damaged are left out."""
        found: list[Mapping[str, Any]] = []
        try:
            descriptor = os.open(self._path, os.O_RDONLY | _FLAGS)
        except FileNotFoundError:
            return found
        except OSError as error:
            _log.warning("the audit log cannot be read: %s", error.strerror)
            return found
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                _log.warning("the audit log is no regular file")
                return found
            for line in _lines_from_the_end(descriptor):
                if len(found) >= limit:
                    break
                if (entry := _parsed(line)) is not None:
                    found.append(entry)
        except OSError as error:
            _log.warning("the audit log cannot be read to its beginning: %s", error.strerror)
        finally:
            os.close(descriptor)
        return found

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _FLAGS, 0o600)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise OSError("it is no file of this user")
            if found.st_mode & 0o077:
                os.fchmod(descriptor, 0o600)
            if found.st_size and os.pread(descriptor, 1, found.st_size - 1) != b"\n":
                line = b"\n" + line
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not found.st_size:
            self._sync_folder()

    def _sync_folder(self) -> None:
        descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class AuditInMemory:
    """Implements `ports.Audit` for as long as this process lives."""

    def __init__(self, now: Callable[[], float] = time) -> None:
        self._now = now
        self._entries: deque[Mapping[str, Any]] = deque(maxlen=_MOST_IN_MEMORY)

    def note(
        self,
        action: str,
        *,
        owner: str,
        session: str | None = None,
        by: str,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """See `ports.Audit`."""
        self._entries.appendleft(_entry(self._now(), action, owner, session, by, detail))

    def read(self, *, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        """See `ports.Audit`."""
        return list(self._entries)[:limit]


def _entry(  # noqa: PLR0917 - the fields of an entry, in their order
    now: float, action: str, owner: str, session: str | None, by: str, detail: Mapping[str, Any] | None
) -> dict[str, Any]:
    moment = datetime.fromtimestamp(now, UTC)
    return {
        "at": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z",
        "action": action,
        "owner": owner,
        "session": session,
        "by": by,
        "detail": redact_value(detail or {}),
    }


def _line(entry: dict[str, Any]) -> bytes:
    line = json.dumps(entry, default=str).encode()
    if len(line) > _LONGEST:
        line = json.dumps({**entry, "detail": {"left_out_bytes": len(line)}}).encode()
    return line + b"\n"


def _parsed(line: bytes) -> Mapping[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "action" in entry else None


def _lines_from_the_end(descriptor: int) -> Iterator[bytes]:
    end = os.fstat(descriptor).st_size
    rest = b""
    while end > 0:
        start = max(0, end - _BLOCK)
        first, *lines = (os.pread(descriptor, end - start, start) + rest).split(b"\n")
        yield from reversed(lines)
        rest, end = first, start
    yield rest
