"""How a folder is removed with all that is in it, and nothing that is not."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from mcp_tasks.stores.disk.durable import unavailable

__all__ = ["remove_tree"]

_FOLDER = (
    os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
)
_BY_DESCRIPTOR = os.scandir in os.supports_fd and os.open in os.supports_dir_fd


def remove_tree(path: str | os.PathLike[str]) -> int:
    """Remove a file, a link or a whole folder; links inside are removed and never followed.

    Returns:
        The sizes of the regular files that are gone, in bytes. Nothing there is 0.

    Raises:
        StoreUnavailable: Something is left.
    """
    try:
        return _remove(os.fspath(path))
    except OSError as error:
        raise unavailable("removing files", error) from error


def _remove(path: str) -> int:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return 0
    if not stat.S_ISDIR(found.st_mode):
        return _unlink(path, None, found)
    freed = 0
    if _BY_DESCRIPTOR:
        try:
            fd = os.open(path, _FOLDER)
        except FileNotFoundError:
            return 0  # another process is removing the same
        try:
            freed = _empty(fd)
        finally:
            os.close(fd)
    else:  # pragma: no cover (Windows)
        with os.scandir(path) as entries:
            for entry in list(entries):
                freed += _remove(entry.path)
    with suppress(FileNotFoundError):
        os.rmdir(path)
    return freed


def _empty(folder: int) -> int:
    freed = 0
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        with suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                freed += _unlink(name, folder, found)
                continue
            inner = os.open(name, _FOLDER, dir_fd=folder)
            try:
                freed += _empty(inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=folder)
    return freed


def _unlink(name: str, folder: int | None, found: os.stat_result) -> int:
    os.unlink(name, dir_fd=folder)
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
