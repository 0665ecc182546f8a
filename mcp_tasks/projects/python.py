"""How a Python project is built and tested: pyproject.toml and the files that tools of their own have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mcp_tasks.projects.folders import Folder
from mcp_tasks.projects.tables import Finding, kind_of, mapping, toml_table

__all__ = ["python"]

_PYTEST = re.compile(r"\s*pytest(?![\w-])", re.IGNORECASE | re.ASCII)
_PYTEST_SECTION = {
    "tox.ini": re.compile(r"^\[pytest\]", re.MULTILINE),
    "setup.cfg": re.compile(r"^\[tool:pytest\]", re.MULTILINE),
}
_TOX_SECTION = re.compile(r"^\[(?:tox|testenv)\b", re.MULTILINE)
_BUILDERS = (("uv", "uv build"), ("poetry", "poetry build"), ("pdm", "pdm build"), ("hatch", "hatch build"))
_MOST = 8


def python(folder: Folder, names: frozenset[str]) -> Iterator[Finding]:
    """Commands of a Python project, run by the tool that keeps its environment."""
    table = toml_table(folder, "pyproject.toml") if "pyproject.toml" in names else None
    table = table or {}
    tools = mapping(table, "tool")
    keeper = _keeper(tools, names)
    run = f"{keeper} run " if keeper else ""
    yield from _named_tasks(table, run)
    yield from _runners(folder, names, table, run)
    if "manage.py" in names and folder.holds_file("manage.py"):
        yield Finding("test", f"{run}python manage.py test", "manage.py")
    yield from _builds(table, tools, keeper, names)


def _keeper(tools: Mapping[str, Any], names: frozenset[str]) -> str:
    for name, lock in (("uv", "uv.lock"), ("poetry", "poetry.lock"), ("pdm", "pdm.lock")):
        if name in tools or lock in names:
            return name
    return "pipenv" if "Pipfile" in names else ""


def _named_tasks(table: Mapping[str, Any], run: str) -> Iterator[Finding]:
    """Tasks that a project names itself, for whatever runs them."""
    places = (
        (("tool", "pdm", "scripts"), "pdm run {}"),
        (("tool", "poe", "tasks"), f"{run}poe {{}}"),
        (("tool", "taskipy", "tasks"), f"{run}task {{}}"),
        (("tool", "hatch", "envs", "default", "scripts"), "hatch run {}"),
    )
    found = 0
    for path, command in places:
        for name in mapping(table, *path):
            if (kind := kind_of(name)) is not None and found < _MOST:
                found += 1
                yield Finding(kind, command.format(name), "pyproject.toml")
    environments = mapping(table, "tool", "hatch", "envs")
    for environment in environments:
        if environment == "hatch-test":
            yield Finding("test", "hatch test", "pyproject.toml")
        elif environment != "default" and kind_of(environment) == "test":
            for name in mapping(environments, environment, "scripts"):
                if kind_of(name) == "test" and found < _MOST:
                    found += 1
                    yield Finding("test", f"hatch run {environment}:{name}", "pyproject.toml")


def _runners(folder: Folder, names: frozenset[str], table: Mapping[str, Any], run: str) -> Iterator[Finding]:
    """pytest, tox and nox, where the project is set up for them."""
    if (manifest := _pytest_in(folder, names, table)) is not None:
        yield Finding("test", f"{run}pytest", manifest)
    if mapping(table, "tool", "tox"):
        yield Finding("test", f"{run}tox", "pyproject.toml")
    elif "tox.ini" in names and _TOX_SECTION.search(folder.text("tox.ini") or ""):
        yield Finding("test", f"{run}tox", "tox.ini")
    if "noxfile.py" in names and folder.holds_file("noxfile.py"):
        yield Finding("test", f"{run}nox", "noxfile.py")


def _pytest_in(folder: Folder, names: frozenset[str], table: Mapping[str, Any]) -> str | None:
    """The file that sets pytest up, or else names it as needed."""
    if "pytest.ini" in names and folder.holds_file("pytest.ini"):
        return "pytest.ini"
    if mapping(table, "tool", "pytest") or any(_PYTEST.match(need) for need in _needs(table)):
        return "pyproject.toml"
    for manifest, section in _PYTEST_SECTION.items():
        if manifest in names and section.search(folder.text(manifest) or ""):
            return manifest
    for manifest in ("requirements-dev.txt", "requirements.txt"):
        if manifest in names:
            text = folder.text(manifest) or ""
            if any(_PYTEST.match(line) for line in text.splitlines()):
                return manifest
    return None


def _needs(table: Mapping[str, Any]) -> Iterator[str]:
    """What a project says that it needs, in each of the places where that can be said."""
    project = mapping(table, "project")
    lists = [
        project.get("dependencies"),
        *mapping(project, "optional-dependencies").values(),
        *mapping(table, "dependency-groups").values(),
        mapping(table, "tool", "uv").get("dev-dependencies"),
    ]
    for needs in lists:
        if isinstance(needs, list):
            yield from (need for need in needs if isinstance(need, str))
    poetry = mapping(table, "tool", "poetry")
    yield from mapping(poetry, "dependencies")
    yield from mapping(poetry, "dev-dependencies")
    groups = mapping(poetry, "group")
    for name in groups:
        yield from mapping(groups, name, "dependencies")


def _builds(
    table: Mapping[str, Any], tools: Mapping[str, Any], keeper: str, names: frozenset[str]
) -> Iterator[Finding]:
    if "build-system" not in table and "setup.py" not in names and "poetry" not in tools:
        return
    manifest = "pyproject.toml" if table else "setup.py"
    for tool, command in _BUILDERS:
        if tool == keeper or (not keeper and tool in tools and tool == "hatch" and "envs" in tools[tool]):
            yield Finding("build", command, manifest)
            return
    yield Finding("build", "python -m build", manifest)
