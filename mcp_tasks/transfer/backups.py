"""Copies of a whole state directory that are made while servers write to it, checked and rotated.

`<backups>/<UTC stamp>-<n>/` holds `state/`, a state directory that can be used as it is, and
`manifest.json`. It gets this name when it is whole and checked, and has another one until then.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mcp_tasks.errors import InvalidArgument, StoreUnavailable
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.locks import ProcessLock
from mcp_tasks.stores.disk.removal import remove_tree
from mcp_tasks.stores.disk.syncing import synced_once
from mcp_tasks.transfer.beside import copy_beside
from mcp_tasks.transfer.manifest import MANIFEST, Manifest, read_manifest, take_manifest
from mcp_tasks.transfer.places import OpenPlace, Place, refuse_nested
from mcp_tasks.transfer.sessions import Seen, Totals, Transfer

__all__ = ["STATE", "Backup", "all_backups", "find_backup", "make_backup", "rotate"]

STATE = "state"
_NAME = re.compile(r"\d{8}T\d{6}Z-[1-9]\d*", re.ASCII)
_DRAFT = ".making-"
_LOCK_S = 1.0
# What only the machine that made it could use, and what is derived from the records anyway.
_TRANSIENT_FILES = frozenset(("boot", "lock"))
_TRANSIENT_FOLDERS = ("active", "pending", "held", "trash", "slots")


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup; `problem` says why it cannot be used, and then `manifest` is None."""

    path: Path
    manifest: Manifest | None
    problem: str | None = None

    @property
    def name(self) -> str:
        """`<UTC stamp>-<n>`; sorts by time."""
        return self.path.name


def make_backup(
    source: Place, folder: Path, open_place: OpenPlace, *, at: int, seen: Seen, keep: int
) -> Backup:
    """Copy a state directory as it is now, check the copy, and remove the oldest backups of it.

    Args:
        source: May be in use by any number of servers.
        folder: Where the backups are; made where it is missing.
        open_place: Makes the copy's store and journal.
        at: Now, ms since the epoch.
        seen: How to look at a task that is not final by its record.
        keep: How many backups stay, this one included.

    Raises:
        InvalidArgument: `folder` lies in the state directory, or the other way round.
        StoreUnavailable: It could not be made; nothing is left of it, and no other was removed.
        StoreBusy: Another process is making one in the same folder.
    """
    refuse_nested(source.root, folder)
    with _alone(folder):
        draft = folder / f"{_DRAFT}{os.getpid()}"
        try:
            durable.make_private_folder(draft)
            with synced_once(draft):
                totals = _fill(source, draft / STATE, open_place, at, seen)
            manifest = take_manifest(
                draft / STATE, made_at=at, adapter=source.adapter, source=source.root, totals=totals
            )
            durable.write_durably(draft / MANIFEST, manifest.encode())
            path = _free_name(folder, at)
            os.rename(draft, path)
            durable.fsync_folder(folder)
        except OSError as error:
            with suppress(StoreUnavailable):
                remove_tree(draft)
            raise durable.unavailable("making a backup", error) from error
        except BaseException:
            with suppress(StoreUnavailable):
                remove_tree(draft)
            raise
        # Those of other state directories in the same folder are none of ours.
        _rotate(folder, _by_source(folder)[os.path.realpath(source.root)], keep)
        return Backup(path, manifest)


def all_backups(folder: Path) -> list[Backup]:
    """The backups in a folder, newest first, as their manifests tell. Raises StoreUnavailable."""
    try:
        names = sorted(
            (name for name in os.listdir(folder) if _NAME.fullmatch(name)), key=_order, reverse=True
        )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise durable.unavailable("listing backups", error) from error
    return [_described(folder / name) for name in names]


