"""The process tree below this process, and how to end it. Standard library only.

On Linux the caller is a child subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), so everything that its
descendants start or abandon stays below it, and an empty tree is a fact. Elsewhere the tree is what
ps(1) shows: descendants, plus the command's process group.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["become_subreaper", "children", "descendants", "kill", "processes", "signal_process"]

_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform == "linux"


def become_subreaper() -> bool:
    """Adopt every orphan of the tree below this process; false where the platform cannot."""
    if not _LINUX:
        return False
    return bool(_libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


@functools.cache
def _libc() -> Any:
    import ctypes  # the launcher pays once, before it forks

    return ctypes.CDLL(None, use_errno=True)


def descendants(root: int, group: int | None = None) -> list[int]:
    """Pids of all living processes below `root`, and of process group `group` where no tree is kept.

    The list is a snapshot: whoever must be sure repeats until nothing is left.
    """
    if _LINUX:
        return list(_walk(root))
    return _from_ps(root, group)


def _walk(root: int) -> Iterator[int]:
    todo = [root]
    seen = {root}
    while todo:
        for child in children(todo.pop()):
            if child not in seen:
                seen.add(child)
                todo.append(child)
                if _lives(child):
                    yield child


def children(pid: int) -> list[int]:
    """Pids of the direct children of a process, ended ones included. Linux only."""
    found: list[int] = []
    if not _LINUX:
        return found
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
        except FileNotFoundError:
            # Either the thread is gone, or this kernel keeps no such list (CONFIG_PROC_CHILDREN).
            if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                return [child for child, parent in processes() if parent == pid]
        except OSError:
            continue
    return found


def processes() -> Iterator[tuple[int, int]]:
    """Every process of the machine as (pid, parent pid). Linux only."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
            except OSError:
                continue
            yield int(name), int(fields[1])


def _lives(pid: int) -> bool:
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        # proc(5): the state, and 17 fields on the number of threads. A process whose first thread has
        # ended looks like a zombie for as long as its other threads run.
        return fields[0] not in (b"Z", b"X") or int(fields[17]) > 1
    except (OSError, IndexError, ValueError):
        return False


def _parent(pid: int) -> int:
    try:
        return int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(descriptor, 65536):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def _from_ps(root: int, group: int | None) -> list[int]:
    reader, writer = os.pipe()
    try:
        pid = os.posix_spawn(
            "/bin/ps",
            ["ps", "-A", "-o", "pid=,ppid=,pgid=,state="],
            {},
            file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)],
        )
    finally:
        os.close(writer)
    with os.fdopen(reader, "rb") as lines:
        rows = [line.split() for line in lines]
    os.waitpid(pid, 0)
    table = {
        int(row[0]): (int(row[1]), int(row[2])) for row in rows if row[3][:1] != b"Z" and int(row[0]) != pid
    }
    found = {root}
    while grown := {p for p, (parent, _) in table.items() if parent in found} - found:
        found |= grown
    if group is not None:
        found |= {p for p, (_, member) in table.items() if member == group}
    return sorted(found - {root})


def signal_process(pid: int, number: int, root: int) -> None:
    """Send a signal to a process of the tree below `root`, never to a stranger with its old pid.

    A pid that a descendant gave up may be reused between the look and the signal. A pidfd pins the
    process (pidfd_open(2)); it is signalled only if it is still below `root` after it was pinned.
    """
    try:
        if not _LINUX:
            os.kill(pid, number)
            return
        pinned = os.pidfd_open(pid)
        try:
            if _is_below(pid, root):
                signal.pidfd_send_signal(pinned, number)
        finally:
            os.close(pinned)
    except OSError:
        # Gone, or of another user after a setuid exec: the caller looks again until the tree is empty.
        return


def kill(pids: list[int], root: int) -> None:
    """Kill processes of the tree below `root`, together with their process groups.

    A group is killed in one step of the kernel, in which no member can fork. That ends processes that
    replace themselves faster than they can be listed. All members are below `root`, because a group lies
    within one session, and each session here was begun below `root`; but for our own, which is spared.
    """
    for pid in pids:
        if _LINUX:
            try:
                pinned = os.pidfd_open(pid)
            except OSError:
                continue
            try:
                group = os.getpgid(pid) if _is_below(pid, root) else 0
                if group > 1 and group != os.getpgrp():
                    os.killpg(group, signal.SIGKILL)
            except OSError:
                pass
            finally:
                os.close(pinned)
        signal_process(pid, signal.SIGKILL, root)


def _is_below(pid: int, root: int) -> bool:
    for _ in range(4096):
        pid = _parent(pid)
        if pid == root:
            return True
        if pid <= 1:
            return False
    return False
