"""Which kind of file system a folder lies on, and whether locks and FIFOs hold there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from mcp_tasks.errors import StoreUnavailable

__all__ = ["file_system_of", "is_network_file_system", "refuse_network_file_system"]

_MOUNTINFO = Path("/proc/self/mountinfo")
_NETWORK = frozenset(
    {
        "9p",
        "afpfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "fuse.ceph",
        "fuse.davfs2",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "osxfuse.sshfs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "webdav",
    }
)


def is_network_file_system(kind: str) -> bool:
    """Whether a file system of this kind is shared between machines."""
    return kind.lower() in _NETWORK


def file_system_of(folder: str, mountinfo: str) -> str:
    """The kind of file system that holds a folder, as proc_pid_mountinfo(5) names it.

    Args:
        folder: An absolute path without links.
        mountinfo: The table; later lines lie over earlier ones.

    Returns:
        The kind, like `ext4`, or an empty string where the table does not tell.
    """
    best, kind = "", ""
    for line in mountinfo.splitlines():
        left, found, right = line.partition(" - ")
        fields = left.split(" ")
        if not found or len(fields) < 5:  # the fifth is the mount point
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        below = point.rstrip("/") + "/"
        if len(point) >= len(best) and (folder == point or folder.startswith(below)):
            best, kind = point, right.split(" ", 1)[0]
    return kind


def refuse_network_file_system(folder: Path) -> None:
    """Raise StoreUnavailable where the folder, or its nearest parent that exists, is on a network."""
    place = os.path.realpath(folder)
    try:
        kind = _kind(place)
    except OSError:
        return
    if is_network_file_system(kind):
        raise StoreUnavailable(
            f"the state directory lies on a network file system ({kind}), where locks do not hold",
            "set MCP_TASKS_DIR to a folder on a local disk",
        )


def _kind(place: str) -> str:
    if sys.platform == "linux":
        # Bytes outside UTF-8 in a mount point must not hide the others.
        return file_system_of(place, _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape"))
    import psutil

    best, kind = "", ""
    for part in psutil.disk_partitions(all=True):
        below = part.mountpoint.rstrip("/\\") + os.sep
        if len(part.mountpoint) >= len(best) and (place + os.sep).startswith(below):
            best, kind = part.mountpoint, part.fstype
    return kind
