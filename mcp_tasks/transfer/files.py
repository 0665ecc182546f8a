"""How files of output are copied: cheaply where the file system can, holes as holes, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.stores.disk.durable import fsync_folder, unavailable
from mcp_tasks.stores.disk.syncing import sync

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows)
    _CLONE = None
else:
    _CLONE = getattr(fcntl, "ioctl", None)

__all__ = ["Copied", "Digest", "copy_file", "copy_run", "digest_of", "open_to_read", "run_files"]

_FICLONE = 0x40049409  # ioctl_ficlone(2)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20
_MOST_AT_ONCE = 1 << 30
# What only the living use, or what a later run would be started from.
_LEFT_OUT = frozenset(("launch", "started", "exit.tmp", "started.tmp"))
_NOT_THIS_WAY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM)


class Digest(Protocol):
    """A running SHA-256."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes in."""
        ...

    def hexdigest(self) -> str:
        """What they amount to so far."""
        ...


@dataclass(frozen=True, slots=True)
class Copied:
    """What came out of copying: files and their bytes."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Copied) -> Copied:
        return Copied(self.files + other.files, self.bytes + other.bytes)


def open_to_read(path: str) -> int:
    """A descriptor of a regular file, no link followed. Raises OSError, ValueError for another kind."""
    descriptor = os.open(path, _READ)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def digest_of(path: str, size: int | None = None) -> tuple[int, str]:
    """Bytes and SHA-256 of a file, or of its first `size` bytes. Raises OSError, ValueError."""
    descriptor = open_to_read(path)
    try:
        digest, read = hashlib.sha256(), 0
        while size is None or read < size:
            data = os.read(descriptor, _PIECE if size is None else min(_PIECE, size - read))
            if not data:
                break
            digest.update(data)
            read += len(data)
        return read, digest.hexdigest()
    finally:
        os.close(descriptor)


def copy_file(source: str, target: str) -> int:
    """Copy a file as it is now, with its moment of change, so that it survives a power cut.

    The name is the caller's to make durable. Blocks are shared where the file system can.

    Returns:
        The bytes of the copy.

    Raises:
        OSError: There is nothing new under `target`.
        ValueError: The source is no regular file.
    """
    origin = open_to_read(source)
    try:
        found = os.fstat(origin)
        folder, name = os.path.split(target)
        draft = f"{folder}/.{name}.part"
        with suppress(FileNotFoundError):
            os.unlink(draft)
        copy = os.open(draft, _CREATE, 0o600)
        try:
            try:
                os.fchmod(copy, 0o600)
                if not _cloned(origin, copy):
                    for begin, end in _extents(origin, found.st_size):
                        _copy_range(origin, copy, begin, end)
                    os.ftruncate(copy, found.st_size)
                os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
                sync(copy)
                size = os.fstat(copy).st_size
            finally:
                os.close(copy)
            os.replace(draft, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(draft)
            raise
        return size
    finally:
        os.close(origin)


def run_files(folder: str) -> list[str]:
    """Names of the files of a run that are worth keeping: its output and its exit record."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.is_file(follow_symlinks=False)
                and entry.name not in _LEFT_OUT
                and not entry.name.startswith(".")
            )
    except FileNotFoundError:
        return []


def copy_run(source: str, target: str, but: Collection[str] = (), *, compare: bool = False) -> Copied:
    """Copy what is worth keeping of a run into a folder that exists; what is there already stays.

    A file is taken for the same where size and moment of change are, and with `compare` its bytes. Files
    named in `but` are left out, and so is one that goes meanwhile (an old piece of a tail).

    Raises:
        StoreUnavailable: Some of it may have been copied.
    """
    copied = Copied()
    try:
        for name in run_files(source):
            try:
                if name not in but and not _is_same(f"{source}/{name}", f"{target}/{name}", compare):
                    copied += Copied(1, copy_file(f"{source}/{name}", f"{target}/{name}"))
            except FileNotFoundError:
                if not os.path.isdir(target):
                    raise
    except ValueError as error:
        raise StoreUnavailable(f"a file of a run cannot be copied: {error}") from error
    except OSError as error:
        raise unavailable("copying output", error) from error
    if copied.files:
        fsync_folder(target)
    return copied


def _is_same(source: str, target: str, compare: bool) -> bool:
    try:
        there = os.lstat(target)
    except FileNotFoundError:
        return False
    found = os.lstat(source)
    if (found.st_size, found.st_mtime_ns) != (there.st_size, there.st_mtime_ns):
        return False
    return not compare or digest_of(source) == digest_of(target)


def _cloned(origin: int, copy: int) -> bool:
    if _CLONE is None:  # pragma: no cover (Windows)
        return False
    try:
        _CLONE(copy, _FICLONE, origin)
    except OSError:
        return False
    return True


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that hold data; the whole where that cannot be told."""
    place = 0
    while place < size:
        try:
            begin = os.lseek(descriptor, place, os.SEEK_DATA)
            end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:
                yield place, size
            return
        yield begin, min(end, size)
        place = end


def _copy_range(origin: int, copy: int, begin: int, end: int) -> None:
    place = begin
    try:
        while place < end:
            done = os.copy_file_range(origin, copy, min(end - place, _MOST_AT_ONCE), place, place)
            if not done:
                return  # cut shorter meanwhile
            place += done
    except AttributeError:  # pragma: no cover (macOS)
        pass
    except OSError as error:
        if error.errno not in _NOT_THIS_WAY:
            raise
    while place < end:
        data = os.pread(origin, min(_PIECE, end - place), place)
        if not data:
            return
        rest = memoryview(data)
        while rest:
            written = os.pwrite(copy, rest, place)
            rest = rest[written:]
            place += written
