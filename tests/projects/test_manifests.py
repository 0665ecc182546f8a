from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcp_tasks.projects import Declared, Project
from mcp_tasks.projects.discovery import discover
from tests.projects.folders import git, put

POETRY = '[tool.poetry]\nname = "x"\n[tool.poetry.group.dev.dependencies]\npytest = "*"\n[build-system]\n'
HATCH = (
    "[build-system]\n[tool.hatch.envs.default.scripts]\ntest = 'x'\n"
    "[tool.hatch.envs.hatch-test]\n[tool.hatch.envs.test.scripts]\ncheck = 'x'\nother = 'y'\n"
)
POE = "[tool.poe.tasks]\ntest = 'x'\n[tool.taskipy.tasks]\nbuild = 'x'\n[tool.pdm.scripts]\ncheck = 'x'\n"
TASKFILE = """
version: '3'
tasks:
  build:
    cmds: [x]
  'test:unit':
    cmds:
      - x
  lint: {}
vars:
  test: 1
"""
RAKE = """
task :build do
end
task 'test' => [:build]
Rake::TestTask.new(:check)
RSpec::Core::RakeTask.new(:x)
"""
CASES: list[tuple[str, dict[str, str], list[str], list[str]]] = [
    (
        "npm",
        {"package.json": '{"scripts": {"test": "x", "build": "y", "lint": "z"}}'},
        ["npm run build"],
        ["npm test"],
    ),
    ("npm init", {"package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\""}}'}, [], []),
    (
        "pnpm",
        {"package.json": '{"scripts": {"test:unit": "x"}}', "pnpm-lock.yaml": ""},
        [],
        ["pnpm run test:unit"],
    ),
    ("yarn", {"package.json": '{"scripts": {"test": "x"}, "packageManager": "yarn@4"}'}, [], ["yarn test"]),
    ("bun", {"package.json": '{"scripts": {"test": "x"}}', "bun.lock": ""}, [], ["bun run test"]),
    ("deno", {"deno.json": '{"tasks": {"build": "x"}}'}, ["deno task build"], ["deno test"]),
    ("deno test", {"deno.json": '{"tasks": {"test": "x"}}'}, [], ["deno task test"]),
    ("deno jsonc", {"deno.jsonc": "// x\n{}"}, [], ["deno test"]),
    (
        "pytest",
        {"pyproject.toml": "[tool.pytest.ini_options]\n[build-system]\n"},
        ["python -m build"],
        ["pytest"],
    ),
    ("pytest dep", {"pyproject.toml": "[project]\ndependencies = ['pytest>=8']\n"}, [], ["pytest"]),
    ("pytest extra", {"pyproject.toml": "[project.optional-dependencies]\nt = ['pytest']\n"}, [], ["pytest"]),
    ("no pytest", {"pyproject.toml": "[project]\ndependencies = ['pytest-cov', 5]\n"}, [], []),
    (
        "uv",
        {"pyproject.toml": "[dependency-groups]\ndev = ['pytest']\n[build-system]\n", "uv.lock": ""},
        ["uv build"],
        ["uv run pytest"],
    ),
    ("poetry", {"pyproject.toml": POETRY}, ["poetry build"], ["poetry run pytest"]),
    (
        "hatch",
        {"pyproject.toml": HATCH},
        ["hatch build"],
        ["hatch run test", "hatch test", "hatch run test:check"],
    ),
    ("poe", {"pyproject.toml": POE}, ["pdm run task build"], ["pdm run check", "pdm run poe test"]),
    ("tox", {"tox.ini": "[tox]\n[pytest]\n"}, [], ["pytest", "tox"]),
    ("tox in toml", {"pyproject.toml": "[tool.tox]\nenv_list = ['x']\n"}, [], ["tox"]),
    ("nox", {"noxfile.py": "x"}, [], ["nox"]),
    ("setup.py", {"setup.py": "x", "setup.cfg": "[tool:pytest]\n"}, ["python -m build"], ["pytest"]),
    ("pytest.ini", {"pytest.ini": ""}, [], ["pytest"]),
    ("requirements", {"requirements.txt": "django\npytest==8\n"}, [], ["pytest"]),
    ("django", {"manage.py": "x", "Pipfile": ""}, [], ["pipenv run python manage.py test"]),
    (
        "make",
        {"Makefile": "CC := x\nall: build\nbuild lint:\n\tx: y\ntest: build\n%.o: x\n.PHONY: test\n"},
        ["make all", "make build"],
        ["make test"],
    ),
    ("gnu make first", {"Makefile": "build:\n", "GNUmakefile": "test:\n"}, [], ["make test"]),
    (
        "just",
        {"justfile": "x := '1'\nbuild target='a':\n  x\n@test *args: build\n  y\n"},
        ["just build"],
        ["just test"],
    ),
    ("task", {"Taskfile.yml": TASKFILE}, ["task build"], ["task test:unit"]),
    ("no tasks", {"Taskfile.yml": "version: '3'\n"}, [], []),
    (
        "scripts",
        {".ci/test.sh": "x", "scripts/build.py": "x", "scripts/deploy.sh": "x", "ci/run": "x"},
        ["python3 scripts/build.py"],
        ["sh .ci/test.sh", "./ci/run"],
    ),
    ("cargo", {"Cargo.toml": "[workspace]\n"}, ["cargo build --workspace"], ["cargo test --workspace"]),
    ("go", {"go.mod": "module x\n"}, ["go build ./..."], ["go test ./..."]),
    ("maven", {"pom.xml": "<x/>", "mvnw": "x"}, ["./mvnw package"], ["./mvnw test"]),
    ("gradle", {"build.gradle.kts": ""}, ["gradle build"], ["gradle test"]),
    ("gradle wrapper", {"settings.gradle": "", "gradlew": ""}, ["./gradlew build"], ["./gradlew test"]),
    ("cmake", {"CMakeLists.txt": "include(X)\n"}, ["cmake -B build && cmake --build build"], []),
    (
        "ctest",
        {"CMakeLists.txt": "project(x)\nenable_testing()\n"},
        ["cmake -B build && cmake --build build"],
        ["ctest --test-dir build"],
    ),
    ("composer", {"composer.json": '{"scripts": {"test": "x"}}'}, [], ["composer run test"]),
    ("phpunit", {"composer.json": "{}", "phpunit.xml.dist": ""}, [], ["vendor/bin/phpunit"]),
    (
        "ruby",
        {"Gemfile": "", "Rakefile": RAKE, ".rspec": ""},
        ["bundle exec rake build"],
        ["bundle exec rake test", "bundle exec rake check", "bundle exec rspec"],
    ),
    ("mix", {"mix.exs": ""}, ["mix compile"], ["mix test"]),
    ("dotnet", {"a.csproj": "", "b.sln": ""}, ["dotnet build"], ["dotnet test"]),
    ("flutter", {"pubspec.yaml": "dependencies:\n  flutter:\n"}, [], ["flutter test"]),
    ("dart", {"pubspec.yaml": "name: x\n"}, [], ["dart test"]),
    ("swift", {"Package.swift": ""}, ["swift build"], ["swift test"]),
]


