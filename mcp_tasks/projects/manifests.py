"""Which files declare how a project is built and tested, and what they declare."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from mcp_tasks.projects.folders import Folder
from mcp_tasks.projects.javascript import deno, node
from mcp_tasks.projects.python import python
from mcp_tasks.projects.recipes import just, make, rake, scripts, taskfile
from mcp_tasks.projects.tables import Finding, json_table, mapping, toml_table

__all__ = ["findings", "is_manifest"]

_Names = frozenset[str]
_Reader = Callable[[Folder, _Names], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class _Fixed:
    """An ecosystem whose commands are known from the presence of a file.

    Attributes:
        build: Empty where there is none.
    """

    manifest: str
    build: str
    test: str

    def __call__(self, _folder: Folder, _names: _Names) -> Iterator[Finding]:
        if self.build:
            yield Finding("build", self.build, self.manifest)
        if self.test:
            yield Finding("test", self.test, self.manifest)


def _cargo(folder: Folder, _names: _Names) -> Iterator[Finding]:
    table = toml_table(folder, "Cargo.toml")
    if table is None:
        return
    workspace = " --workspace" if "workspace" in table else ""
    yield Finding("build", f"cargo build{workspace}", "Cargo.toml")
    yield Finding("test", f"cargo test{workspace}", "Cargo.toml")


def _maven(folder: Folder, names: _Names) -> Iterator[Finding]:
    program = "./mvnw" if "mvnw" in names and folder.holds_file("mvnw") else "mvn"
    yield Finding("build", f"{program} package", "pom.xml")
    yield Finding("test", f"{program} test", "pom.xml")


def _gradle(folder: Folder, names: _Names) -> Iterator[Finding]:
    program = "./gradlew" if "gradlew" in names and folder.holds_file("gradlew") else "gradle"
    manifest = next(name for name in _GRADLE if name in names)
    yield Finding("build", f"{program} build", manifest)
    yield Finding("test", f"{program} test", manifest)


def _cmake(folder: Folder, _names: _Names) -> Iterator[Finding]:
    text = folder.text("CMakeLists.txt")
    if text is None:
        return
    yield Finding("build", "cmake -B build && cmake --build build", "CMakeLists.txt")
    if _CTEST.search(text):
        yield Finding("test", "ctest --test-dir build", "CMakeLists.txt")


def _composer(folder: Folder, names: _Names) -> Iterator[Finding]:
    table = json_table(folder, "composer.json")
    if table is None:
        return
    declared = mapping(table, "scripts")
    kinds: tuple[Literal["build", "test"], ...] = ("build", "test")
    for kind in kinds:
        if kind in declared:
            yield Finding(kind, f"composer run {kind}", "composer.json")
    if "test" not in declared and not names.isdisjoint(_PHPUNIT):
        yield Finding("test", "vendor/bin/phpunit", next(name for name in _PHPUNIT if name in names))


def _ruby(folder: Folder, names: _Names) -> Iterator[Finding]:
    prefix = "bundle exec " if "Gemfile" in names else ""
    if not names.isdisjoint(_RAKEFILES):
        yield from rake(folder, next(name for name in _RAKEFILES if name in names), prefix)
    if ".rspec" in names or folder.holds_folder("spec"):
        yield Finding("test", f"{prefix}rspec", "Gemfile" if prefix else ".rspec")


def _dart(folder: Folder, _names: _Names) -> Iterator[Finding]:
    text = folder.text("pubspec.yaml") or ""
    yield Finding("test", "flutter test" if _FLUTTER.search(text) else "dart test", "pubspec.yaml")


def _dotnet(_folder: Folder, names: _Names) -> Iterator[Finding]:
    manifest = min(name for name in names if name.endswith(_DOTNET))
    yield Finding("build", "dotnet build", manifest)
    yield Finding("test", "dotnet test", manifest)


_CTEST = re.compile(
    r"^[ \t]*(?:enable_testing|add_test|include\s*\(\s*CTest)\b", re.MULTILINE | re.IGNORECASE
)
_FLUTTER = re.compile(r"^[ \t]{1,8}flutter:", re.MULTILINE)
_GRADLE = ("build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts")
_PHPUNIT = ("phpunit.xml", "phpunit.xml.dist")
_RAKEFILES = ("Rakefile", "rakefile", "Rakefile.rb")
_DOTNET = (".sln", ".slnx", ".csproj", ".fsproj", ".vbproj")
_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")
_JUSTFILES = ("justfile", "Justfile", ".justfile")
_TASKFILES = ("Taskfile.yml", "Taskfile.yaml", "taskfile.yml", "taskfile.yaml")
_PYTHON = (
    *("pyproject.toml", "setup.py", "setup.cfg", "tox.ini", "noxfile.py", "pytest.ini", "manage.py"),
    *("requirements.txt", "Pipfile"),
)
_BAZEL = ("MODULE.bazel", "WORKSPACE", "WORKSPACE.bazel")

# What somebody has written down as a command comes first, what follows from a kind of project after it.
_READERS: Final[tuple[tuple[tuple[str, ...], _Reader], ...]] = (
    ((".ci", "ci", "script", "scripts"), scripts),
    (_MAKEFILES, make),
    (_JUSTFILES, just),
    (_TASKFILES, taskfile),
    (("package.json",), node),
    (("deno.json", "deno.jsonc"), deno),
    (_PYTHON, python),
    (("Cargo.toml",), _cargo),
    (("go.work", "go.mod"), _Fixed("go.mod", "go build ./...", "go test ./...")),
    (("pom.xml",), _maven),
    (_GRADLE, _gradle),
    (("build.sbt",), _Fixed("build.sbt", "sbt compile", "sbt test")),
    (("CMakeLists.txt",), _cmake),
    (("meson.build",), _Fixed("meson.build", "meson setup build && ninja -C build", "meson test -C build")),
    (("configure.ac", "configure"), _Fixed("configure", "./configure && make", "make check")),
    (("composer.json",), _composer),
    (("Gemfile", ".rspec", *_RAKEFILES), _ruby),
    (("mix.exs",), _Fixed("mix.exs", "mix compile", "mix test")),
    (("rebar.config",), _Fixed("rebar.config", "rebar3 compile", "rebar3 eunit")),
    (("gleam.toml",), _Fixed("gleam.toml", "gleam build", "gleam test")),
    (("Package.swift",), _Fixed("Package.swift", "swift build", "swift test")),
    (("pubspec.yaml",), _dart),
    (("stack.yaml",), _Fixed("stack.yaml", "stack build", "stack test")),
    (("cabal.project",), _Fixed("cabal.project", "cabal build all", "cabal test all")),
    (("dune-project",), _Fixed("dune-project", "dune build", "dune test")),
    (("build.zig",), _Fixed("build.zig", "zig build", "zig build test")),
    (("project.clj",), _Fixed("project.clj", "lein compile", "lein test")),
    (("shard.yml",), _Fixed("shard.yml", "shards build", "crystal spec")),
    (("foundry.toml",), _Fixed("foundry.toml", "forge build", "forge test")),
    (_BAZEL, _Fixed("MODULE.bazel", "bazel build //...", "bazel test //...")),
)
_NAMED: Final[frozenset[str]] = frozenset(
    name for names, _ in _READERS for name in names if name not in (".ci", "ci", "script", "scripts")
)
_ALSO: Final[frozenset[str]] = frozenset(("Dockerfile", "compose.yaml", "docker-compose.yml", "flake.nix"))


def is_manifest(name: str) -> bool:
    """Whether a file of this name declares something."""
    return name in _NAMED or name in _ALSO or name.endswith(_DOTNET)


def findings(folder: Folder, names: frozenset[str]) -> Iterator[Finding]:
    """What the files of one folder declare, the most explicit first.

    Args:
        folder: Where they are.
        names: What is in it.
    """
    for wanted, read in _READERS:
        present = [name for name in wanted if name in names]
        if not present or folder.look.is_over():
            continue
        for finding in read(folder, names):
            # Of names that mean the same, the one that is there is told.
            fixed = isinstance(read, _Fixed)
            yield Finding(finding.kind, finding.command, present[0]) if fixed else finding
    if any(name.endswith(_DOTNET) for name in names):
        yield from _dotnet(folder, names)
