"""What a test may have left behind: processes, descriptors, temporary files."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Snapshot", "end_processes", "processes_of"]


@dataclass(frozen=True)
class Snapshot:
    """What this process holds at a moment: child processes, open descriptors, temporary files."""

    children: frozenset[int]
    descriptors: frozenset[tuple[int, str]]
    temporary: frozenset[str]

    @classmethod
    def take(cls) -> Snapshot:
        """Look at this process now."""
        children = frozenset(child.pid for child in psutil.Process().children(recursive=True))
        return cls(children, _descriptors(), frozenset(os.listdir(tempfile.gettempdir())))

    def gained(self, now: Snapshot) -> list[str]:
        """What `now` holds beyond this snapshot, one line for each thing."""
        found = [f"child process {_describe(pid)}" for pid in sorted(now.children - self.children)]
        found += [f"descriptor {fd}: {what}" for fd, what in sorted(now.descriptors - self.descriptors)]
        found += [f"temporary file {name}" for name in sorted(now.temporary - self.temporary)]
        return found


def _descriptors() -> frozenset[tuple[int, str]]:
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    found = set()
    for name in os.listdir(folder):
        try:
            os.fstat(int(name))
            what = os.readlink(f"{folder}/{name}") if sys.platform == "linux" else ""
        except OSError:  # the descriptor of the listing itself
            continue
        found.add((int(name), what))
    return frozenset(found)


def processes_of(folder: Path) -> list[int]:
    """The living processes whose arguments, environment or working directory point into a folder.

    That is how a daemonised one is found, which is nobody's child any more.
    """
    needle = os.fsencode(folder)
    return [pid for pid in psutil.pids() if pid != os.getpid() and _points_into(pid, needle)]


def _points_into(pid: int, needle: bytes) -> bool:
    if sys.platform == "linux":
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                if needle in Path(f"/proc/{pid}/{name}").read_bytes():
                    return True
        with contextlib.suppress(OSError):
            return os.fsencode(os.readlink(f"/proc/{pid}/cwd")).startswith(needle)
        return False
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        words = [process.cwd(), *process.cmdline(), *process.environ().values()]
        return any(needle in os.fsencode(word) for word in words)
    return False


def _describe(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return f"{pid} {process.status()}: {' '.join(process.cmdline()) or process.name()}"
    return str(pid)


def end_processes(pids: list[int]) -> list[str]:
    """Kill processes that a test left behind, and describe them."""
    told = [_describe(pid) for pid in pids]
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).kill()
    return told
