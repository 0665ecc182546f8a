"""The small file beside an archive: what is in it, and how far putting it away has come."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import SESSION_NAME, SessionKey
from mcp_tasks.ports import Archive
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.folder_names import owner_folder, session_folder, session_of_folder

__all__ = ["PACKED", "Stage", "read_label", "session_and_moment", "stem_of", "write_label"]

PACKED = ".tar.gz"
Stage: TypeAlias = Literal["leaving", "away", "unlabelled"]
"""`leaving`: the archive is whole, and the session may be there still; `away`: it is removed.

`unlabelled`: whoever made it was killed before it said anything. One whose label cannot be read is `away`.
"""

_LABEL = ".json"
_NAME = re.compile(r"(.+)~(\d{1,15})", re.ASCII)
_MOST_BYTES = 100_000
_VERSION = 1


def stem_of(folder: Path, key: SessionKey, at: int) -> Path:
    """Where the files of an archive lie, without their suffixes."""
    return folder / owner_folder(key.owner) / f"{session_folder(key.session)}~{at}"


def session_and_moment(stem: str) -> tuple[str, int] | None:
    """The session and the moment that a file name stands for; None for one that is not ours."""
    found = _NAME.fullmatch(stem)
    session = session_of_folder(found[1]) if found else None
    return (session, int(found[2])) if found and session is not None else None


def write_label(stem: Path, archive: Archive, stage: Stage) -> None:
    """Say durably what an archive holds. Raises StoreUnavailable."""
    fields = asdict(archive)
    del fields["problem"]
    path, previous = f"{stem}{_LABEL}", None
    with suppress(FileNotFoundError, durable.UnsafeFile):
        previous = durable.read_private(path, _MOST_BYTES)
    label = json.dumps({"version": _VERSION, "stage": stage, "archive": fields}).encode()
    durable.write_durably(path, label, previous=previous)


def read_label(stem: Path, owner: str | None) -> tuple[Archive, Stage]:
    """What the label of an archive says; one that cannot be read becomes the archive's `problem`.

    Args:
        stem: As `stem_of` gives it.
        owner: Whose archives are looked at, where that is known.

    Raises:
        FileNotFoundError: It has no label: whoever made it was killed before it was whole.
    """
    named = session_and_moment(stem.name)
    if named is None:
        raise FileNotFoundError(stem.name)
    session, at = named
    fallback = Archive(f"{session}~{at}", SessionKey(owner or "", session), at, at, at)
    try:
        data = json.loads(durable.read_private(f"{stem}{_LABEL}", _MOST_BYTES))
        if data["version"] > _VERSION:
            return replace(fallback, problem="a newer version of mcp_tasks made it"), "away"
        archive = _decoded(data["archive"])
        if stem_of(stem.parent.parent, archive.key, archive.archived_at) != stem:
            raise ValueError("it names another archive than its file")
        stage: Stage = "leaving" if data["stage"] == "leaving" else "away"
    except (ValueError, KeyError, TypeError, durable.UnsafeFile) as error:
        return replace(fallback, problem=f"its label is damaged ({str(error)[:100]})"), "away"
    return replace(archive, problem=_size_problem(stem, archive)), stage


def _decoded(fields: dict[str, Any]) -> Archive:
    key = SessionKey(**fields.pop("key"))
    if not SESSION_NAME.fullmatch(key.session):
        raise ValueError("no session name")
    return Archive(key=key, **fields)


def _size_problem(stem: Path, archive: Archive) -> str | None:
    try:
        size = os.lstat(f"{stem}{PACKED}").st_size
    except FileNotFoundError:
        return "the archive itself is missing"
    except OSError as error:
        raise StoreUnavailable(f"an archive cannot be read ({error.strerror})") from error
    return None if size == archive.bytes else f"it has {size} bytes, not {archive.bytes}"