def project(root: Path, files: dict[str, str]) -> Project:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return discover(str(root))


@pytest.mark.parametrize(
    ("files", "build", "test"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_commands_are_those_that_the_files_declare(
    tmp_path: Path, files: dict[str, str], build: list[str], test: list[str]
) -> None:
    found = project(git(tmp_path), files)
    assert [each.command for each in found.build] == build
    assert [each.command for each in found.test] == test
    assert found.problems == ()
    for each in (*found.build, *found.test):
        assert (tmp_path / each.source).is_file()


def test_what_is_written_down_comes_before_what_follows_from_the_kind(tmp_path: Path) -> None:
    found = project(git(tmp_path), {"Cargo.toml": "", "Makefile": "test:\n"})
    assert [each.command for each in found.test] == ["make test", "cargo test"]


def test_a_project_in_a_project_says_where_its_commands_are_to_be_run(tmp_path: Path) -> None:
    git(tmp_path)
    put(
        tmp_path,
        Makefile="test:\n",
        web__package_dot_json='{"scripts": {"test": "x"}}',
        a__b__c__go_dot_mod="",
    )
    found = discover(str(tmp_path))
    assert found.test == (Declared("make test", "Makefile"), Declared("npm test", "web/package.json", "web"))
    assert found.manifests == ("Makefile", "web/package.json")
    inner = discover(str(tmp_path / "web"))
    assert inner.root == str(tmp_path)
    assert [each.command for each in inner.test] == ["npm test", "make test"]
    deep = discover(str(tmp_path / "a/b/c"))
    assert [each.folder for each in deep.test] == ["a/b/c", "", "web"]


def test_only_names_that_no_shell_reads_as_more_become_commands(tmp_path: Path) -> None:
    names = ["test; rm -rf ~", "test:$(id)", "test:`id`", "test\nx", "-test", "test:" + "x" * 200, "test:ok"]
    found = project(git(tmp_path), {"package.json": json.dumps({"scripts": dict.fromkeys(names, "x")})})
    assert [each.command for each in found.test] == ["npm run test:ok"]


def test_no_file_makes_more_commands_than_somebody_would_read(tmp_path: Path) -> None:
    scripts = {f"test:{number}": "x" for number in range(1_000)}
    files = {
        "package.json": json.dumps({"scripts": scripts}),
        "Makefile": "\n".join(f"test-{number}:" for number in range(1_000)),
    }
    found = project(git(tmp_path), files)
    assert len(found.test) == 24


def test_languages_are_counted_without_what_is_ignored_vendored_or_hidden(tmp_path: Path) -> None:
    git(tmp_path)
    for name in ("a.py", "b.py", "c.rs", "x/d.py", "x/README", ".py", "noextension"):
        put(tmp_path, **{name.replace("/", "__").replace(".", "_dot_"): ""})
    for name in (
        "node_modules/a.js",
        "vendor/a.go",
        ".venv/a.py",
        "gen/a.c",
        "x/deep/y.tmp.py",
        "logs/keep.sh",
    ):
        put(tmp_path, **{name.replace("/", "__").replace(".", "_dot_"): ""})
    put(
        tmp_path,
        _dot_gitignore="# made\n/gen/\n*.tmp.py\nlogs/*\n!logs/keep.sh\n\\#odd\n[\n"
        + "x" * 500
        + "\n/\n**/z/**\nq?[!a]\n",
    )
    found = discover(str(tmp_path))
    assert [(each.name, each.files) for each in found.languages] == [("Python", 3), ("Rust", 1), ("Shell", 1)]
    assert found.problems == ()
