"""A state directory from a backup: checked before and after, and put in its place in one step."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from mcp_tasks.errors import InvalidArgument, StoreUnavailable, TaskNotFinished
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.removal import remove_tree
from mcp_tasks.stores.disk.syncing import synced_once
from mcp_tasks.transfer.backups import STATE, Backup
from mcp_tasks.transfer.files import copy_file
from mcp_tasks.transfer.manifest import Manifest, read_manifest
from mcp_tasks.transfer.places import refuse_nested

__all__ = ["check_backup", "copy_state", "restore_backup"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NAMED = 3


def check_backup(backup: Backup) -> Manifest:
    """Compare a backup with its manifest. Raises StoreUnavailable, which names the first differences."""
    manifest = backup.manifest or read_manifest(backup.path)
    found = list(manifest.problems(backup.path / STATE))
    if found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise StoreUnavailable(
            f"the backup {backup.name} is damaged: {'; '.join(found[:_NAMED])}{more}",
            "nothing was changed; take another backup",
        )
    return manifest


def restore_backup(backup: Backup, root: Path, *, replace: bool, at: int) -> Path | None:
    """Make a state directory of a backup.

    Args:
        backup: Checked first, to the last byte.
        root: The state directory; empty or missing.
        replace: One that is there is set aside, as `<root>.replaced-<at>`, and not removed.
        at: Now, ms since the epoch.

    Returns:
        Where the old one lies now; None where there was none.

    Raises:
        InvalidArgument: `root` holds something, and `replace` is false.
        TaskNotFinished: A command runs in the old one.
        StoreUnavailable: The backup is damaged, or the disk refused. `root` is as it was.
    """
    refuse_nested(backup.path, root)
    full = _holds_something(root)
    if full and not replace:
        raise InvalidArgument(
            f"{root} is not empty", "give another --dir, or --replace, which sets the old one aside"
        )
    if full:
        _refuse_running(root)
    manifest = check_backup(backup)
    draft = root.with_name(f".{root.name}.restoring")
    try:
        remove_tree(draft)
        root.parent.mkdir(parents=True, exist_ok=True)
        copy_state(backup.path / STATE, draft, manifest)
        if full:
            _refuse_running(root)  # it took a while
        aside = _put_in_place(draft, root, at, full=full)
        durable.fsync_folder(root.parent)
    except OSError as error:
        raise durable.unavailable("restoring a backup", error) from error
    finally:
        with suppress(StoreUnavailable):
            remove_tree(draft)
    return aside


def copy_state(source: Path, target: Path, manifest: Manifest) -> None:
    """Copy every file that a manifest names, and compare. Raises StoreUnavailable, OSError."""
    durable.make_private_folder(target)
    with synced_once(target):
        _copy_files(source, target, manifest)
    for problem in manifest.problems(target):
        raise StoreUnavailable(f"the copy of the backup is not like it: {problem}", "try again")


def _copy_files(source: Path, target: Path, manifest: Manifest) -> None:
    made: set[Path] = {target}
    for name in manifest.files:
        folder = (target / name).parent
        for place in reversed((folder, *folder.parents)):
            if place not in made and target in place.parents:
                durable.make_private_folder(place)
                made.add(place)
        try:
            copy_file(os.fspath(source / name), os.fspath(target / name))
        except ValueError as error:
            raise StoreUnavailable(f"{name} of the backup cannot be copied: {error}") from error
    for place in made:
        durable.fsync_folder(place)


def _holds_something(root: Path) -> bool:
    try:
        return bool(os.listdir(root))
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise InvalidArgument(f"{root} is no folder", "give another --dir") from None
    except OSError as error:
        raise durable.unavailable("reading the state directory", error) from error


def _put_in_place(draft: Path, root: Path, at: int, *, full: bool) -> Path | None:
    """Give a whole copy its name; what had it is set aside, and gets it back where that fails."""
    aside = root.with_name(f"{root.name}.replaced-{at}") if full else None
    if aside is not None:
        os.rename(root, aside)
    else:
        with suppress(FileNotFoundError):
            os.rmdir(root)
    try:
        os.rename(draft, root)
    except OSError:
        if aside is not None:
            os.rename(aside, root)
        raise
    return aside


def _refuse_running(root: Path) -> None:
    """A supervisor holds the lock of its run's folder for as long as it lives."""
    for folder in root.glob("sessions/*/*/runs/*/"):
        try:
            descriptor = os.open(folder, _FOLDER)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TaskNotFinished(
                f"task {folder.name.partition('.')[0]} is running in {root}",
                "cancel it, or wait for its end, and end the servers",
            ) from None
        finally:
            os.close(descriptor)
