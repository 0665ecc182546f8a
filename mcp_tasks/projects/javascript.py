"""Scripts of package.json and tasks of deno.json."""

from __future__ import annotations

from collections.abc import Iterator

from mcp_tasks.projects.folders import Folder
from mcp_tasks.projects.tables import Finding, json_table, kind_of, mapping

__all__ = ["deno", "node"]

_MOST = 12
_LOCKS = (
    ("pnpm-lock.yaml", "pnpm"),
    ("yarn.lock", "yarn"),
    ("bun.lock", "bun"),
    ("bun.lockb", "bun"),
    ("package-lock.json", "npm"),
)
_PROGRAMS = ("npm", "pnpm", "yarn", "bun")
_NO_TEST = "no test specified"


def node(folder: Folder, names: frozenset[str]) -> Iterator[Finding]:
    """Scripts, run by the package manager that the project uses."""
    table = json_table(folder, "package.json")
    if table is None:
        return
    program = next((program for lock, program in _LOCKS if lock in names), "npm")
    named = str(table.get("packageManager", "")).split("@", 1)[0]
    program = named if named in _PROGRAMS else program
    found = 0
    for name, script in mapping(table, "scripts").items():
        kind = kind_of(name)
        if kind is None or not isinstance(script, str) or _NO_TEST in script or found >= _MOST:
            continue
        found += 1
        short = name == "test" and program != "bun"  # `bun test` is a runner of its own
        yield Finding(kind, f"{program} test" if short else f"{program} run {name}", "package.json")


def deno(folder: Folder, names: frozenset[str]) -> Iterator[Finding]:
    """Tasks, or the runner that comes with deno."""
    if "deno.json" not in names:  # the other form has comments, which are no JSON
        yield Finding("test", "deno test", "deno.jsonc")
        return
    table = json_table(folder, "deno.json")
    if table is None:
        return
    tested = False
    for name in list(mapping(table, "tasks"))[:200]:
        if (kind := kind_of(name)) is not None:
            tested = tested or kind == "test"
            yield Finding(kind, f"deno task {name}", "deno.json")
    if not tested:
        yield Finding("test", "deno test", "deno.json")
