"""Looks at projects, kept over a restart in small files that their owner alone can read."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from mcp_tasks.projects.project import Project

__all__ = ["Kept", "Looks", "dump", "parse"]

log = logging.getLogger(__name__)

_LARGEST = 512 << 10
_FIGURES = "figures"
_LOCK_S = 0.5


@dataclass(frozen=True, slots=True)
class Kept:
    """The newest look at a folder, and the newest that somebody was told of.

    Attributes:
        at: When the look was taken, in milliseconds since the epoch.
        told: What the last answer said; None where there was none.
        told_at: When the look that it told of was taken.
    """

    project: Project
    at: int
    told: Project | None = None
    told_at: int = 0


@functools.cache
def _adapter() -> TypeAdapter[Kept]:
    return TypeAdapter(Kept)


@functools.cache
def _figures_adapter() -> TypeAdapter[dict[str, int]]:
    return TypeAdapter(dict[str, int])


def dump(kept: Kept) -> bytes:
    """A look as JSON; empty where a path of it is no text."""
    # What was told needs no stamps: it is compared, and never answered again.
    told = None if kept.told is None else replace(kept.told, stamps=())
    try:
        return _adapter().dump_json(replace(kept, told=told))
    except PydanticSerializationError:
        return b""


def parse(data: bytes) -> Kept:
    """A look from JSON. Raises ValueError."""
    return _adapter().validate_json(data)


class Looks:
    """The kept looks of a state directory. Safe for many processes; never raises: they are only spared work.

    Args:
        folder: Where they are; made when the first is kept.
        most: How many there may be; the ones that were written longest ago make room.
    """

    def __init__(self, folder: Path, most: int = 256) -> None:
        self._folder = folder
        self._most = most

    def load(self, cwd: str) -> Kept | None:
        """The kept look at a folder, if it can be read."""
        data = self._read(_name(cwd))
        try:
            kept = parse(data) if data else None
        except (ValidationError, ValueError):
            log.warning("a kept look at a project could not be read; it is left out")
            return None
        return kept if kept is not None and kept.project.cwd == cwd else None

    def save(self, cwd: str, kept: Kept) -> None:
        """Keep a look."""
        data = dump(kept)
        if data and len(data) <= _LARGEST:
            self._write(_name(cwd), data)
            self._make_room()

    def forget(self) -> int:
        """Remove all looks and figures; returns how many looks went."""
        names = self._names()
        for name in (*names, _FIGURES):
            with suppress(OSError):
                os.unlink(self._folder / name)
        return len(names)

    def size(self) -> tuple[int, int]:
        """How many looks are kept, and their bytes."""
        sizes = []
        for name in self._names():
            with suppress(OSError):
                sizes.append(os.lstat(self._folder / name).st_size)
        return len(sizes), sum(sizes)

    def figures(self) -> dict[str, int]:
        """The counts of all servers and commands that have ended."""
        try:
            return _figures_adapter().validate_json(self._read(_FIGURES) or b"{}")
        except (ValidationError, ValueError):
            return {}

    def add_figures(self, counts: Mapping[str, int]) -> None:
        """Add the counts of one that ends."""
        if not any(counts.values()):
            return
        with suppress(OSError), self._locked():
            totals = self.figures()
            for name, number in counts.items():
                totals[name] = totals.get(name, 0) + number
            self._write(_FIGURES, _figures_adapter().dump_json(totals))

    def _names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._folder) if name.endswith(".json")]
        except OSError:
            return []

    def _make_room(self) -> None:
        names = self._names()
        if len(names) <= self._most:
            return
        aged = []
        for name in names:
            with suppress(OSError):
                aged.append((os.lstat(self._folder / name).st_mtime_ns, name))
        for _, name in sorted(aged)[: len(names) - self._most]:
            with suppress(OSError):
                os.unlink(self._folder / name)

    def _read(self, name: str) -> bytes | None:
        try:
            descriptor = os.open(
                self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            )
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            # What is not ours was put there to be believed.
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                return None
            return file.read(_LARGEST + 1)

    def _write(self, name: str, data: bytes) -> None:
        """Put a file in place in one step. It need not survive a power cut, so nothing is synced."""
        temporary = self._folder / f".{name}.{secrets.token_hex(6)}"
        try:
            self._make_folder()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(data)
            os.replace(temporary, self._folder / name)
        except OSError as error:
            log.warning("a look at a project could not be kept: %s", error.strerror)
            with suppress(OSError):
                os.unlink(temporary)

    def _make_folder(self) -> None:
        with suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        if not stat.S_ISDIR(os.lstat(self._folder).st_mode):
            raise NotADirectoryError(20, "it is no folder")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout  # costs start-up time

        self._make_folder()
        try:
            with FileLock(self._folder / ".lock", timeout=_LOCK_S, mode=0o600):
                yield
        except Timeout as error:
            raise OSError(11, "it is locked") from error


def _name(cwd: str) -> str:
    return f"{hashlib.sha256(os.fsencode(cwd)).hexdigest()[:40]}.json"
