"""A state directory that is to hold a secret before, or without, any store in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.stores.disk.durable import unavailable

__all__ = ["make_safe_folder"]


def make_safe_folder(folder: Path) -> None:
    """Make the folder where it is missing; one that others may write to is no place for a secret.

    A store has looked at it already; the memory store has none.

    Raises:
        StoreUnavailable: It is no such place, or cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(folder)
    except OSError as error:
        raise unavailable("making a folder", error) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise StoreUnavailable(
            "the state directory is a link, or others may write to it", "set MCP_TASKS_DIR to another folder"
        )
