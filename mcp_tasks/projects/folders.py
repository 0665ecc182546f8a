"""Reading in foreign folders: regular files only, no more than so much, and through no link."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mcp_tasks.projects.project import Project, Stamp

__all__ = ["Folder", "Look", "is_fresh", "shown", "stamp_of"]

_LARGEST = 1 << 20
_MOST_NAMES = 5_000
_MOST_PROBLEMS = 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a named pipe would wait for somebody to write into it.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Look:
    """One look at a project: until when it may go on, and what it came across.

    Args:
        seconds: How long it may take.

    Attributes:
        stamps: What was looked at, by path.
        problems: What could not be read.
    """

    def __init__(self, seconds: float) -> None:
        self._began = time.monotonic()
        self._seconds = seconds
        self.stamps: dict[str, Stamp] = {}
        self.problems: dict[str, None] = {}

    def is_over(self, share: float = 1.0) -> bool:
        """Whether the time, or a share of it, is used up."""
        return time.monotonic() - self._began > self._seconds * share

    def report(self, problem: str) -> None:
        """Note what could not be read, once."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems[problem] = None

    def stamp(self, path: str) -> None:
        """Remember how something is now."""
        self.stamps.setdefault(path, stamp_of(path))


class Folder:
    """A folder that is read in. What lies outside of it is out of reach.

    Args:
        path: Absolute, and no part of it a link.
        look: What notes problems and stamps.
        name: What the folder is called in problems: its place in the project, empty for the root.
    """

    def __init__(self, path: str, look: Look, name: str = "") -> None:
        self.path = path
        self.look = look
        self.name = name

    def names(self) -> list[str]:
        """The names of what is in the folder, sorted; of a huge one, not all."""
        self.look.stamp(self.path)
        found = []
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    found.append(entry.name)
                    if len(found) >= _MOST_NAMES:
                        self.look.report(f"{self.name or 'the folder'} has too many entries to look at all")
                        break
        except OSError as error:
            self.look.report(f"{self.name or 'the folder'} cannot be listed: {error.strerror}")
        return sorted(found)

    def called(self, name: str) -> str:
        """What something in the folder is called in problems and answers."""
        return shown(f"{self.name}/{name}" if self.name else name)

    def holds_folder(self, name: str) -> bool:
        """Whether a folder, and no link, is there."""
        return self._mode(name) == stat.S_IFDIR

    def holds_file(self, name: str) -> bool:
        """Whether a regular file, and no link, is there."""
        return self._mode(name) == stat.S_IFREG

    def holds_link(self, name: str) -> bool:
        """Whether a link is there."""
        return self._mode(name) == stat.S_IFLNK

    def below(self, name: str) -> Folder:
        """A folder in this one, which must be no link."""
        return Folder(
            f"{self.path.rstrip('/')}/{name}", self.look, f"{self.name}/{name}" if self.name else name
        )

    def text(self, place: str, *, most: int = _LARGEST, optional: bool = True) -> str | None:
        """The text of a file; None where there is none, or none that can be read.

        Bytes that are no UTF-8 are replaced.

        Args:
            place: Its path below the folder.
            most: A larger one is not read.
            optional: Its absence is no problem.
        """
        data = self.content(place, most=most, optional=optional)
        return None if data is None else data.decode("utf-8", "replace").removeprefix("\ufeff")

    def content(self, place: str, *, most: int = _LARGEST, optional: bool = True) -> bytes | None:
        """The bytes of a file, as `text` has it."""
        self.look.stamp(f"{self.path.rstrip('/')}/{place}")
        try:
            with self._opened(place) as descriptor:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    self.look.report(f"{self.called(place)} is no file")
                    return None
                data = _read(descriptor, most + 1)
        except (FileNotFoundError, NotADirectoryError):
            if not optional:
                self.look.report(f"{self.called(place)} is missing")
            return None
        except (OSError, ValueError) as error:
            why = "it is a link, or cannot be opened" if _is_link(error) else getattr(error, "strerror", "")
            self.look.report(f"{self.called(place)} cannot be read: {why or 'its name cannot be one'}")
            return None
        if len(data) > most:
            self.look.report(f"{self.called(place)} is too large to be read ({most} bytes at most)")
            return None
        return data

    def _mode(self, name: str) -> int:
        try:
            return stat.S_IFMT(os.lstat(f"{self.path.rstrip('/')}/{name}").st_mode)
        except (OSError, ValueError):
            return 0

    @contextmanager
    def _opened(self, place: str) -> Iterator[int]:
        """Open a file step by step, so that no folder on the way is a link either."""
        *folders, name = place.split("/")
        held = os.open(self.path, _DIRECTORY)
        try:
            for folder in folders:
                inner = os.open(folder, _DIRECTORY, dir_fd=held)
                os.close(held)
                held = inner
            descriptor = os.open(name, _FILE, dir_fd=held)
        finally:
            os.close(held)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def stamp_of(path: str) -> Stamp:
    """What tells a file or folder from what it was; None where nothing is there."""
    with suppress(OSError, ValueError):
        status = os.lstat(path)
        # A folder's size changes only with what is in it, as its times do.
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
    return None


def is_fresh(project: Project) -> bool:
    """Whether all that was looked at is as it was; cheap."""
    return all(stamp_of(path) == stamp for path, stamp in project.stamps)


def shown(path: str) -> str:
    """A path as text that can be printed: what is no UTF-8 or would drive a terminal is escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _read(descriptor: int, most: int) -> bytes:
    pieces = []
    while most > 0 and (piece := os.read(descriptor, min(most, 1 << 16))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _is_link(error: Exception) -> bool:
    import errno

    return isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.EMLINK)
