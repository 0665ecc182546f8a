"""Which languages a project is written in, by counting files, within bounds of time and number."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator

from mcp_tasks.projects.folders import Folder
from mcp_tasks.projects.ignoring import Ignoring, is_foreign_folder
from mcp_tasks.projects.project import Language

__all__ = ["Census", "count_files"]

_MOST_ENTRIES = 20_000
_MOST_FOLDERS = 3_000
_MOST_LANGUAGES = 12
_DEPTH = 32
_SHARE = 0.6  # of the time of a look
_NEAR = 2
_MOST_NEAR = 40

_EXTENSIONS = {
    "Ada": "adb ads",
    "Assembly": "asm s",
    "C": "c h",
    "C#": "cs",
    "C++": "cc cpp cxx hh hpp hxx",
    "CSS": "css less sass scss",
    "Clojure": "clj cljc cljs edn",
    "CMake": "cmake",
    "Crystal": "cr",
    "D": "d",
    "Dart": "dart",
    "Elixir": "ex exs",
    "Elm": "elm",
    "Erlang": "erl hrl",
    "F#": "fs fsi fsx",
    "Fortran": "f f90 f95 for",
    "Gleam": "gleam",
    "Go": "go",
    "Groovy": "gradle groovy",
    "HTML": "htm html",
    "Haskell": "hs lhs",
    "Java": "java",
    "JavaScript": "cjs js jsx mjs",
    "Julia": "jl",
    "Jupyter": "ipynb",
    "Kotlin": "kt kts",
    "Lua": "lua",
    "Markdown": "md mdx",
    "Nim": "nim",
    "Nix": "nix",
    "OCaml": "ml mli",
    "Objective-C": "m mm",
    "PHP": "php",
    "Perl": "pl pm t",
    "PowerShell": "ps1 psm1",
    "Protocol Buffers": "proto",
    "Python": "py pyi pyx",
    "R": "r",
    "Ruby": "rake rb",
    "Rust": "rs",
    "SQL": "sql",
    "Scala": "sc scala",
    "Shell": "bash fish sh zsh",
    "Solidity": "sol",
    "Svelte": "svelte",
    "Swift": "swift",
    "Terraform": "hcl tf",
    "TeX": "tex",
    "TypeScript": "cts mts ts tsx",
    "Vue": "vue",
    "Zig": "zig",
}
_LANGUAGES = {extension: name for name, many in _EXTENSIONS.items() for extension in many.split()}


class Census:
    """What a walk through a project came across.

    Attributes:
        languages: The most frequent ones, by number of files.
        near: Folders at most two levels below the root that are the project's own, with their places.
    """

    def __init__(self) -> None:
        self.languages: tuple[Language, ...] = ()
        self.near: list[tuple[str, Folder]] = []


def count_files(root: Folder) -> Census:
    """Walk through a project, the upper folders first, until it ends or the bounds are reached."""
    census = Census()
    counts: Counter[str] = Counter()
    ignoring = Ignoring(root.text(".gitignore") or "")
    waiting = deque([("", root)])
    entries = folders = 0
    while waiting:
        place, folder = waiting.popleft()
        folders += 1
        if place and place.count("/") < _NEAR and len(census.near) < _MOST_NEAR:
            census.near.append((place, folder))
        for entry in _entries(folder):
            entries += 1
            path = f"{place}/{entry.name}" if place else entry.name
            if _is_folder(entry):
                if (
                    not is_foreign_folder(entry.name)
                    and path.count("/") < _DEPTH
                    and not ignoring.ignores(path, is_folder=True)
                ):
                    waiting.append((path, folder.below(entry.name)))
            elif (language := _language(entry.name)) and not ignoring.ignores(path, is_folder=False):
                counts[language] += _is_file(entry)
            if entries > _MOST_ENTRIES or root.look.is_over(_SHARE):
                break
        if entries > _MOST_ENTRIES or folders > _MOST_FOLDERS or root.look.is_over(_SHARE):
            root.look.report(f"only the first {entries} entries were counted for the languages")
            break
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    census.languages = tuple(Language(name, files) for name, files in most[:_MOST_LANGUAGES] if files)
    return census


def _language(name: str) -> str | None:
    stem, dot, extension = name.rpartition(".")
    return _LANGUAGES.get(extension.lower()) if stem and dot else None


def _entries(folder: Folder) -> Iterator[os.DirEntry[str]]:
    # A folder can be replaced by a link between the listing and this; opened with O_NOFOLLOW it cannot.
    try:
        descriptor = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        with os.scandir(descriptor) as entries:
            yield from entries
    except OSError:
        return
    finally:
        os.close(descriptor)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:
        return False
