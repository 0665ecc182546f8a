"""What the files of a git repository say: gitrepository-layout(5), git-worktree(1), git-config(1)."""

from __future__ import annotations

import os
import re

from mcp_tasks.projects.folders import Folder
from mcp_tasks.projects.project import Vcs

__all__ = ["is_repository", "read_folder", "read_git"]

_POINTER = 4_096
_MOST_REFS = 8 << 20
_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)
# git-check-ref-format(1): no control characters, no `..`, no component that begins with a dot.
_REF = re.compile(r"refs/(?!.*(?:\.\.|//|/\.|@\{))[^\x00-\x20\x7f~^:?*\[\\]{1,240}")
_SECTION = re.compile(r'\[\s*([\w.-]+)\s*(?:"((?:[^"\\]|\\.)*)")?\s*\]\s*(.*)', re.DOTALL)
_VALUE = re.compile(r"([A-Za-z][\w-]*)\s*=\s*(.*)", re.DOTALL)


def is_repository(folder: Folder) -> bool:
    """Whether a folder is the top of a working tree."""
    if folder.holds_folder(".git"):
        return folder.below(".git").holds_file("HEAD") or folder.below(".git").holds_link("HEAD")
    return folder.holds_file(".git") or folder.holds_link(".git")


def read_git(root: Folder) -> Vcs:
    """Branch, commit and remote of a working tree."""
    if root.holds_folder(".git"):
        return read_folder(root.below(".git"))
    pointer = (root.text(".git", most=_POINTER, optional=False) or "").strip()
    if not pointer.startswith("gitdir:"):
        root.look.report(".git does not say where the repository is")
        return Vcs("git")
    place = pointer.removeprefix("gitdir:").strip()
    target = _elsewhere(root, root.path, place)
    # Whatever a foreign file points to is read only where it looks like a repository.
    if target is None or not target.holds_file("HEAD"):
        root.look.report(".git points to a folder that is no repository")
        return Vcs("git")
    return read_folder(target)


def read_folder(repository: Folder) -> Vcs:
    """Branch, commit and remote of a repository, or of the part of one that a worktree has."""
    shared = repository
    if common := (repository.text("commondir", most=_POINTER) or "").strip():
        shared = _elsewhere(repository, repository.path, common) or repository
    head = (repository.text("HEAD", most=_POINTER) or "").strip()
    branch, commit = None, None
    if head.startswith("ref:"):
        name = head.removeprefix("ref:").strip()
        if _REF.fullmatch(name):
            branch = name.removeprefix("refs/heads/")
            commit = _commit(shared, name)
        else:
            repository.look.report("the branch is kept in a form that is not read")
    elif _HASH.fullmatch(head):
        commit = head
    else:
        repository.look.report("HEAD of the git repository is not valid")
    return Vcs("git", branch, commit, _remote(shared, branch))


def _elsewhere(folder: Folder, start: str, place: str) -> Folder | None:
    if "\0" in place:
        return None
    path = os.path.realpath(os.path.join(start, place))
    return Folder(path, folder.look, ".git") if os.path.isdir(path) else None


def _commit(repository: Folder, name: str) -> str | None:
    loose = (repository.text(name, most=_POINTER) or "").strip()
    if _HASH.fullmatch(loose):
        return loose
    packed = repository.text("packed-refs", most=_MOST_REFS) or ""
    ending = f" {name}"
    for line in packed.splitlines():
        if line.endswith(ending) and _HASH.fullmatch(line.removesuffix(ending)):
            return line.removesuffix(ending)
    return None  # the branch has no commit yet


def _remote(repository: Folder, branch: str | None) -> str | None:
    """The URL of the branch's remote, else of `origin`, else of the first one."""
    urls: dict[str, str] = {}
    wanted = "origin"
    section, name = "", ""
    for line in (repository.text("config") or "").splitlines():
        text = line.strip()
        if header := _SECTION.fullmatch(text):
            section, name, text = header[1].lower(), header[2] or "", header[3]
        value = _VALUE.fullmatch(text)
        if value is None:
            continue
        key, content = value[1].lower(), _unquoted(value[2])
        if (section, key) == ("remote", "url"):
            urls.setdefault(name, content)
        elif (section, key, name) == ("branch", "remote", branch):
            wanted = content
    return urls.get(wanted) or urls.get("origin") or next(iter(urls.values()), None)


def _unquoted(value: str) -> str:
    """A value without its comment and quotes."""
    if value.startswith('"'):
        return value[1:].split('"', 1)[0]
    return re.split(r"\s[#;]", value, maxsplit=1)[0].strip()
