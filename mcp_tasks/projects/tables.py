"""What one file declares, and reading files that are a table: JSON and TOML, whatever is in them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic_core import from_json

from mcp_tasks.projects.folders import Folder

__all__ = ["BUILDS", "TESTS", "Finding", "Kind", "json_table", "kind_of", "mapping", "toml_table"]

Kind = Literal["build", "test"]

BUILDS: Final = ("build", "all", "compile", "dist")
TESTS: Final = ("test", "tests", "check", "unittest", "unit-test", "test-all", "ci")

# A name becomes a part of a command, so only what no shell reads as anything else is one.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]{1,100}")


@dataclass(frozen=True, slots=True)
class Finding:
    """A command, and the file of its folder that declares it."""

    kind: Kind
    command: str
    manifest: str


def kind_of(name: str) -> Kind | None:
    """Whether something of this name builds, tests, or does something else, or is no plain name."""
    if not _PLAIN.fullmatch(name) or name.startswith("-"):
        return None
    word = name.lower()
    if word in TESTS or word.startswith(("test:", "test-", "test_")) or word.endswith((":test", "-test")):
        return "test"
    if word in BUILDS or word.startswith(("build:", "build-", "build_")):
        return "build"
    return None


def json_table(folder: Folder, name: str) -> dict[str, Any] | None:
    """A JSON object; None, and a problem, where the file is none."""
    text = folder.text(name)
    if text is None:
        return None
    try:
        value = from_json(text)
    except ValueError:
        folder.look.report(f"{folder.called(name)} is not valid JSON")
        return None
    if not isinstance(value, dict):
        folder.look.report(f"{folder.called(name)} is no JSON object")
        return None
    return value


def toml_table(folder: Folder, name: str) -> dict[str, Any] | None:
    """A TOML table; None, and a problem, where the file is none."""
    text = folder.text(name)
    if text is None:
        return None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        folder.look.report(f"{folder.called(name)} is not valid TOML")
        return None


def mapping(table: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """A table in a table; empty where there is none, or something else."""
    value: Any = table
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}
