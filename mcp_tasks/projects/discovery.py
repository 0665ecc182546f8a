"""Finding out about the project that a folder belongs to."""

from __future__ import annotations

import os

from mcp_tasks.projects.folders import Folder, Look, shown
from mcp_tasks.projects.languages import count_files
from mcp_tasks.projects.manifests import findings, is_manifest
from mcp_tasks.projects.project import Declared, Project
from mcp_tasks.projects.tables import Kind
from mcp_tasks.projects.vcs import find_root, read_vcs

__all__ = ["discover"]

SECONDS = 1.0
"""How long one look takes at most."""

_DEPTH = 16
_MOST_COMMANDS = 24
_MOST_MANIFESTS = 60
_MOST_STAMPS = 400


def discover(cwd: str, seconds: float = SECONDS) -> Project:
    """Look at the project that a folder belongs to. Blocking; reads, and runs nothing.

    Args:
        cwd: An existing folder. Links in its path are resolved; none below is followed.
        seconds: How long to look.
    """
    look = Look(seconds)
    here = Folder(os.path.realpath(cwd), look)
    versioned = find_root(here)
    root = versioned or _declared_root(here)
    vcs = read_vcs(root) if versioned is not None else None
    declared = _Declarations()
    places = _chain(here, root)
    for place, folder in places.items():
        declared.read(place, folder)
    census = count_files(root)
    for place, folder in census.near:
        if place not in places:
            declared.read(place, folder)
    return Project(
        cwd=here.path,
        root=root.path,
        vcs=vcs,
        languages=census.languages,
        build=tuple(declared.commands["build"]),
        test=tuple(declared.commands["test"]),
        manifests=tuple(declared.manifests)[:_MOST_MANIFESTS],
        problems=tuple(look.problems),
        stamps=tuple(sorted(look.stamps.items())[:_MOST_STAMPS]),
    )


def _declared_root(here: Folder) -> Folder:
    """The nearest folder upwards with a manifest, or else the folder itself.

    The home folder and those above it are nobody's project, whatever lies in them.
    """
    home = os.path.realpath(os.path.expanduser("~"))
    path = here.path
    for _ in range(_DEPTH):
        parent = os.path.dirname(path)
        if path in (parent, home) or home.startswith(f"{path}/"):
            break
        folder = Folder(path, here.look)
        if any(is_manifest(name) and folder.holds_file(name) for name in folder.names()):
            return folder
        path = parent
    return here


def _chain(here: Folder, root: Folder) -> dict[str, Folder]:
    """The folder and those above it up to the root, by their places in the project, the nearest first."""
    chain: dict[str, Folder] = {}
    path = here.path
    while path != root.path and len(chain) < _DEPTH:
        place = os.path.relpath(path, root.path)
        chain[place] = Folder(path, root.look, place)
        path = os.path.dirname(path)
    chain[""] = root
    return chain


class _Declarations:
    """What the files of several folders declare, in the order in which they are read."""

    def __init__(self) -> None:
        self.commands: dict[Kind, list[Declared]] = {"build": [], "test": []}
        self.manifests: dict[str, None] = {}

    def read(self, place: str, folder: Folder) -> None:
        if folder.look.is_over():
            folder.look.report("not every folder was looked at, for want of time")
            return
        names = frozenset(folder.names())
        for name in sorted(names):
            if is_manifest(name) and folder.holds_file(name):
                self.manifests[folder.called(name)] = None
        for found in findings(folder, names):
            kept = self.commands[found.kind]
            declared = Declared(found.command, folder.called(found.manifest), shown(place))
            if len(kept) < _MOST_COMMANDS and declared not in kept:
                kept.append(declared)