def find_backup(folder: Path, name: str | None, of: Path | None = None) -> Backup:
    """A backup by its name or path, or the newest that is whole.

    Args:
        folder: Where the backups are; those of several state directories may lie there.
        name: Of the backup; None for the newest.
        of: The state directory of which the newest is meant where no name is given; None for the only one
            of which there are any.

    Raises:
        InvalidArgument: There is none, or nobody can tell which is meant.
        StoreUnavailable: It is not whole.
    """
    if name is not None:
        path = Path(name).expanduser() if os.sep in name or os.path.isdir(name) else folder / name
        if not path.is_dir():
            raise InvalidArgument(f"there is no backup {name}", "`mcp-tasks store backups` lists them")
        return Backup(path.absolute(), read_manifest(path))
    whole = _by_source(folder)
    if not whole:
        raise InvalidArgument(f"there is no backup in {folder}", "`mcp-tasks store backup` makes one")
    if of is not None:
        ours = whole.get(os.path.realpath(of))
        if ours is None:
            newest = max((each[0] for each in whole.values()), key=lambda backup: _order(backup.name))
            raise InvalidArgument(
                f"there is no backup of {of} in {folder}",
                f"name one of another state directory by its path, as {newest.path}",
            )
    elif len(whole) > 1:
        raise InvalidArgument(
            f"there are backups of several state directories in {folder}",
            "name one of those that `mcp-tasks store backups` lists",
        )
    else:
        (ours,) = whole.values()
    return ours[0]


def _by_source(folder: Path) -> dict[str, list[Backup]]:
    """The whole backups of each state directory, newest first."""
    found: dict[str, list[Backup]] = {}
    for backup in all_backups(folder):
        if backup.manifest is not None:
            found.setdefault(os.path.realpath(backup.manifest.source), []).append(backup)
    return found


def rotate(folder: Path, keep: int) -> list[str]:
    """Remove the oldest backups until `keep` of each state directory are left; returns their names.

    What is not whole is not counted and stays; the newest whole one of a directory never goes.
    """
    with _alone(folder):
        return [name for whole in _by_source(folder).values() for name in _rotate(folder, whole, keep)]


def _rotate(folder: Path, whole: list[Backup], keep: int) -> list[str]:
    removed: list[str] = []
    for backup in reversed(whole[max(1, keep) :]):
        gone = folder / f"{_DRAFT}{backup.name}"
        try:
            os.rename(backup.path, gone)
            remove_tree(gone)
        except OSError as error:
            raise durable.unavailable("removing an old backup", error) from error
        removed.append(backup.name)
    return removed


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only one who makes or removes backups there; remove what a killed one left."""
    try:
        for place in reversed((folder, *folder.parents)):
            if not os.path.lexists(place):
                durable.make_private_folder(place)
                durable.fsync_folder(place.parent)
        if os.lstat(folder).st_mode & 0o077:
            durable.make_private_folder(folder)
    except OSError as error:
        raise durable.unavailable("making the folder of backups", error) from error
    with ProcessLock(os.fspath(folder / ".lock"), _LOCK_S).held():
        for name in os.listdir(folder):
            if name.startswith(_DRAFT):
                remove_tree(folder / name)
        yield


def _fill(source: Place, root: Path, open_place: OpenPlace, at: int, seen: Seen) -> Totals:
    durable.make_private_folder(root)
    target = open_place(root, source.adapter)
    try:
        transfer = Transfer(source, target, at, live=True, seen=seen)
        totals = Totals()
        source.journal.flush()
        for session in source.store.sessions():
            totals += transfer.copy(session)
        target.journal.flush()
        copy_beside(source.root, root)
    finally:
        target.close()
    _strip(root)
    return totals


def _strip(root: Path) -> None:
    """Remove what belongs to a machine and a moment; a store makes it anew when it is opened."""
    for name in _TRANSIENT_FOLDERS:
        remove_tree(root / name)
    for folder, _, names in os.walk(root):
        for name in names:
            if name in _TRANSIENT_FILES or name.endswith((".lock", "-shm")):
                os.unlink(os.path.join(folder, name))


def _free_name(folder: Path, at: int) -> Path:
    stamp = datetime.fromtimestamp(at / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    number = 1
    while os.path.lexists(folder / f"{stamp}-{number}"):
        number += 1
    return folder / f"{stamp}-{number}"


def _order(name: str) -> tuple[str, int]:
    stamp, _, number = name.partition("-")
    return stamp, int(number)


def _described(path: Path) -> Backup:
    try:
        return Backup(path, read_manifest(path))
    except StoreUnavailable as error:
        return Backup(path, None, error.message)
