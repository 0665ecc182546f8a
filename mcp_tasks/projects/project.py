"""What is known of a project."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Declared", "Language", "Project", "Stamp", "Vcs"]

Stamp = tuple[int, int, int, int] | None
"""What tells a file from what it was: modified (ns), changed (ns), size, inode; None: not there."""


@dataclass(frozen=True, slots=True)
class Vcs:
    """The version control of a project, as its own files have it.

    Attributes:
        kind: `git`, `hg`, `svn` or `jj`.
        branch: None where none is checked out.
        commit: Hash of the commit that is checked out, or `r5` for a revision of svn.
        remote: URL without user, password and query.
    """

    kind: str
    branch: str | None = None
    commit: str | None = None
    remote: str | None = None


@dataclass(frozen=True, slots=True)
class Language:
    """How many files of a language there are."""

    name: str
    files: int


@dataclass(frozen=True, slots=True)
class Declared:
    """A command that a file declares.

    Attributes:
        source: The file, relative to the root.
        folder: Where to run it, relative to the root; empty for the root itself.
    """

    command: str
    source: str
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Project:
    """What was found out about the project that a folder belongs to.

    Attributes:
        cwd: The folder, absolute and without links.
        root: The project's folder, likewise.
        manifests: The files that declare something, relative to the root.
        problems: What could not be read, one sentence each.
        stamps: What was looked at, by absolute path, to see when it has changed.
    """

    cwd: str
    root: str
    vcs: Vcs | None = None
    languages: tuple[Language, ...] = ()
    build: tuple[Declared, ...] = ()
    test: tuple[Declared, ...] = ()
    manifests: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    stamps: tuple[tuple[str, Stamp], ...] = ()
