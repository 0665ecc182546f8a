"""The protocol's own conformance suite against the real server over HTTP.

The stable version has to pass as a whole. The results of the alpha version, which alone knows 2026-07-28
and the tasks extension, are told, and fail nothing: what it asks for may still be wrong.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from tests.conformance.expected import EXPECTED
from tests.conformance.install import Suite, find
from tests.server.test_stdio import ROOT
from tests.service.agent import open_agent
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(400)

_RESULTS = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
_SECONDS = 300
_SUITE = find()  # now, because tests have another home and none of the variables that say where it is


@dataclass(frozen=True)
class Check:
    """One thing that a scenario has looked at."""

    scenario: str
    name: str
    status: str
    message: str

    def __str__(self) -> str:
        return f"{self.status} {self.scenario}: {self.name}: {self.message}"


@pytest.fixture(scope="module")
def suite() -> Suite:
    if _SUITE is None:
        pytest.skip("the conformance suite is not there: python -m tests.conformance.install")
    return _SUITE


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server of its own with what the suite expects; what its tasks run is ended afterwards."""
    directory, log = tmp_path / "state", tmp_path / "log"
    command = [sys.executable, "-m", "tests.conformance.serve", str(directory)]
    with log.open("wb") as err, subprocess.Popen(command, cwd=ROOT, stderr=err) as server:
        try:
            listens = re.compile("listening on (http.*)\n")
            [url] = wait_until(lambda: listens.findall(log.read_text()), "the server listens", 30)
            yield url
        finally:
            server.terminate()
            assert server.wait(10) == 0
    anyio.run(_end_everything, directory)
    assert "Traceback" not in log.read_text()


async def _end_everything(directory: Path) -> None:
    async with open_agent(directory) as agent:
        await agent.end_everything()


def checks(suite: Suite, script: Path, url: str, results: Path, *options: str) -> list[Check]:
    """Run scenarios; what they looked at."""
    command = [suite.node, str(script), "server", "--url", url, "--output-dir", str(results), *options]
    done = subprocess.run(
        command, cwd=results.parent, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    found = []
    for folder in sorted(results.iterdir() if results.is_dir() else ()):
        named = _RESULTS.fullmatch(folder.name)
        assert named is not None, folder.name
        found += [
            Check(named["scenario"], each["id"], each["status"], str(each.get("errorMessage", "")))
            for each in json.loads((folder / "checks.json").read_text())
        ]
    assert found, done.stdout[-2_000:] + done.stderr[-2_000:]
    return found


def test_every_scenario_of_the_stable_version_passes(suite: Suite, url: str, tmp_path: Path) -> None:
    found = checks(suite, suite.stable, url, tmp_path / "results", "--suite", "all")
    assert len({check.scenario for check in found}) == 32
    assert [str(check) for check in found if check.status == "FAILURE"] == []


@pytest.mark.parametrize(("revision", "scenarios"), [("2025-11-25", 33), ("2026-07-28", 50)])
def test_the_results_of_the_alpha_version_are_told(
    suite: Suite,
    url: str,
    tmp_path: Path,
    *,
    record_property: Callable[[str, object], None],
    revision: str,
    scenarios: int,
) -> None:
    found = checks(suite, suite.alpha, url, tmp_path / "results", "--requirements", revision)
    assert len({check.scenario for check in found}) == scenarios
    record_property("told", _report(revision, found))


def _report(revision: str, found: list[Check]) -> str:
    """What passed, what did not, and why where that is known."""
    failed = [check for check in found if check.status == "FAILURE"]
    passed = sum(check.status == "SUCCESS" for check in found)
    lines = [f"conformance at {revision}: {passed} checks passed, {len(failed)} failed"]
    for check in failed:
        why = EXPECTED.get(check.name)
        lines += [f"  NOT EXPECTED: {check}"] if why is None else [f"  expected: {check}", f"    {why}"]
    lines += [f"  {check}" for check in found if check.status in ("WARNING", "SKIPPED")]
    return "\n".join(lines)
