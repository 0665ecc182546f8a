"""What is said about a program that could not be started fits the cause."""

from __future__ import annotations

import pytest

from mcp_tasks.models import SpawnFailure
from mcp_tasks.ports import Ended
from tests.executors.rig import Rig


def remedy(rig: Rig, *command: str) -> str:
    folder = rig.folder()
    assert rig.reserve(folder, rig.launch(command), 1).go().pid is None
    seen = rig.executor.observe(folder)
    assert isinstance(seen, Ended)
    assert isinstance(seen.finished.outcome, SpawnFailure)
    return seen.finished.outcome.hint


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (("no-such-program-here",), "PATH"),
        (("/etc/passwd",), "chmod +x"),
        (("echo", "x" * 200_000), "fewer or shorter arguments"),
        (("printf", "a\0b"), "by hand"),
    ],
)
def test_the_hint_fits_the_cause(rig: Rig, command: tuple[str, ...], hint: str) -> None:
    assert hint in remedy(rig, *command)


def test_a_script_without_an_interpreter_is_told_of_its_first_line(rig: Rig) -> None:
    script = rig.root / "script"
    script.write_text("echo no first line\n")
    script.chmod(0o755)
    lost = rig.root / "lost"
    lost.write_text("#!/no/such/interpreter\n")
    lost.chmod(0o755)

    assert "#! line" in remedy(rig, str(script))
    assert "#! line" in remedy(rig, str(lost))
