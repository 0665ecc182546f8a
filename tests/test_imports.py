"""What is imported where, beyond what import-linter's contracts say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def loaded_by(statement: str, *options: str) -> set[str]:
    # What is there from the outset is the interpreter's, or is needed to measure coverage.
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules); {statement}; "
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, *options, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    return set(done.stdout.split())


def test_launcher_and_supervisor_run_on_the_standard_library_alone() -> None:
    loaded = loaded_by("import mcp_tasks.executors.launcher, mcp_tasks.executors.supervisor", "-I", "-S")

    others = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"mcp_tasks", "__main__"}
    assert others == set()
    ours = {name for name in loaded if name.startswith("mcp_tasks.")}
    assert all(name.startswith("mcp_tasks.executors") for name in ours), ours


def test_what_costs_every_supervisor_memory_stays_out_of_it() -> None:
    loaded = loaded_by("import mcp_tasks.executors.launcher, mcp_tasks.executors.supervisor", "-I", "-S")

    assert loaded & {"asyncio", "json", "logging", "subprocess"} == set()


def test_the_package_itself_loads_nothing_heavy() -> None:
    loaded = loaded_by("import mcp_tasks")

    assert loaded & {"anyio", "asyncio", "mcp", "mcp_types", "psutil", "pydantic", "rich", "typer"} == set()


def test_the_words_of_the_wire_are_loaded_by_the_server_alone() -> None:
    loaded = loaded_by("import mcp_tasks.app, mcp_tasks.cli.program, mcp_tasks.service")

    assert loaded & {"mcp", "mcp_types"} == set()


def test_what_few_calls_need_is_not_loaded_before_them() -> None:
    loaded = loaded_by("import mcp_tasks.app, mcp_tasks.cli.program, mcp_tasks.retention")

    rare = {"cryptography", "filelock", "keyring", "re2", "sqlite3", "tarfile", "watchfiles"}
    assert loaded & rare == set()
    assert {name for name in loaded if name.startswith(("mcp_tasks.transfer", "mcp_tasks.archives."))} == {
        "mcp_tasks.archives.late"
    }
    assert loaded & {"mcp_tasks.projects.discovery", "mcp_tasks.service.journal.importing"} == set()
