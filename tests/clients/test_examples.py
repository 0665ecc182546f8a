"""The examples for HTTP do what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.clients.install import Clients
from tests.clients.reaching import ROOT, TOKEN, listening

EXAMPLES = ROOT / "examples"


def attempt(argv: Sequence[str], cwd: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """Run an example that has nothing of these variables but what is given."""
    names = ("MCP_TASKS_TOKEN", "MCP_TASKS_URL", "MCP_TASKS_API")
    env = {name: value for name, value in os.environ.items() if name not in names} | given
    return subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def addresses(origin: str) -> dict[str, str]:
    return {"MCP_TASKS_URL": f"{origin}/mcp", "MCP_TASKS_API": f"{origin}/api"}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    def run(argv: Sequence[str], origin: str) -> str:
        done = attempt(argv, tmp_path, MCP_TASKS_TOKEN=TOKEN, **addresses(origin))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_python_program_leaves_and_comes_back_over_http(run: Callable[..., str], tmp_path: Path) -> None:
    argv = [sys.executable, str(EXAMPLES / "over_http.py")]
    with listening(tmp_path / "state") as origin:
        assert re.match(r"started \w+; run me again", run(argv, origin))
        assert run(argv, origin) == "failed, exit code 3: done\n"
        assert "run me again" in run(argv, origin)


def test_a_python_program_calls_a_long_command_as_a_native_task(
    run: Callable[..., str], tmp_path: Path
) -> None:
    with listening(tmp_path / "state") as origin:
        printed = run([sys.executable, str(EXAMPLES / "native_tasks.py")], origin)
        assert printed == "failed, exit code 3: 'begun\\ndone\\n'\n"
        refused = attempt(
            [sys.executable, str(EXAMPLES / "native_tasks.py")],
            tmp_path,
            MCP_TASKS_TOKEN="wrong",
            **addresses(origin),
        )
    assert refused.returncode == 1
    assert refused.stderr.startswith("HTTP 401: ")


def test_a_typescript_program_leaves_and_comes_back_over_http(
    run: Callable[..., str], clients: Clients, tmp_path: Path
) -> None:
    # Its imports resolve from its own folder, as in the project of whoever takes it over.
    script = shutil.copy(EXAMPLES / "over_http.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(clients.modules / "node_modules")
    argv = [clients.node, str(script)]
    with listening(tmp_path / "state") as origin:
        assert re.match(r"started \w+; run me again", run(argv, origin))
        assert run(argv, origin) == "failed, exit code 3: done\n"


def test_a_shell_script_sees_the_output_as_it_comes_by_curl(run: Callable[..., str], tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is missing")
    with listening(tmp_path / "state") as origin:
        printed = run(["sh", str(EXAMPLES / "over_http.sh")], origin)

    assert re.findall(r'"text":"(step \d)\\n"', printed) == ["step 1", "step 2", "step 3"]
    assert '"stdout":"step 1\\nstep 2\\nstep 3\\n"' in printed
    assert '"cleared":["' in printed.splitlines()[-1]


def test_a_python_program_says_in_a_line_why_it_was_refused(tmp_path: Path) -> None:
    argv = [sys.executable, str(EXAMPLES / "over_http.py")]
    with listening(tmp_path / "state") as origin:
        refused = attempt(argv, tmp_path, MCP_TASKS_TOKEN="bad", **addresses(origin))
    gone = attempt(argv, tmp_path, MCP_TASKS_TOKEN="bad", **addresses(origin))

    assert (refused.returncode, refused.stdout, gone.returncode, gone.stdout) == (1, "", 1, "")
    assert "the token is not valid" in refused.stderr
    for done in (refused, gone):
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_shell_script_that_was_refused_starts_nothing_and_goes_no_further(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is missing")
    argv = ["sh", str(EXAMPLES / "over_http.sh")]
    with listening(tmp_path / "state") as origin:
        refused = attempt(argv, tmp_path, MCP_TASKS_TOKEN="bad", **addresses(origin))
    gone = attempt(argv, tmp_path, MCP_TASKS_TOKEN="bad", **addresses(origin))

    assert (refused.returncode, refused.stdout, gone.returncode, gone.stdout) == (1, "", 1, "")
    assert "not started: " in refused.stderr
    assert "the token is not valid" in refused.stderr
    assert "no answer from http" in gone.stderr


@pytest.mark.parametrize("name", ["over_http.py", "over_http.sh"])
def test_an_example_without_its_variables_says_which_it_wants(name: str, tmp_path: Path) -> None:
    program = {"over_http.py": sys.executable, "over_http.sh": "sh"}[name]

    done = attempt([program, str(EXAMPLES / name)], tmp_path)

    assert done.returncode != 0
    assert "MCP_TASKS_" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_typescript_program_says_in_a_line_what_is_wrong(clients: Clients, tmp_path: Path) -> None:
    script = shutil.copy(EXAMPLES / "over_http.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(clients.modules / "node_modules")
    argv = [clients.node, str(script)]
    with listening(tmp_path / "state") as origin:
        refused = attempt(argv, tmp_path, MCP_TASKS_TOKEN="bad", **addresses(origin))
    missing = attempt(argv, tmp_path)

    assert missing.returncode == 2
    assert missing.stderr == "set MCP_TASKS_URL, as the first lines of this file show\n"
    assert (refused.returncode, refused.stdout) == (1, "")
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
