"""The real work of the demonstration, planned so that everything it does is known before it runs."""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Work", "WorkNotPossible", "plan_work", "processes_naming"]

COMMAND_SECONDS = 9.0


class WorkNotPossible(Exception):
    """This installation has nothing to compile."""


@dataclass(frozen=True)
class Work:
    """A real command and what it must print and leave behind, known before it runs.

    Attributes:
        script: For the shell.
        passes: How often every module is compiled, each pass into a folder of its own.
        expected: The bytes of stdout.
    """

    script: str
    listing: Path
    compiled: Path
    modules: int
    passes: int
    expected: bytes

    def files_written(self) -> int:
        """How many compiled modules are on disk, counted without the server."""
        return sum(1 for _ in self.compiled.rglob("*.pyc"))

    def processes(self) -> list[psutil.Process]:
        """The processes of the command, from the kernel's list and not from the server."""
        return processes_naming(self.listing)


def plan_work(place: Path) -> Work:
    """Choose how much to compile, so that it takes about `COMMAND_SECONDS` on this machine."""
    modules = _standard_library()
    sizes = [module.stat().st_size for module in modules]
    budget = _compiled_bytes_per_second(modules) * COMMAND_SECONDS
    passes = max(1, round(budget / sum(sizes)))
    if budget < sum(sizes):  # a slow machine: only a part of the modules
        share = budget / sum(sizes)
        modules = modules[: max(20, int(len(modules) * share))]
    listing, compiled = place / "modules.txt", place / "compiled"
    listing.write_text("".join(f"{module}\n" for module in modules))
    # Isolated, and what the interpreter itself imports is not written (-B): only the modules are counted.
    python = shlex.join([sys.executable, "-I", "-B", "-u", "-W", "ignore", "-X", "utf8"])
    prefix = f"-X pycache_prefix={shlex.quote(str(compiled))}/$pass"
    rounds = " ".join(str(number) for number in range(1, passes + 1))
    compileall = f"{python} {prefix} -m compileall -f -i {shlex.quote(str(listing))}"
    script = f"for pass in {rounds}; do {compileall} || exit; done"
    once = "".join(f"Compiling {str(module)!r}...\n" for module in modules).encode()
    return Work(script, listing, compiled, len(modules), passes, once * passes)


def _standard_library() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"}
    found = []
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if name not in left_out)
        found += [Path(folder, name) for name in sorted(names) if name.endswith(".py")]
    if len(found) < 20:
        raise WorkNotPossible(f"this Python installation has no library of source files at {root}")
    return found


def _compiled_bytes_per_second(modules: list[Path]) -> float:
    began, done = time.perf_counter(), 0
    for module in modules[:: max(1, len(modules) // 60)]:
        source = module.read_bytes()
        compile(source, str(module), "exec", dont_inherit=True)
        done += len(source)
        if time.perf_counter() - began > 0.5:
            break
    return done / (time.perf_counter() - began)


def processes_naming(path: Path) -> list[psutil.Process]:
    """The living processes, other than this one, whose arguments name a path."""
    needle, own = str(path), os.getpid()
    return [p for p in psutil.process_iter() if p.pid != own and any(needle in word for word in _words(p))]


def _words(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []
