"""Which files of a project are not its own: ignored ones, vendored ones, built ones (gitignore(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import Any

__all__ = ["Ignoring", "is_foreign_folder"]

_MOST_LINES = 1_000
_MOST_PATTERNS = 300
_LONGEST_PATTERN = 200

_FOREIGN = frozenset(
    (
        *("node_modules", "bower_components", "jspm_packages", "vendor", "third_party", "Pods", "Carthage"),
        *("venv", "env", "virtualenv", "site-packages", "__pycache__", "eggs", "wheels", "htmlcov"),
        *("build", "dist", "out", "target", "bin", "obj", "_build", "deps", "DerivedData", "coverage"),
        *("bazel-bin", "bazel-out", "bazel-testlogs", "cmake-build-debug", "cmake-build-release", "tmp"),
    )
)


def is_foreign_folder(name: str) -> bool:
    """Whether a folder of this name holds what others wrote or what was built."""
    return name.startswith(".") or name in _FOREIGN or name.endswith((".egg-info", ".xcodeproj"))


@dataclass(frozen=True, slots=True)
class _Pattern:
    expression: str
    keeps: bool
    folders_only: bool


class Ignoring:
    """The patterns of one ignore file, which lies in the root.

    Args:
        text: Its content. What cannot be read as a pattern is passed over.
    """

    def __init__(self, text: str) -> None:
        patterns = (_pattern(line) for line in text.splitlines()[:_MOST_LINES])
        read = [pattern for pattern in patterns if pattern is not None][:_MOST_PATTERNS]
        # The last pattern that fits decides, so only neighbours of one kind can be asked as one.
        self._rules = [
            (keeps, folders_only, compiled)
            for (keeps, folders_only), several in groupby(read, lambda each: (each.keeps, each.folders_only))
            if (compiled := _compiled([pattern.expression for pattern in several])) is not None
        ]

    def ignores(self, path: str, *, is_folder: bool) -> bool:
        """Whether a path below the root, `/` between its parts, is ignored by a pattern of its own."""
        ignored = False
        path = path.encode("utf-8", "replace").decode()
        for keeps, folders_only, matches in self._rules:
            if ignored is keeps and (is_folder or not folders_only) and matches.fullmatch(path):
                ignored = not keeps
        return ignored


def _pattern(line: str) -> _Pattern | None:
    text = line.rstrip()
    if not text or text.startswith("#") or len(text) > _LONGEST_PATTERN:
        return None
    keeps = text.startswith("!")
    text = text.removeprefix("!").removeprefix("\\")
    folders_only = text.endswith("/")
    text = text.rstrip("/")
    anchored = "/" in text
    text = text.removeprefix("/")
    if not text:
        return None
    return _Pattern(("" if anchored else "(?:.*/)?") + _expression(text), keeps, folders_only)


def _compiled(expressions: list[str]) -> Any:
    """One pattern for all: linear in the length of a path, whatever somebody has written into the file."""
    import re2  # type: ignore[import-untyped]  # costs start-up time

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile("|".join(f"(?:{expression})" for expression in expressions), options)
    except (re2.error, UnicodeError):
        return None
    finally:
        re2.purge()  # its cache would keep the programs of projects that nobody asks for any more


def _expression(glob: str) -> str:
    pieces = []
    at = 0
    while at < len(glob):
        if glob.startswith("**/", at):
            pieces.append("(?:.*/)?")
            at += 3
        elif glob.startswith("**", at):
            pieces.append(".*")
            at += 2
        elif glob[at] == "*":
            pieces.append("[^/]*")
            at += 1
        elif glob[at] == "?":
            pieces.append("[^/]")
            at += 1
        elif glob[at] == "[" and (end := glob.find("]", at + 2)) > 0:
            inner = glob[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            pieces.append(f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]")
            at = end + 1
        else:
            pieces.append(re.escape(glob[at]))
            at += 1
    return "".join(pieces)
