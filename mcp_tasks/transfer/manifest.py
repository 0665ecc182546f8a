"""What a backup consists of, file by file, so that each byte of it can be checked."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.stores.disk import durable
from mcp_tasks.transfer.files import digest_of
from mcp_tasks.transfer.sessions import Totals

__all__ = ["MANIFEST", "Manifest", "files_below", "read_manifest", "take_manifest"]

MANIFEST = "manifest.json"
_VERSION = 1
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Manifest:
    """A backup as it was when it was made.

    Attributes:
        made_at: Milliseconds since the epoch.
        adapter: Of the store that it is a copy of, and so of the copy.
        source: State directory that it is a copy of.
        files: Size in bytes and SHA-256 of every file, by its path below the copy.
    """

    made_at: int
    adapter: str
    source: str
    totals: Totals
    files: dict[str, tuple[int, str]]

    def encode(self) -> bytes:
        """As JSON, one file a line, so that people can read it."""
        head = {
            "version": _VERSION,
            "made_at": self.made_at,
            "adapter": self.adapter,
            "source": self.source,
            "totals": asdict(self.totals),
        }
        lines = ",\n".join(
            f"    {json.dumps(name)}: {json.dumps(found)}" for name, found in self.files.items()
        )
        return f'{json.dumps(head)[:-1]}, "files": {{\n{lines}\n}}}}\n'.encode()

    def problems(self, root: Path) -> Iterator[str]:
        """Compare what lies below `root` with the manifest; one sentence for each difference.

        Raises StoreUnavailable where the disk refuses.
        """
        there = set(files_below(root))
        for name, (size, sha256) in self.files.items():
            if name not in there:
                yield f"{name} is missing"
                continue
            try:
                found = digest_of(os.fspath(root / name))
            except (OSError, ValueError) as error:
                yield f"{name} cannot be read: {error.strerror if isinstance(error, OSError) else error}"
                continue
            if found != (size, sha256):
                yield f"{name} is not what was written: {found[0]} bytes, not {size}, or other ones"
        for name in sorted(there.difference(self.files)):
            yield f"{name} does not belong there"


def take_manifest(root: Path, *, made_at: int, adapter: str, source: Path, totals: Totals) -> Manifest:
    """Read every file below a folder that nobody writes to any more. Raises StoreUnavailable."""
    try:
        files = {name: digest_of(os.fspath(root / name)) for name in files_below(root)}
    except ValueError as error:
        raise StoreUnavailable(f"the backup cannot be read: {error}") from error
    except OSError as error:
        raise durable.unavailable("reading the backup", error) from error
    return Manifest(made_at, adapter, os.fspath(source), totals, files)


def read_manifest(folder: Path) -> Manifest:
    """The manifest in the folder of a backup. Raises StoreUnavailable where there is none that is whole."""
    try:
        data = json.loads(durable.read_private(folder / MANIFEST, _MOST_BYTES))
        if data["version"] > _VERSION:
            raise StoreUnavailable(
                f"the backup {folder.name} was made by a newer version of mcp_tasks", "use that version"
            )
        return Manifest(
            made_at=int(data["made_at"]),
            adapter=str(data["adapter"]),
            source=str(data["source"]),
            totals=Totals(**_numbers(data["totals"])),
            files={_inside(name): (int(size), str(sha256)) for name, (size, sha256) in data["files"].items()},
        )
    except FileNotFoundError:
        raise StoreUnavailable(f"{folder} is no backup, or not a whole one: it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreUnavailable(f"the {MANIFEST} of the backup {folder.name} is damaged") from error


def files_below(root: Path) -> list[str]:
    """The paths of all files below a folder, relative to it, sorted. Raises StoreUnavailable."""
    found: list[str] = []
    try:
        for folder, _, names in os.walk(root, onerror=_raise):
            for name in names:
                path = os.path.join(folder, name)
                if not stat.S_ISFIFO(os.lstat(path).st_mode):
                    found.append(os.path.relpath(path, root))
    except OSError as error:
        raise durable.unavailable("reading the backup", error) from error
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _numbers(values: dict[str, Any]) -> dict[str, int]:
    return {str(name): int(value) for name, value in values.items()}


def _inside(name: str) -> str:
    if os.path.isabs(name) or ".." in name.split("/") or not name:
        raise ValueError("a path leads out of the backup")
    return name
