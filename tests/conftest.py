"""What every test runs in: a place of its own, and a check that nothing is left of it."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.leaks import Snapshot, end_processes, processes_of
from tests.waiting import wait_until

_SETTLE_SECONDS = 5.0

# How long it takes to make an example up says how busy the machine is, and nothing about the code.
settings.register_profile("here", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI everything can be run, so a test that skips itself has failed: it says what is missing."""
    report = yield
    if report.skipped and os.environ.get("CI") and sys.platform == "linux":
        report.outcome = "failed"
        report.longrepr = f"skipped, which nothing may be in CI: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests tell that fails nothing: `told` among their properties, whichever process ran them."""
    for report in terminalreporter.stats.get("passed", ()):
        for name, value in report.user_properties:
            if name == "told":
                terminalreporter.write_line(str(value))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's settings, state and home out of the tests, and temporary files in one folder."""
    place = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("MCP_TASKS_", "XDG_")) and name != "MCP_TASKS_CAMPAIGN":
                patch.delenv(name)
        patch.setenv("HOME", str(place))
        temporary = place / "tmp"
        temporary.mkdir()
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr(tempfile, "tempdir", str(temporary))
        yield


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> Iterator[None]:
    """Have what is started here end on signals, whoever runs the tests.

    nohup(1) hands down that SIGHUP is ignored, and a shell without job control that SIGINT and SIGQUIT are
    by what it runs in the background; a server rightly leaves it at that.
    """
    usual: dict[signal.Signals, Any] = {
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
        signal.SIGQUIT: signal.SIG_DFL,
    }
    ignored = [number for number in usual if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, usual[number])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session", autouse=True)
def _supervisors_are_measured() -> Iterator[None]:
    """Under coverage, give launchers and supervisors a Python in which coverage can start.

    The usual one has neither site packages nor an environment. That goes for what tests start from
    this process; a server that is a process of its own starts them as it always does.
    """
    config = os.environ.get("COVERAGE_PROCESS_CONFIG")
    if not config:
        yield
        return
    from mcp_tasks.executors.local import LocalExecutor

    interpreter = ("env", f"COVERAGE_PROCESS_CONFIG={config}", sys.executable)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalExecutor.__init__, "__defaults__", (interpreter,))
        yield


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest, _own_surroundings: None) -> Iterator[None]:
    """Fail the test that leaves a process, a descriptor or a temporary file behind."""
    before = Snapshot.take()
    yield
    folder: Path | None = getattr(request.node, "funcargs", {}).get("tmp_path")

    def leaks() -> list[str]:
        found = before.gained(Snapshot.take())
        if folder is not None:
            found += [f"process {pid}" for pid in processes_of(folder)]
        return found

    if not leaks():
        return
    gc.collect()  # what only waits for the collector is no leak
    try:
        wait_until(lambda: not leaks(), "the test has left nothing behind", _SETTLE_SECONDS)
    except AssertionError:
        now = Snapshot.take()
        found = before.gained(now)
        end_processes(sorted(now.children - before.children))
        found += end_processes(processes_of(folder)) if folder is not None else []
        pytest.fail("left behind: " + "; ".join(found))
