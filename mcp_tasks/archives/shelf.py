"""Where archives lie, and how one is found: the folder `archive` of a state directory.

`archive/<owner>/<stem>` is what the files of an archive have in common; what ends in `.restoring` is there
for as long as it is being brought back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mcp_tasks.archives.labels import PACKED, Stage, read_label, session_and_moment, stem_of
from mcp_tasks.archives.unpacking import Damaged
from mcp_tasks.errors import SessionNotFound
from mcp_tasks.models import SessionKey
from mcp_tasks.ports import Archive
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.folder_names import owner_folder, owner_of_folder
from mcp_tasks.transfer.files import digest_of, open_to_read

__all__ = ["RESTORING", "Shelf"]

RESTORING = ".restoring"


class Shelf:
    """The files of all archives. Who changes anything there holds the lock of `SessionArchives`."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet, and `folder` may be missing."""
        self.folder = folder

    @contextmanager
    def opened(self, stem: Path, archive: Archive) -> Iterator[IO[bytes]]:
        """An archive to read from, its digest checked. Raises Damaged."""
        if archive.problem is not None and archive.sha256:
            raise Damaged(archive.name, archive.problem)
        path = f"{stem}{PACKED}"
        try:
            if archive.sha256 and digest_of(path) != (archive.bytes, archive.sha256):
                raise Damaged(archive.name, "it is not what was written")
            with open(open_to_read(path), "rb") as file:
                yield file
        except FileNotFoundError:
            raise Damaged(archive.name, "the archive itself is missing") from None
        except ValueError as error:
            raise Damaged(archive.name, str(error)) from error

    def found(self, owner: str, name: str) -> tuple[Path, Archive]:
        """The archive of a name, or the newest of a session. Raises SessionNotFound, StoreUnavailable."""
        ours = [(stem, one) for stem, one, _ in self.listed(owner) if name in (one.name, one.key.session)]
        if not ours:
            raise SessionNotFound(name)
        return max(ours, key=lambda pair: (pair[1].name == name, pair[1].archived_at))

    def listed(self, owner: str | None) -> Iterator[tuple[Path, Archive, Stage]]:
        """Each archive of an owner, or of all: its stem, what its label tells, and how far it is."""
        for folder in self.owners(owner):
            known = owner if owner is not None else owner_of_folder(folder)
            try:
                names = sorted(os.listdir(durable.real_folder(os.fspath(self.folder), folder)))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise durable.unavailable("listing archives", error) from error
            stems = {name.removesuffix(PACKED).removesuffix(".json") for name in names if name[0] != "."}
            for name in sorted(stems):
                stem, named = self.folder / folder / name, session_and_moment(name)
                if named is None:
                    continue
                try:
                    archive, stage = read_label(stem, known)
                except FileNotFoundError:
                    if f"{name}{PACKED}" in names:
                        yield stem, self._unlabelled(stem, known or "", *named), "unlabelled"
                    continue
                if owner is None or archive.key.owner == owner:
                    yield stem, archive, stage

    def _unlabelled(self, stem: Path, owner: str, session: str, at: int) -> Archive:
        size = os.lstat(f"{stem}{PACKED}").st_size
        key = SessionKey(owner, session)
        return Archive(f"{session}~{at}", key, at, at, at, bytes=size, problem="it has no label")

    def owners(self, owner: str | None) -> list[str]:
        """Names of the folders of one owner, or of all that have any."""
        if owner is not None:
            return [owner_folder(owner)]
        try:
            with os.scandir(self.folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise durable.unavailable("listing archives", error) from error

    def discard(self, stem: Path) -> None:
        """Remove an archive. Without its label it is still known, and is seen to be left over."""
        try:
            for suffix in (RESTORING, ".json", PACKED):
                with suppress(FileNotFoundError):
                    os.unlink(f"{stem}{suffix}")
        except OSError as error:
            raise durable.unavailable("removing an archive", error) from error
        durable.fsync_folder(stem.parent)

    def new_stem(self, session: SessionKey, at: int) -> Path:
        """Where a new archive is to be, in folders that are there."""
        for place in (self.folder, self.folder / owner_folder(session.owner)):
            if durable.make_private_folder(place):
                durable.fsync_folder(place.parent)
        stem = stem_of(self.folder, session, at)
        while os.path.lexists(f"{stem}{PACKED}") or os.path.lexists(f"{stem}.json"):
            at += 1
            stem = stem_of(self.folder, session, at)
        return stem

    def check(self) -> Iterator[str]:
        """Read every archive; one sentence for each that is damaged. Raises StoreUnavailable."""
        for stem, archive, _ in self.listed(None):
            if archive.problem is not None:
                yield f"archive {archive.name}: {archive.problem}"
                continue
            try:
                if digest_of(f"{stem}{PACKED}") != (archive.bytes, archive.sha256):
                    yield f"archive {archive.name}: it is not what was written"
            except (OSError, ValueError) as error:
                yield f"archive {archive.name}: it cannot be read ({error})"
