"""Which servers live: each holds a lock in `servers/` that the kernel takes back when it dies.

A process id would not do: it is given to somebody else some day, and means nothing in another container.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from contextlib import suppress
from pathlib import Path

from mcp_tasks.errors import StoreUnavailable

__all__ = ["LockedPresence", "SolePresence"]

_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_NEW = ".new"
_ID_CHARACTERS = frozenset("0123456789abcdef")


class LockedPresence:
    """See `ports.Presence`. Nothing is made before `begin`.

    Args:
        folder: Where the locks of all servers of the store are; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._id = secrets.token_hex(8)
        self._lock: int | None = None
        self._guard = threading.Lock()

    def begin(self) -> str:
        """See `ports.Presence`."""
        with self._guard:
            if self._lock is None:
                try:
                    self._lock = self._locked()
                except OSError as error:
                    raise StoreUnavailable(
                        f"the presence of a server cannot be shown ({error.strerror})",
                        "check the state directory",
                    ) from error
            return self._id

    def _locked(self) -> int:
        with suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        new = f"{self._folder}/{self._id}{_NEW}"
        lock = os.open(new, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Under its own name it is locked from the first moment, so nobody takes it for a dead one's.
            os.rename(new, f"{self._folder}/{self._id}")
        except OSError:
            os.close(lock)
            raise
        return lock

    def is_here(self, server_id: str) -> bool:
        """See `ports.Presence`."""
        if not server_id or not _ID_CHARACTERS.issuperset(server_id):
            return False
        if server_id == self._id:
            return self._lock is not None
        try:
            lock = os.open(f"{self._folder}/{server_id}", _FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(lock)
        return False

    def gone(self) -> list[str]:
        """See `ports.Presence`."""
        try:
            names = os.listdir(self._folder)
        except OSError:
            return []
        ids = (name.removesuffix(_NEW) for name in names)
        return sorted(server_id for server_id in ids if server_id != self._id and not self.is_here(server_id))

    def forget(self, server_id: str) -> None:
        """See `ports.Presence`."""
        if not server_id or not _ID_CHARACTERS.issuperset(server_id):
            return
        for name in (server_id, f"{server_id}{_NEW}"):
            with suppress(OSError):
                lock = os.open(f"{self._folder}/{name}", _FLAGS)
                try:
                    # One that begins in this moment, seen without its name and taken for gone, has it.
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(f"{self._folder}/{name}")
                finally:
                    os.close(lock)

    def end(self) -> None:
        """See `ports.Presence`."""
        with self._guard:
            if self._lock is not None:
                with suppress(OSError):
                    os.unlink(f"{self._folder}/{self._id}")
                os.close(self._lock)
                self._lock = None


class SolePresence:
    """See `ports.Presence`: the one server of a store that lives in its memory."""

    def __init__(self) -> None:
        self._id = secrets.token_hex(8)

    def begin(self) -> str:
        """See `ports.Presence`."""
        return self._id

    def is_here(self, server_id: str) -> bool:
        """See `ports.Presence`."""
        return server_id == self._id

    def gone(self) -> list[str]:
        """See `ports.Presence`."""
        return []

    def forget(self, server_id: str) -> None:
        """See `ports.Presence`."""

    def end(self) -> None:
        """See `ports.Presence`."""
