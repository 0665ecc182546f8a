"""Commands that people have given a name: targets of make and just, tasks, scripts in a folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from mcp_tasks.projects.folders import Folder
from mcp_tasks.projects.tables import Finding, kind_of

__all__ = ["just", "make", "rake", "scripts", "taskfile"]

_MOST = 12
_TARGETS = re.compile(r"^([A-Za-z0-9_][\w./ %-]{0,200}?)[ \t]{0,4}::?(?![=:])", re.MULTILINE | re.ASCII)
_RECIPE = re.compile(r"^@?([A-Za-z_][\w-]{0,80})(?:[ \t][^\n:]{0,300})?:(?!=)", re.MULTILINE | re.ASCII)
_TASKS = re.compile(r"^tasks:[ \t]*(?:#.*)?$", re.MULTILINE)
_TASK = re.compile(r"""^([ \t]{1,8})["']?([\w:.-]{1,80})["']?:(?=\s|$)""", re.ASCII)
_RAKE = re.compile(
    r"""^\s{0,40}(?:task|(?:[\w:]{1,60}TestTask|[\w:]{1,60}RakeTask)\.new)[ (]\s{0,8}[:"']?([\w:]{1,80})""",
    re.MULTILINE | re.ASCII,
)
_SCRIPT_FOLDERS = (".ci", "ci", "script", "scripts")
_SCRIPT = re.compile(r"([\w-]{1,80})(?:\.(?:sh|bash|py))?", re.ASCII)
_RUNS_ALL = ("run", "all", "ci")


def make(folder: Folder, names: frozenset[str]) -> Iterator[Finding]:
    """Targets of the makefile that make would take: the first of its three names."""
    manifest = next(name for name in ("GNUmakefile", "makefile", "Makefile") if name in names)
    targets = (name for match in _TARGETS.finditer(folder.text(manifest) or "") for name in match[1].split())
    yield from _named(targets, "make {}", manifest)


def just(folder: Folder, names: frozenset[str]) -> Iterator[Finding]:
    """Recipes of a justfile."""
    manifest = next(name for name in ("justfile", "Justfile", ".justfile") if name in names)
    recipes = (match[1] for match in _RECIPE.finditer(folder.text(manifest) or ""))
    yield from _named(recipes, "just {}", manifest)


def taskfile(folder: Folder, names: frozenset[str]) -> Iterator[Finding]:
    """Tasks of a Taskfile: the keys one level below `tasks:`."""
    manifest = next(
        name for name in ("Taskfile.yml", "taskfile.yml", "Taskfile.yaml", "taskfile.yaml") if name in names
    )
    yield from _named(_keys_of_tasks(folder.text(manifest) or ""), "task {}", manifest)


def rake(folder: Folder, manifest: str, prefix: str) -> Iterator[Finding]:
    """Tasks of a Rakefile."""
    tasks = (match[1] for match in _RAKE.finditer(folder.text(manifest) or ""))
    yield from _named(tasks, f"{prefix}rake {{}}", manifest)


def scripts(folder: Folder, names: frozenset[str]) -> Iterator[Finding]:
    """Files in the folders where scripts are usually kept, which say by their names what they do."""
    for place in _SCRIPT_FOLDERS:
        if place not in names or not folder.holds_folder(place):
            continue
        inner = folder.below(place)
        for name in inner.names():
            script = _SCRIPT.fullmatch(name)
            if script is None or not inner.holds_file(name):
                continue
            kind = kind_of(script[1])
            if kind is None and place in (".ci", "ci") and script[1] in _RUNS_ALL:
                kind = "test"
            if kind is not None:
                program = {"py": "python3 ", "sh": "sh ", "bash": "bash "}.get(name.rpartition(".")[2], "./")
                yield Finding(kind, f"{program}{place}/{name}", f"{place}/{name}")


def _keys_of_tasks(text: str) -> Iterator[str]:
    start = _TASKS.search(text)
    if start is None:
        return
    indent = None
    for line in text[start.end() :].splitlines():
        if line[:1].strip() and not line.startswith("#"):
            return
        if key := _TASK.match(line):
            indent = indent or key[1]
            if key[1] == indent:
                yield key[2]


def _named(names: Iterable[str], command: str, manifest: str) -> Iterator[Finding]:
    seen: set[str] = set()
    for name in names:
        kind = kind_of(name)
        if kind is None or name in seen or "%" in name or len(seen) >= _MOST:
            continue
        seen.add(name)
        yield Finding(kind, command.format(name), manifest)
