"""A memory store in a folder of its own among the temporary files, which goes when the store does.

A server that is killed cannot remove its folder, so the next one does. The lock tells which are in use.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.stores.disk.removal import remove_tree
from mcp_tasks.stores.memory.finished import Room
from mcp_tasks.stores.memory.store import MemoryStore

__all__ = ["TemporaryStore", "remove_stale_folders"]

_PREFIX = "mcp-tasks-memory-"
_LOCK = "lock"
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_LOOK = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
# Between making a folder and locking it there is a moment that somebody else must not misjudge.
_NEW_SECONDS = 60.0


class TemporaryStore(MemoryStore):
    """Implements `mcp_tasks.ports.Store` in memory; the output goes to a folder that nobody else uses.

    Raises:
        OSError: There is no room for the folder.
    """

    def __init__(self, room: Room | None = None) -> None:
        """Make the folder.

        Args:
            room: See `MemoryStore`.
        """
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            self._held = os.open(self._folder / _LOCK, _OPEN, 0o600)
            try:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                super().__init__(self._folder, room)
            except BaseException:
                os.close(self._held)
                raise
        except BaseException:
            self._take_back()
            raise

    def _take_back(self) -> None:
        # Without a descriptor more: there may be none to be had.
        for remove, path in (
            (os.unlink, self._folder / _LOCK),
            (os.rmdir, self._folder / "slots"),
            (os.rmdir, self._folder),
        ):
            with suppress(OSError):
                remove(path)

    def close(self) -> None:
        """Forget every record, and remove every file."""
        super().close()
        with suppress(StoreUnavailable):  # the next server tries again
            remove_tree(self._folder)
        os.close(self._held)


def remove_stale_folders() -> None:
    """Remove what servers that were killed have left, unless something of theirs still runs. Blocking."""
    place = Path(tempfile.gettempdir())
    with suppress(OSError):
        for name in os.listdir(place):
            if name.startswith(_PREFIX):
                with suppress(OSError, StoreUnavailable):
                    _remove_if_stale(place / name)


def _remove_if_stale(folder: Path) -> None:
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    places = [folder / _LOCK]
    with suppress(FileNotFoundError):
        # A supervisor holds its place until it has written down the end of its command.
        places += [folder / "slots" / number for number in os.listdir(folder / "slots")]
    held: list[int] = []
    try:
        for place in places:
            try:
                held.append(os.open(place, _LOOK))
                fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except FileNotFoundError:
                if time.time() - found.st_mtime < _NEW_SECONDS:
                    return
            except BlockingIOError:
                return
        remove_tree(folder)
    finally:
        for descriptor in held:
            os.close(descriptor)
