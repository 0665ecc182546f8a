"""What lies beside the sessions in a state directory and belongs to no adapter: archives, audit, cleanups."""

from __future__ import annotations

import os
from pathlib import Path

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.stores.disk import durable
from mcp_tasks.transfer.files import Copied, copy_file, digest_of

__all__ = ["ARCHIVES", "copy_beside"]

ARCHIVES = "archive"
_FILES = ("audit.jsonl", "cleanup.json")


def copy_beside(source: Path, target: Path) -> Copied:
    """Copy archives, audit log and record of cleanups; a file that the target has already stays.

    The small file that tells of an archive comes after the archive, as when it is written.

    Raises:
        StoreUnavailable: What was copied is whole, and stays.
    """
    copied = Copied()
    try:
        for owner in _listed(source / ARCHIVES):
            origin = source / ARCHIVES / owner
            if not os.path.isdir(origin) or os.path.islink(origin):
                continue
            for folder in (target / ARCHIVES, target / ARCHIVES / owner):
                durable.make_private_folder(folder)
            names = [name for name in _listed(origin) if not name.startswith(".")]
            for name in sorted(names, key=lambda name: (name.endswith(".json"), name)):
                copied += _copy(origin / name, target / ARCHIVES / owner / name)
            durable.fsync_folder(target / ARCHIVES / owner)
        for name in _FILES:
            copied += _copy(source / name, target / name)
        durable.fsync_folder(target)
    except ValueError as error:
        raise StoreUnavailable(f"an archive cannot be copied: {error}") from error
    except OSError as error:
        raise durable.unavailable("copying archives", error) from error
    return copied


def _copy(source: Path, target: Path) -> Copied:
    if os.path.lexists(target):
        return Copied()
    try:
        size = copy_file(os.fspath(source), os.fspath(target))
    except FileNotFoundError:
        return Copied()
    if digest_of(os.fspath(target)) != digest_of(os.fspath(source), size):
        os.unlink(target)
        raise StoreUnavailable(f"the copy of {source.name} differs from it", "try again")
    return Copied(1, size)


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
