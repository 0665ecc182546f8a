"""Version control as its own files have it, without running any of its programs."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit, urlunsplit

from mcp_tasks.projects import git
from mcp_tasks.projects.folders import Folder, shown
from mcp_tasks.projects.project import Vcs
from mcp_tasks.projects.subversion import read_svn
from mcp_tasks.redaction import redact_text

__all__ = ["find_root", "read_vcs", "without_user"]

_DEPTH = 64
_LONGEST = 500
_HG_SECTION = re.compile(r"^\[paths\]\s*$(.*?)(?=^\[|\Z)", re.MULTILINE | re.DOTALL)
_HG_DEFAULT = re.compile(r"^default\s*=\s*(\S.*)$", re.MULTILINE)
_HG_NOTHING = "0" * 40


def find_root(folder: Folder) -> Folder | None:
    """The nearest folder upwards that is under version control, if any is."""
    path = folder.path
    for _ in range(_DEPTH):
        here = Folder(path, folder.look)
        if any(here.holds_folder(name) for name in (".jj", ".hg", ".svn")) or git.is_repository(here):
            return here
        parent = os.path.dirname(path)
        if parent == path:
            break
        path = parent
    return None


def read_vcs(root: Folder) -> Vcs:
    """What a folder that `find_root` has found says of its version control."""
    if root.holds_folder(".jj"):
        found = _read_jj(root)
    elif git.is_repository(root):
        found = git.read_git(root)
    elif root.holds_folder(".hg"):
        found = _read_hg(root.below(".hg"))
    else:
        found = read_svn(root.below(".svn"))
    remote = None if found.remote is None else shown(without_user(found.remote))[:_LONGEST]
    branch = None if found.branch is None else shown(found.branch)[:_LONGEST]
    return Vcs(found.kind, branch, found.commit, remote)


def without_user(url: str) -> str:
    """A URL without the user, password, query and fragment that may hold a secret.

    The user name of an ssh URL stays: it belongs to the address, and proves nothing.
    """
    url = url.strip()
    if "://" not in url:  # a path, or user@host:path as ssh has it
        return redact_text(url)
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        user = parts.username if "ssh" in parts.scheme and parts.password is None else None
    except ValueError:
        return "[redacted]"
    netloc = f"{user}@{host}" if user else host
    return redact_text(urlunsplit((parts.scheme, netloc, parts.path, "", "")))


def _read_hg(hg: Folder) -> Vcs:
    branch = (hg.text("bookmarks.current") or hg.text("branch") or "default").strip()
    state = hg.content("dirstate", most=16 << 20)
    commit = None
    if state:
        # The second format begins with its name; in both, the first parent comes first.
        start = 12 if state.startswith(b"dirstate-v2\n") else 0
        commit = state[start : start + 20].hex()
    settings = hg.text("hgrc") or ""
    section = _HG_SECTION.search(settings)
    default = _HG_DEFAULT.search(section[1]) if section else None
    known = commit if commit and len(commit) == 40 and commit != _HG_NOTHING else None
    return Vcs("hg", branch or None, known, default[1] if default else None)


def _read_jj(root: Folder) -> Vcs:
    """Jujutsu keeps its own state in a form of its own; beside a git repository, that tells the commit."""
    if git.is_repository(root):
        found = git.read_git(root)
        return Vcs("jj", found.branch, found.commit, found.remote)
    target = (root.below(".jj").text("repo/store/git_target") or "").strip()
    if target == "git" and root.below(".jj").below("repo").below("store").holds_folder("git"):
        found = git.read_folder(root.below(".jj").below("repo").below("store").below("git"))
        return Vcs("jj", None, None, found.remote)
    return Vcs("jj")
