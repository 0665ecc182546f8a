"""A Python for the launcher whose processes are measured by coverage, each until its very end.

Called as an interpreter is: `measured_launcher.py CONFIG -c CODE ARGUMENT...`. CONFIG is what coverage
gives to the subprocesses of a measured process.
"""

from __future__ import annotations

import os
import sys


def _run(config: str, code: str, arguments: list[str]) -> None:
    import coverage

    os.environ["COVERAGE_PROCESS_CONFIG"] = config
    coverage.process_startup()
    measured = coverage.Coverage.current()
    if measured is not None:
        leave = os._exit

        def save_and_leave(status: int) -> None:
            # A forked process goes on measuring, and writes to a file of its own.
            measured.stop()
            measured.save()
            leave(status)

        os._exit = save_and_leave  # type: ignore[assignment]
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<launcher>", "exec"), {"__name__": "__main__"})


_run(sys.argv[1], sys.argv[3], sys.argv[4:])
