"""The few ways in which bytes reach the disk, and come back.

A write is over when it would survive a power cut: a temporary file in the same folder, fsync,
rename, fsync of the folder. No link is ever followed. What the kernel refuses becomes
StoreUnavailable, which names the error but no path; the path goes to the log.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeAlias, TypeVar

from mcp_tasks.codec import MAX_RECORD_BYTES
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.stores.disk.syncing import sync

__all__ = [
    "Report",
    "UnsafeFile",
    "create_exclusively",
    "fsync_folder",
    "make_private_folder",
    "read_private",
    "read_with_stat",
    "real_folder",
    "remove_stale_temporaries",
    "unavailable",
    "write_durably",
]

_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
AnyPath: TypeAlias = str | os.PathLike[str]
Report: TypeAlias = Callable[[str], None]

STALE_SECONDS = 60.0
"""A temporary file older than this has no writer any more."""

_POSIX = os.name == "posix"
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS
_READ = os.O_RDONLY | _NO_LINKS | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NO_LINKS
_GONE = (FileNotFoundError, NotADirectoryError)
_HINTS = {
    errno.ENOSPC: "free some disk space and try again",
    errno.EDQUOT: "free some of the disk quota and try again",
    errno.EMFILE: "too many files are open in this process; try again",
    errno.ENFILE: "too many files are open on this machine; try again",
    errno.EROFS: "the file system is mounted for reading only",
    errno.EACCES: "the state directory must be writable for the user of the server",
}


class UnsafeFile(StoreUnavailable):
    """A link, a foreign owner or another kind of file stands where a file of ours should be."""


def unavailable(action: str, error: OSError) -> StoreUnavailable:
    """Turn what the kernel said into StoreUnavailable.

    Args:
        action: What failed, as `writing a record`.
        error: Its text, which may hold paths, goes to the log only.
    """
    _log.warning("%s failed: %s", action, error)
    number = error.errno or 0
    name = errno.errorcode.get(number, "EUNKNOWN")
    return StoreUnavailable(
        f"{action} failed: {name} ({os.strerror(number)})", _HINTS.get(number, "try again; see `doctor`")
    )


def write_durably(path: AnyPath, data: bytes, *, previous: bytes | None = None) -> None:
    """Put `data` in place of whatever `path` was, all or nothing, safe from a power cut.

    Args:
        path: The file. Its folder must exist.
        data: The whole content.
        previous: What to put back when the very last step, the fsync of the folder, fails after
            the rename; None removes the file then.

    Raises:
        StoreUnavailable: Nothing was changed.
    """
    target = os.fspath(path)
    folder, name = os.path.split(target)
    try:
        temporary = _write_temporary(folder, name, data)
        try:
            os.replace(temporary, target)
        except BaseException:
            _discard(temporary)
            raise
        try:
            _fsync_folder(folder)
        except OSError:
            _put_back(folder, name, previous)
            raise
    except OSError as error:
        raise unavailable("writing a record", error) from error


def create_exclusively(path: AnyPath, data: bytes) -> bool:
    """Put `data` at `path` durably unless something is there, which then stays as it is.

    Returns:
        Whether the file is ours; False where something existed.

    Raises:
        StoreUnavailable: Nothing was changed.
    """
    target = os.fspath(path)
    folder, name = os.path.split(target)
    try:
        temporary = _write_temporary(folder, name, data)
        try:
            os.link(temporary, target, follow_symlinks=False)
        except FileExistsError:
            return False
        finally:
            _discard(temporary)
        try:
            _fsync_folder(folder)
        except OSError:
            _discard(target)
            raise
    except OSError as error:
        raise unavailable("writing a record", error) from error
    return True


def fsync_folder(path: AnyPath) -> None:
    """Make the names in a folder durable. Raises StoreUnavailable."""
    try:
        _fsync_folder(os.fspath(path))
    except OSError as error:
        raise unavailable("syncing a folder", error) from error


def make_private_folder(path: AnyPath, report: Report | None = None) -> bool:
    """Make sure that `path` is a folder of ours that nobody else can enter.

    Args:
        path: The folder. Its parent must exist.
        report: Told in a sentence when wider modes had to be narrowed.

    Returns:
        Whether the folder is new.

    Raises:
        UnsafeFile: A link, a file, or another user's folder is there.
        StoreUnavailable: The kernel refused.
    """
    target = os.fspath(path)
    try:
        try:
            os.mkdir(target, 0o700)
            created = True
        except FileExistsError:
            created = False
        try:
            found = os.lstat(target)
        except OSError:
            if created:
                with suppress(OSError):
                    os.rmdir(target)
            raise
        what = f"the folder {os.path.basename(target)!r}"
        if not stat.S_ISDIR(found.st_mode):
            raise UnsafeFile(f"{what} is a link or no folder", "remove it, or name the real folder")
        _refuse_other_owner(what, found)
        if _POSIX and (found.st_mode & 0o077 or found.st_mode & 0o700 != 0o700):
            _narrow(target, _FOLDER, 0o700)
            if report is not None and not created:
                report(f"{what} was open to others (mode {stat.S_IMODE(found.st_mode):04o}); now 0700")
    except OSError as error:
        raise unavailable("making a folder", error) from error
    return created


def real_folder(root: str, *names: str) -> str:
    """Walk from `root` down and make sure that every step is a folder and no link.

    Returns:
        The path of the last folder.

    Raises:
        FileNotFoundError: A step does not exist.
        UnsafeFile: A step is a link or a file.
        StoreUnavailable: The kernel refused.
    """
    place = root
    try:
        for name in names:
            place = f"{place}/{name}"
            if not stat.S_ISDIR(os.lstat(place).st_mode):
                raise UnsafeFile(f"the folder {name!r} is a link or no folder", "remove it by hand")
    except _GONE as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place) from error
    except OSError as error:
        raise unavailable("reading a folder", error) from error
    return place


def read_private(path: AnyPath, limit: int = MAX_RECORD_BYTES, report: Report | None = None) -> bytes:
    """Read a small file of ours; see `read_with_stat`."""
    return read_with_stat(path, limit, report)[0]


def read_with_stat(
    path: AnyPath, limit: int = MAX_RECORD_BYTES, report: Report | None = None
) -> tuple[bytes, os.stat_result]:
    """Read a small file of ours, and what was true of it when it was opened.

    Args:
        path: The file. A link is not followed, a FIFO does not block.
        limit: Bytes; a larger file is not ours.
        report: Told in a sentence when wider modes had to be narrowed.

    Raises:
        FileNotFoundError: There is no such file.
        UnsafeFile: A link, no regular file, another owner's, or too large.
        StoreUnavailable: The kernel refused.
    """
    target = os.fspath(path)
    what = f"the file {os.path.basename(target)!r}"
    try:
        fd = _again(os.open, target, _READ)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise UnsafeFile(f"{what} is no regular file")
            _refuse_other_owner(what, found)
            if found.st_size > limit:
                raise UnsafeFile(f"{what} is larger than {limit} bytes")
            if _POSIX and found.st_mode & 0o077:
                os.fchmod(fd, 0o600)
                if report is not None:
                    report(f"{what} was open to others (mode {stat.S_IMODE(found.st_mode):04o}); now 0600")
            return _read_all(fd, found.st_size, limit), found
        finally:
            os.close(fd)
    except _GONE as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), target) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EACCES, errno.ENXIO):
            raise UnsafeFile(f"{what} is a link or may not be read") from error
        raise unavailable("reading a record", error) from error


def remove_stale_temporaries(folder: AnyPath, now: float | None = None) -> None:
    """Remove what writers that were killed left in a folder. Whatever cannot be removed stays.

    Args:
        folder: Only this folder is looked at, none below.
        now: Seconds since the epoch.
    """
    moment = time.time() if now is None else now
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(".tmp"):
                _remove_if_stale(entry.path, moment)


def _remove_if_stale(path: str, now: float) -> None:
    with suppress(OSError):
        if now - os.lstat(path).st_mtime > STALE_SECONDS:
            os.unlink(path)


def _write_temporary(folder: str, name: str, data: bytes) -> str:
    temporary, fd = _open_temporary(folder, name)
    try:
        try:
            if _POSIX:
                os.fchmod(fd, 0o600)  # whatever the umask says
            rest = memoryview(data)
            while rest:
                rest = rest[_again(os.write, fd, rest) :]
            sync(fd)
        finally:
            os.close(fd)
    except BaseException:
        _discard(temporary)
        raise
    return temporary


def _open_temporary(folder: str, name: str) -> tuple[str, int]:
    # One fixed name first: a writer that was killed leaves one file at most, and the next writer
    # finds it without a look through the folder.
    temporary = f"{folder}/.{name}.tmp"
    try:
        return temporary, _again(os.open, temporary, _CREATE, 0o600)
    except FileExistsError:
        remove_stale_temporaries(folder)
    temporary = f"{folder}/.{name}.{secrets.token_hex(8)}.tmp"
    return temporary, _again(os.open, temporary, _CREATE, 0o600)


def _put_back(folder: str, name: str, previous: bytes | None) -> None:
    # The disk has just failed, so this is not durable; it makes this machine's view honest again.
    target = f"{folder}/{name}"
    if previous is None:
        _discard(target)
        return
    temporary = f"{folder}/.{name}.{secrets.token_hex(8)}.tmp"
    with suppress(OSError):
        fd = os.open(temporary, _CREATE, 0o600)
        try:
            rest = memoryview(previous)
            while rest:
                rest = rest[os.write(fd, rest) :]
        finally:
            os.close(fd)
        os.replace(temporary, target)
    _discard(temporary)


def _discard(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _fsync_folder(path: str) -> None:
    if not _POSIX:
        return  # Windows has no such call; its renames are journalled
    fd = _again(os.open, path, _FOLDER)
    try:
        sync(fd)
    finally:
        os.close(fd)


def _again(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    while True:
        try:
            return call(*args, **kwargs)
        except InterruptedError:
            continue


def _read_all(fd: int, size: int, limit: int) -> bytes:
    pieces: list[bytes] = []
    got = 0
    while piece := _again(os.read, fd, max(size + 1 - got, 4096)):
        pieces.append(piece)
        got += len(piece)
        if got > limit:
            raise UnsafeFile(f"a file grew beyond {limit} bytes while it was read")
    return b"".join(pieces)


def _refuse_other_owner(what: str, found: os.stat_result) -> None:
    if _POSIX and found.st_uid != os.geteuid():
        raise UnsafeFile(
            f"{what} belongs to another user", "run as its owner, or use another state directory"
        )


def _narrow(path: str, flags: int, mode: int) -> None:
    try:
        fd = os.open(path, flags)
    except PermissionError:
        os.chmod(path, mode)  # not even readable for us; its parent is private, so no link can slip in
        return
    try:
        os.fchmod(fd, mode)
    finally:
        os.close(fd)
