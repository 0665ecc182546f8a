"""What a working copy of Subversion says: its database, read as it lies there and not opened for writing."""

from __future__ import annotations

import time
from contextlib import closing
from urllib.parse import quote

from mcp_tasks.projects.folders import Folder
from mcp_tasks.projects.project import Vcs

__all__ = ["read_svn"]

_SECONDS = 0.3
_STEPS = 1_000
_QUERY = """
    SELECT r.root, n.repos_path, n.revision FROM NODES n JOIN REPOSITORY r ON r.id = n.repos_id
    WHERE n.local_relpath = '' AND n.op_depth = 0 LIMIT 1
"""


def read_svn(svn: Folder) -> Vcs:
    """Branch (or trunk), revision and repository of a working copy."""
    path = f"{svn.path}/wc.db"
    svn.look.stamp(path)
    if not svn.holds_file("wc.db"):
        svn.look.report(".svn/wc.db is missing")
        return Vcs("svn")
    import sqlite3  # costs start-up time, and few projects need it

    deadline = time.monotonic() + _SECONDS
    try:
        # `immutable`: no lock is taken and no journal is made in a folder that is not ours.
        place = f"file:{quote(path)}?mode=ro&immutable=1"
        with closing(sqlite3.connect(place, uri=True)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            database.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
            row = database.execute(_QUERY).fetchone()
    except (sqlite3.Error, ValueError, OverflowError):
        svn.look.report(".svn/wc.db is not valid")
        return Vcs("svn")
    match row:
        case (str(root), str(place), int(revision)):
            return Vcs("svn", _branch(place), f"r{revision}", root)
        case _:
            return Vcs("svn")


def _branch(place: str) -> str | None:
    parts = place.strip("/").split("/")
    for number, part in enumerate(parts):
        if part == "trunk":
            return "trunk"
        if part in ("branches", "tags") and number + 1 < len(parts):
            return parts[number + 1]
    return None
